"""Training of a run: steps, optimizers, the origin of its parameters, the loop, and reports."""
