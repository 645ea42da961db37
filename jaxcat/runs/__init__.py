"""A workdir on disk: what checkpoints say of themselves, how they are written, recovered and restored."""
