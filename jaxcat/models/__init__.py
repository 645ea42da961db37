"""Networks, and which part of one is frozen."""
