"""One image: which formats are read, decoding to the pixels that a person sees, resizing to squares."""
