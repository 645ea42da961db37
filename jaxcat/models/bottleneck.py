"""What the prefix gives to the suffix: pooled features, a map, or a map with pooled features beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxcat.models.pooling import MAP, PooledPart
from jaxcat.models.wiring import Shape


class Bottleneck(NamedTuple):
    """The parts of a bottleneck.

    If the head pools blocks on both sides of the boundary, a bottleneck is one row of numbers: the map that the
    boundary stage reads, flattened, then the pooled features of the frozen blocks. With one kind alone, it is the
    features or the map as it is.

    Attributes:
        parts: what there is, in this order; () if no block is frozen.
        map_shape: height, width and channels of the map; None if there are pooled features only.
    """

    parts: tuple[PooledPart, ...]
    map_shape: Shape | None

    @property
    def has_both(self) -> bool:
        """Whether there are a map and pooled features."""
        return self.map_shape is not None and len(self.parts) > 1

    def shape_of(self, part: PooledPart) -> tuple[int, ...]:
        """The shape of one of the parts, for one image."""
        return self.map_shape if part.statistic == MAP and self.map_shape else (part.width,)

    def joined(self, values: Sequence[Array]) -> Array:
        """The values (B, …) of all parts → bottlenecks (B, …)."""
        if self.map_shape is None:
            return jnp.concatenate(values, axis=1)
        if not self.has_both:
            return values[0]
        return jnp.concatenate([value.reshape(len(value), -1) for value in values], axis=1)

    def divided(self, x: Array, dtype: DTypeLike) -> tuple[Array, Array | None]:
        """Bottlenecks (B, …) → what the boundary stage reads, and the features of frozen blocks if both are there.

        Args:
            dtype: of the map, which is wider in a bottleneck if it has half precision and the features beside it have
                not.
        """
        if not self.has_both:
            return x, None
        width = self.parts[0].width
        return x[:, :width].reshape(-1, *(self.map_shape or ())).astype(dtype), x[:, width:]


def bottleneck_of(
    pooled: Sequence[PooledPart], *, frozen: Sequence[str], shapes: Mapping[str, Shape], only_features: bool
) -> Bottleneck:
    """The bottleneck of a network.

    Args:
        pooled: the parts of the head's input.
        frozen: the blocks before the boundary.
        shapes: of the outputs of all blocks.
        only_features: whether the boundary comes after the stage "pool".
    """
    features = tuple(part for part in pooled if part.block in frozen)
    if only_features or not frozen:
        return Bottleneck(features, None)
    height, width, channels = shapes[frozen[-1]]
    return Bottleneck((PooledPart(frozen[-1], MAP, height * width * channels), *features), shapes[frozen[-1]])
