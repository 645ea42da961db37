"""What the network sees of the images, in parts: for the search for near duplicates, and for the map."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from jaxcat.data.records import Split
from jaxcat.models.backbone import BACKBONES, pooled_blocks
from jaxcat.models.pooling import PooledPart, pooled_parts
from jaxcat.objectives.exact.parts import Part
from jaxcat.report.context import Context

Read = Callable[[int, int], np.ndarray]


def parts_of(context: Context) -> list[Part] | None:
    """The features of the report's records, averaged over positions: a part for each block and statistic.

    None if they would take too much memory; see `Context.features`.
    """
    features, pooled = context.features(), _pooled(context)
    if features is None or features.shape[1] != sum(part.width for part, _ in pooled):
        return None
    edges = np.cumsum([0, *(part.width for part, _ in pooled)])
    columns = [features[:, first:last] for first, last in itertools.pairwise(edges)]
    return [_averaged(part, channels, _reading(rows)) for (part, channels), rows in zip(pooled, columns, strict=True)]


def cached_parts(context: Context, split: Split) -> list[Part] | None:
    """The same of another split, if the cache has all of its bottlenecks, and these are pooled features."""
    found, pooled = context.classifier.engine.cached(split, console=context.console), _pooled(context)
    if found is None or [rows.shape for rows in found.parts.rows] != [(part.width,) for part, _ in pooled]:
        return None
    reader = found.reader()
    return [_averaged(part, channels, reader.part(index)) for index, (part, channels) in enumerate(pooled)]


def _pooled(context: Context) -> list[tuple[PooledPart, int]]:
    """The parts of the head's input in their order, and the channels of each one's block."""
    config = context.classifier.config
    model, backbone = config.model, BACKBONES[config.model.backbone]
    kind = backbone.top.pool if context.workdir is None and backbone.top else model.pool
    every = backbone.shapes(model.cut, config.data.image_size, width=model.width)
    shapes = {block: every[block] for block in pooled_blocks(model)}
    return [(part, shapes[part.block][2]) for part in pooled_parts(kind, model.pool_grid, shapes)]


def _reading(rows: np.ndarray) -> Read:
    return lambda start, stop: rows[start:stop]


def _averaged(part: PooledPart, channels: int, read: Read) -> Part:
    """The part without its positions, which come before the channels: of a grid, or of a flattened map."""

    def rows(start: int, stop: int) -> np.ndarray:
        found = read(start, stop)
        return found if part.width == channels else found.reshape(len(found), -1, channels).mean(axis=1)

    return Part(part.block, part.statistic, channels, rows)
