"""Finding the records of folders, tables, archives, TFDS and built-in data: names, labels, splits, what is skipped."""
