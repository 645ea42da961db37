"""The loss of each row of a batch, from its logits."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jax import Array


def losses(logits: Array, labels: Array) -> Array:
    """Cross-entropy of every row, float32 (B,): binary if there is one logit (B, 1), else softmax (B, classes)."""
    if logits.shape[-1] == 1:
        return optax.sigmoid_binary_cross_entropy(logits[:, 0], labels.astype(jnp.float32))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
