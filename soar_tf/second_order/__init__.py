"""Second derivatives: which ones TensorFlow gets wrong, and exact replacements for them."""
