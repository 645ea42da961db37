"""Networks, and which of their stages are frozen."""
