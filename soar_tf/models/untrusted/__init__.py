"""Files from strangers: what is checked before a library opens them."""
