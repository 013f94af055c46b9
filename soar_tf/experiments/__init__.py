"""Training runs as the command line makes them: folders, checkpoints, manifests, models."""
