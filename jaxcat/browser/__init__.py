"""What the pages of `export` and `serve` share: scripts and a style; `files.py` names them."""
