"""What a study reads: the pooled features of every block, computed once and cached, at one image size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcat.data.pixel_groups import groups_of
from jaxcat.data.records import SPLITS, Split
from jaxcat.data.sources import open_data
from jaxcat.models.completion import widest
from jaxcat.objectives.exact.parts import Part
from jaxcat.runs.records import rules_of
from jaxcat.system.console import Console, said_if_long
from jaxcat.training.engine import check_engine, settle_engine
from jaxcat.training.loop import bottlenecks_of, settle_grey
from jaxcat.training.origin import find_origin
from jaxcat.training.start import Start, start


class Interrupted(Exception):
    """A signal came; `status` is the exit status."""

    def __init__(self, status: int):
        super().__init__(status)
        self.status = status


class Collected(NamedTuple):
    """Features at one image size.

    Attributes:
        config: the config of the pass, in which the head sees every block.
        classes: names of the classes.
        splits: records by name: train, and validation and test if they have any; unreadable ones are left out. Those of
            test are only looked through for near duplicates and unusual images.
        groups: for each split int (N,): records that belong together, and images with the same pixels, share one.
        parts: for each split, the statistics of the blocks with their readers.
        run: the network and its frozen parameters.
    """

    config: ConfigDict
    classes: tuple[str, ...]
    splits: dict[str, Split]
    groups: dict[str, np.ndarray]
    parts: dict[str, list[Part]]
    run: Start

    @property
    def size(self) -> int:
        return self.config.data.image_size


def studied(config: ConfigDict, size: int = 0) -> ConfigDict:
    """The completed config of the pass: averages and deviations of every block that `config` allows.

    Args:
        size: pixels a side; 0: as `config` says.
    """
    config = config.copy_and_resolve_references()
    if size:
        config.data.image_size = size
    config.model.pool = "avg_std"
    return widest(config)


def collect(config: ConfigDict, workdir: Path, *, mesh: Mesh, console: Console, stop: Callable[[], int]) -> Collected:
    """Computes what the cache lacks of the features that `config`, from `studied`, asks for.

    Raises:
        Interrupted: a signal came; what was computed is kept.
        JaxcatError: data or weights cannot be used.
    """
    check_engine(config, begun=False)
    with said_if_long("looking through the data", console=console):
        data = settle_grey(config, open_data(config, rules=rules_of(None)))
        settle_engine(config, data)
    with said_if_long("reading weights", console=console):
        origin = find_origin(config, workdir, meta=None, classes=data.classes)
        run = start(config, workdir, origin=origin, meta=None, classes=data.classes, mesh=mesh)
    source = bottlenecks_of(config, data, run=run, mesh=mesh, splits=[name for name in SPLITS if name in data.splits])
    if status := source.prepare(console, stop=stop):
        raise Interrupted(status)
    splits = {name: split for name, split in source.splits.items() if len(split)}
    groups = {name: groups_of(split, source.digests[name], console=console) for name, split in splits.items()}
    parts = {
        name: [Part(part.block, part.statistic, part.width, read) for part, read in source.reader_of(name)]
        for name in splits
    }
    return Collected(config, data.classes, splits, groups, parts, run)
