"""Probabilities from logits, without a framework."""

from __future__ import annotations

import numpy as np


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Logits (N, outputs) → float32 (N, classes); for one logit z, the columns are 1 - sigmoid(z) and sigmoid(z)."""
    both = with_zero_logit(logits.astype(np.float64))
    # softmax, not SciPy's: importing that takes 0.15 s, a tenth of the time to classify one image
    powers = np.exp(both - both.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def with_zero_logit(logits: np.ndarray) -> np.ndarray:
    """One logit z → two, (0, z), whose softmax is (1 - sigmoid(z), sigmoid(z)); more logits come back as they are."""
    return np.pad(logits, ((0, 0), (1, 0))) if logits.shape[1] == 1 else logits
