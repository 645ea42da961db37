"""Bytes of weights files that nobody has checked: each format's reader decides what its library may be given."""
