"""Pooling of one or several blocks into the features that the head sees, in Flax NNX."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from jaxcat.models.pooling import PooledPart, cells, pooled_parts


class Pool(nnx.Module):
    """Outputs (B, H, W, C) of several blocks → features (B, features): the parts, one after the other.

    For each block in the order the data flows, and each statistic of `model.pool`, the output is reduced to a grid of
    cells, or kept whole, and flattened in the order of Keras.
    """

    def __init__(self, kind: str, grid: int, shapes: Mapping[str, tuple[int, int, int]]):
        self.grid, self.parts = grid, pooled_parts(kind, grid, shapes)
        self.features = sum(part.width for part in self.parts)

    def __call__(self, maps: Mapping[str, Array], before: Array | None = None) -> Array:
        """The features (B, features). Those of the blocks that `maps` lacks are `before`: they come first."""
        own = [self.part(part, maps) for part in self.parts if part.block in maps]
        return jnp.concatenate(own if before is None else [before, *own], axis=1)

    def part(self, part: PooledPart, maps: Mapping[str, Array]) -> Array:
        """The features (B, width) of one part, from the outputs of at least its own block."""
        x = maps[part.block]
        if part.statistic == "flatten":
            return x.reshape(x.shape[0], -1)
        reduce = _REDUCTIONS[part.statistic]
        height, width = x.shape[1:3]
        values = [reduce(x[:, top:bottom, left:right]) for top, bottom, left, right in cells(height, width, self.grid)]
        return jnp.stack(values, axis=1).reshape(x.shape[0], -1)


def features_dtype(parts: Iterable[PooledPart], dtype: DTypeLike) -> DTypeLike:
    """The dtype of features side by side, of maps of `dtype`: float32 if deviations are among them."""
    return jnp.promote_types(dtype, jnp.float32) if any(part.statistic == "std" for part in parts) else dtype


def _deviation(x: Array) -> Array:
    """Standard deviation over positions, (B, H, W, C) → float32 (B, C); of one value, and of equal ones, it is 0.

    It is never the root of a negative number, since squared deviations are averaged. If it is 0, its gradient is made
    0: the derivative of the root is infinite there, so no root is taken of these variances.
    """
    x = x.astype(jnp.float32)
    variance = jnp.mean(jnp.square(x - jnp.mean(x, axis=(1, 2), keepdims=True)), axis=(1, 2))
    varies = variance > 0
    return jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1)), 0)


@jax.custom_vjp
def _maximum(x: Array) -> Array:
    """Maximum over positions, (B, H, W, C) → (B, C). Its gradient goes to the first position that has it.

    The gradient of JAX's own maximum goes to all positions that equal it. XLA may compute `x` twice, with other
    rounding for the comparison than for the maximum; then none equals it, and the gradient is lost. So the position is
    kept instead.
    """
    return jnp.max(x, axis=(1, 2))


def _maximum_and_place(x: Array) -> tuple[Array, tuple[Array, Array]]:
    place = jnp.argmax(x.reshape(x.shape[0], -1, x.shape[3]), axis=1)
    return _maximum(x), (place, x[:0])  # the second has no values: it keeps the height and the width


def _gradient_at_place(kept: tuple[Array, Array], gradient: Array) -> tuple[Array]:
    place, empty = kept
    height, width = empty.shape[1:3]
    positions = jnp.arange(height * width)[None, :, None]
    spread = jnp.where(positions == place[:, None], gradient[:, None], 0)
    return (spread.reshape(len(gradient), height, width, -1),)


_maximum.defvjp(_maximum_and_place, _gradient_at_place)

_REDUCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "avg": partial(jnp.mean, axis=(1, 2)),
    "max": _maximum,
    "std": _deviation,
}
