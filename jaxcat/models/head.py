"""The classification head: pooling of one or several blocks, and which layers with ReLU come before the logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array
from ml_collections import ConfigDict

from jaxcat.models.backbone import Top


def hidden_layers(model: ConfigDict, top: Top | None = None) -> Mapping[str, int]:
    """Name → width of the layers between the pooled features and the logits, in the order the data flows."""
    if top is not None:
        return top.hidden
    return {"hidden": model.hidden} if model.hidden else {}


class Pool(nnx.Module):
    """Outputs (B, H, W, C) of several blocks → features (B, features), concatenated in the order of the blocks.

    Each output is reduced to a grid of averages or maxima, or kept whole, and flattened in the order of Keras.
    """

    def __init__(self, kind: str, grid: int, shapes: Sequence[tuple[int, int, int]]):
        self.kind, self.grid = kind, grid
        self.features = sum(c * (height * width if kind == "flatten" else grid**2) for height, width, c in shapes)

    def __call__(self, maps: Sequence[Array]) -> Array:
        return jnp.concatenate([self._flat(x) for x in maps], axis=1)

    def _flat(self, x: Array) -> Array:
        if self.kind == "flatten":
            return x.reshape(x.shape[0], -1)
        reduce = jnp.mean if self.kind == "avg" else jnp.max
        rows, columns = (_cells(side, self.grid) for side in x.shape[1:3])
        cells = [reduce(x[:, top:bottom, left:right], axis=(1, 2)) for top, bottom in rows for left, right in columns]
        return jnp.stack(cells, axis=1).reshape(x.shape[0], -1)


def _cells(side: int, grid: int) -> list[tuple[int, int]]:
    """Start and end of `grid` intervals that cover `side` cells; if `grid` is no divisor, they overlap by one cell."""
    return [(i * side // grid, -(-(i + 1) * side // grid)) for i in range(grid)]
