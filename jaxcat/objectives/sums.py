"""Loss and metrics as sums over rows, which are divided by the number of rows at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcat.objectives.losses import losses
from jaxcat.objectives.metrics import METRICS

Batch = Mapping[str, Array]


def zero_sums(metrics: Iterable[str]) -> dict[str, np.ndarray]:
    """`loss` float32, `count` and a sum for each metric int32, all 0."""
    names = ["count", *(METRICS[name].sum for name in metrics)]
    return {"loss": np.zeros((), np.float32)} | {name: np.zeros((), np.int32) for name in names}


def masked_sums(
    logits: Array,
    batch: Batch,
    metrics: Iterable[str],
    *,
    class_weights: Array | None = None,
    label_smoothing: float = 0.0,
) -> dict[str, Array]:
    """The sums of `zero_sums` over the rows where `batch["mask"]` is True.

    Args:
        class_weights: float32 (classes,), factors on the loss of a row, by its label.
        label_smoothing: see `losses`.
    """
    mask, labels = batch["mask"], batch["label"]
    loss = losses(logits, labels, smoothing=label_smoothing)
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
