"""What happens to a training run when something goes wrong: every fault tried for real."""
