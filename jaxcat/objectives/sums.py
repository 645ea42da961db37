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
        logits: float32 (B, outputs).
        batch: `label` int32 (B,) and `mask` bool (B,). If it has `other_label` int32 (B,) and `share` float32 (B,), a
            row's loss is share × that of its label + (1 - share) × that of the other; metrics go by its own label.
        metrics: names in METRICS.
        class_weights: float32 (classes,), factors on the loss of a row, by its label.
        label_smoothing: see `losses`.
    """
    mask, labels = batch["mask"], batch["label"]

    def losses_of(labels: Array) -> Array:
        loss = losses(logits, labels, smoothing=label_smoothing)
        return loss if class_weights is None else loss * class_weights[labels]

    loss = losses_of(labels)
    if "share" in batch:
        loss = batch["share"] * loss + (1 - batch["share"]) * losses_of(batch["other_label"])
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
