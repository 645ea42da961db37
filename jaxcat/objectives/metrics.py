"""The table of metrics besides the loss; each is a sum over rows, divided by their number at the end.

A new metric is one function and one row of `METRICS`. A run keeps the metrics that it began with, so older runs go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcat.objectives.losses import losses

Batch = Mapping[str, Array]


def predictions(logits: Array) -> Array:
    """Predicted class of every row, (B,); with one logit, the second class is the positive one."""
    return (logits[:, 0] > 0).astype(jnp.int32) if logits.shape[-1] == 1 else jnp.argmax(logits, axis=-1)


def correct(logits: Array, labels: Array) -> Array:
    """Whether the predicted class is the label, bool (B,)."""
    return predictions(logits) == labels


def among_five(logits: Array, labels: Array) -> Array:
    """Whether the label is among the five highest logits, bool (B,); of equal logits, the first counts as higher."""
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    higher = (logits > own) | ((logits == own) & (jnp.arange(logits.shape[-1]) < labels[:, None]))
    return higher.sum(axis=-1) < 5


class Metric(NamedTuple):
    """One row of `METRICS`.

    Attributes:
        sum: name of its sum in checkpoints; must not change once runs have used it.
        of_rows: (logits (B, outputs), labels int32 (B,)) → bool (B,).
        least_classes: with fewer classes the metric is meaningless and is left out.
    """

    sum: str
    of_rows: Callable[[Array, Array], Array]
    least_classes: int = 2


METRICS: dict[str, Metric] = {
    "accuracy": Metric("correct", correct),
    "top_5_accuracy": Metric("among_five", among_five, least_classes=6),
}


def metrics_for(classes: int) -> tuple[str, ...]:
    """Names of the metrics that are meaningful for this number of classes."""
    return tuple(name for name, metric in METRICS.items() if classes >= metric.least_classes)


def zero_sums(metrics: Iterable[str]) -> dict[str, np.ndarray]:
    """`loss` float32, `count` and a sum for each metric int32, all 0."""
    names = ["count", *(METRICS[name].sum for name in metrics)]
    return {"loss": np.zeros((), np.float32)} | {name: np.zeros((), np.int32) for name in names}


def masked_sums(
    logits: Array, batch: Batch, metrics: Iterable[str], *, class_weights: Array | None = None
) -> dict[str, Array]:
    """The sums of `zero_sums` over the rows where `batch["mask"]` is True."""
    mask, labels = batch["mask"], batch["label"]
    loss = losses(logits, labels)
    if class_weights is not None:
        loss = loss * class_weights[labels]
    of_rows = {METRICS[name].sum: METRICS[name].of_rows(logits, labels) for name in metrics}
    return {
        "loss": jnp.sum(jnp.where(mask, loss, 0.0)),  # not loss × mask: a NaN in a padded row must not count
        "count": jnp.sum(mask, dtype=jnp.int32),
        **{name: jnp.sum(jnp.where(mask, hits, False), dtype=jnp.int32) for name, hits in of_rows.items()},
    }


def averages(sums: Mapping[str, float], metrics: Iterable[str]) -> dict[str, float]:
    """`loss` and every metric, from sums over `sums["count"]` rows (0 rows: 0)."""
    count = max(1, int(sums["count"]))
    return {"loss": float(sums["loss"]) / count} | {name: int(sums[METRICS[name].sum]) / count for name in metrics}
