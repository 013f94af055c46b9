"""Training runs: configurations, directories, checkpoints and provenance."""
