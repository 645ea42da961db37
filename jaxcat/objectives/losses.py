"""The loss of each row of a batch, from its logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import Array


def losses(logits: Array, labels: Array, *, smoothing: float = 0.0) -> Array:
    """Cross-entropy of every row, float32 (B,): binary if there is one logit (B, 1), else softmax (B, classes).

    Args:
        labels: the class of every row, int32 (B,).
        smoothing: share of each label that is spread evenly over all classes, its own included (arXiv:1512.00567,
            section 7). One logit stands for two classes.
    """
    if logits.shape[-1] == 1:
        logit, positive = logits[:, 0], labels.astype(jnp.float32)
        if smoothing:
            positive = optax.smooth_labels(jnp.stack([1 - positive, positive], axis=-1), smoothing)[:, 1]
        return optax.sigmoid_binary_cross_entropy(logit, positive)
    if smoothing:
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
        return optax.softmax_cross_entropy(logits, targets)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
