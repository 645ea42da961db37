"""Making a run: steps, optimizers, where its numbers begin, the loop, and what it reports."""
