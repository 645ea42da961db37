"""Files inside archives, read in place as if they lay in folders."""
