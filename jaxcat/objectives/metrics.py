"""The table of metrics besides the loss; each is a sum over rows, divided by their number at the end (sums.py).

A new metric is one function and one row of `METRICS`. A run keeps the metrics that it began with, so older runs go on.
The functions take arrays of NumPy or JAX, and this module imports no framework.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# An array of NumPy or JAX, also one that is being traced. Its functions are those of its own library.
AnyArray = Any


def predictions(logits: AnyArray) -> AnyArray:
    """Predicted class of every row, (B,); with one logit, the second class is the positive one."""
    if logits.shape[-1] == 1:
        return (logits[:, 0] > 0).astype(np.int32)
    return logits.__array_namespace__().argmax(logits, axis=-1)


def correct(logits: AnyArray, labels: AnyArray) -> AnyArray:
    """Whether the predicted class is the label, bool (B,)."""
    return predictions(logits) == labels


def among_five(logits: AnyArray, labels: AnyArray) -> AnyArray:
    """Whether the label is among the five highest logits, bool (B,); of equal logits, the first counts as higher."""
    library = logits.__array_namespace__()
    own = library.take_along_axis(logits, labels[:, None], axis=-1)
    higher = (logits > own) | ((logits == own) & (library.arange(logits.shape[-1]) < labels[:, None]))
    return higher.sum(axis=-1) < 5


class Metric(NamedTuple):
    """One row of `METRICS`.

    Attributes:
        sum: name of its sum in checkpoints; must not change once runs have used it.
        of_rows: (logits (B, outputs), labels int32 (B,)) → bool (B,).
        least_classes: with fewer classes the metric is meaningless and is left out.
    """

    sum: str
    of_rows: Callable[[AnyArray, AnyArray], AnyArray]
    least_classes: int = 2


METRICS: dict[str, Metric] = {
    "accuracy": Metric("correct", correct),
    "top_5_accuracy": Metric("among_five", among_five, least_classes=6),
}


def metrics_for(classes: int) -> tuple[str, ...]:
    """Names of the metrics that are meaningful for this number of classes."""
    return tuple(name for name, metric in METRICS.items() if classes >= metric.least_classes)
