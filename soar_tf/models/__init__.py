"""Networks, and everything that reads or writes them."""
