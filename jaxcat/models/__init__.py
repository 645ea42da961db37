"""Networks, which of their stages are frozen, and networks as lists of layers for other runtimes."""
