"""A workdir on disk: what its checkpoints contain, and how they are written, recovered and restored."""
