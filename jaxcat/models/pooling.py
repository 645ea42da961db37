"""What the head sees of a backbone: statistics of one or several blocks, and the hidden layers after them.

This module imports no framework, because plans and the keys of bottlenecks are made without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ml_collections import ConfigDict

from jaxcat.errors import ConfigError
from jaxcat.models.backbone import Top

# The statistics over positions that make the features of a block, in their order, for each value of `model.pool`.
STATISTICS = {"avg": ("avg",), "max": ("max",), "avg_std": ("avg", "std"), "flatten": ("flatten",)}

MAP = "map"  # in place of a statistic, for a part of a bottleneck: the whole output of a block, in its shape


class PooledPart(NamedTuple):
    """One statistic of one pooled block: `width` neighbouring features of the head's input."""

    block: str
    statistic: str
    width: int


def pooled_parts(kind: str, grid: int, shapes: Mapping[str, tuple[int, int, int]]) -> tuple[PooledPart, ...]:
    """The parts of the head's input in their order; `shapes` has height, width and channels by block."""
    return tuple(
        PooledPart(block, statistic, channels * (height * width if statistic == "flatten" else grid**2))
        for block, (height, width, channels) in shapes.items()
        for statistic in STATISTICS[kind]
    )


def cells(height: int, width: int, grid: int) -> list[tuple[int, int, int, int]]:
    """Top, bottom, left and right of each cell of a `grid` × `grid` division of a map.

    Cell by cell from left to right, then from top to bottom. They cover the map; if `grid` divides a side with a rest,
    neighbours overlap by one position.
    """
    rows, columns = ([(i * side // grid, -(-(i + 1) * side // grid)) for i in range(grid)] for side in (height, width))
    return [(top, bottom, left, right) for top, bottom in rows for left, right in columns]


def check_grid(model: ConfigDict, shape: tuple[int, int, int], *, image_size: int) -> None:
    """Checks that the last block's map, of `shape` (height, width, channels), has as many cells as the grid.

    Raises:
        ConfigError: `model.pool_grid` is finer than the map.
    """
    height, width, _ = shape
    if model.pool_grid > min(height, width):
        raise ConfigError(
            f"--config.model.pool_grid={model.pool_grid}: {model.cut} gives a {height}×{width} map at "
            f"--config.data.image_size={image_size}; use at most {min(height, width)}"
        )


def hidden_layers(model: ConfigDict, top: Top | None = None) -> Mapping[str, int]:
    """Name → width of the layers between the pooled features and the logits, in the order the data flows."""
    if top is not None:
        return top.hidden
    return {"hidden": model.hidden} if model.hidden else {}
