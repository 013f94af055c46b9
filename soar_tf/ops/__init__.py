"""Mathematics: pure TensorFlow functions, one result per example, no state."""
