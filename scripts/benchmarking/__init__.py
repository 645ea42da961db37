"""The parts of scripts/benchmark.py: worker processes, rounds between peers, the sections, the table."""
