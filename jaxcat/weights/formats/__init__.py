"""Readers of untrusted weights files, one per format; each checks the bytes before its library gets them."""
