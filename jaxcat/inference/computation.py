"""What computes a classifier's answers: the interface that XLA and LiteRT share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from jaxcat.bottlenecks.cached import CachedSplit
from jaxcat.bottlenecks.parts import Parts
from jaxcat.data.store import Store
from jaxcat.inference.averaged import StoreOfViews

EXPLAINED_TOGETHER = 8  # images; gradients of early blocks take about 50 MB an image at 299 pixels

# What logits are computed of: images, views of images, or bottlenecks.
Records = Store | StoreOfViews | CachedSplit

# Logits float32 (b, outputs) of a batch, and the pooled features that the head saw, float32 (b, features), if wanted.
Outputs = tuple[np.ndarray, np.ndarray | None]


class Computation(Protocol):
    """Computes logits and features of images that are prepared: decoded, resized, uint8 (S, S, 3).

    Attributes:
        engine: its name in the table of engines.
        interpreter: the name and version of the package that runs a converted prefix, by "name" and "version"; None
            for XLA.
        features: number of pooled features, which the head sees.
    """

    engine: str
    interpreter: dict[str, str] | None
    features: int

    def outputs(self, pixels: Iterable[np.ndarray], *, batch_size: int, features: bool) -> Iterator[Outputs]:
        """Yields the outputs of all images in order, those of `batch_size` images at a time."""

    def logits(
        self,
        store: Records,
        *,
        batch_size: int,
        console: Console,
        features: list[np.ndarray] | None = None,
    ) -> np.ndarray:
        """Logits float32 (N, outputs) of the N records of a store, with progress.

        If there is a list `features`, the features of all records are appended to it, float32 (n, features) each.
        """

    def parts(self) -> Parts | None:
        """The parts of its bottlenecks in the cache, as float32; None if there can be none."""


def unit_of(store: Records) -> str:
    """What progress over a store counts, in words."""
    return "views" if isinstance(store, StoreOfViews) else "images"


def computed_by(config: ConfigDict, engine: str) -> ConfigDict:
    """The configuration of a run as if this engine had computed its bottlenecks."""
    changed = config.copy_and_resolve_references()
    changed.bottleneck.engine = engine
    changed.bottleneck.views = max(1, changed.bottleneck.views)  # the run may have streamed its images
    return changed
