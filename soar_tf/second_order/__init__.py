"""Second derivatives: which of TensorFlow's are wrong, and exact replacements for them."""
