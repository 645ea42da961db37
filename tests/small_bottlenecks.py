"""The source of a small run on bottlenecks, and what it gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import small
from rich.console import Console

from jaxcat.bottlenecks.source import BottleneckSource
from jaxcat.data.records import order
from jaxcat.data.sources import open_data
from jaxcat.runs import meta
from jaxcat.system.devices import make_mesh

SILENT = Console(quiet=True)


def config_of(folder: Path, *, views: int = 2, **changes):
    config = small.tiny_config(folder)
    config.data.augment, config.batch_size = "article", 7  # 24 images: 4 steps, the last of 3
    config.bottleneck.views, config.bottleneck.dtype = views, "float32"
    config.update_from_flattened_dict(changes)
    return config


def rows_of(batches, config, epoch: int) -> np.ndarray:
    """The rows of an epoch by record number."""
    rows = []
    for batch in batches:
        mask = np.asarray(batch["mask"]).reshape(-1)
        rows.append(np.asarray(batch["bottleneck"]).reshape(len(mask), -1)[mask])
    return np.concatenate(rows)[np.argsort(order(24, seed=config.seed, epoch=epoch))]


def made(config) -> BottleneckSource:
    """The source of a run of this configuration, nothing read yet."""
    data = open_data(config)
    net = small.network(config, classes=len(data.classes))
    frozen, _ = net.split(*net.initialize(0))
    return BottleneckSource(
        config, data, network=net, frozen=frozen, frozen_digests=meta.digests(frozen), mesh=make_mesh()
    )


def opened(config) -> BottleneckSource:
    """The same, rows looked up, nothing computed yet."""
    source = made(config)
    assert source.look_up(SILENT) == 0
    return source


def prepared(config) -> BottleneckSource:
    """The same, every row there."""
    source = made(config)
    assert source.prepare(SILENT) == 0
    return source
