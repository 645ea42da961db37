"""Losses and metrics of logits, as functions of arrays."""
