"""The source of a small run on bottlenecks, and what it gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import small
from rich.console import Console

from jaxcat import cached, checkpoint_meta
from jaxcat.bottleneck import key_of
from jaxcat.data import open_data, order
from jaxcat.sharding import make_mesh

SILENT = Console(quiet=True)


def config_of(folder: Path, *, views: int = 2, **changes):
    config = small.tiny_config(folder)
    config.data.augment, config.batch_size = "article", 7  # 24 pictures: 4 steps, the last of 3
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


def opened(config) -> cached.Cached:
    """The source of a run of this configuration, nothing computed yet."""
    data = open_data(config)
    net = small.network(config, classes=len(data.classes))
    params, stats = net.initialize(0)
    frozen = {"params": net.divide(params)[0], "stats": net.divide(stats)[0]}
    key = key_of(config, net, frozen_digests=checkpoint_meta.digests(frozen))
    return cached.Cached(config, data, network=net, frozen=frozen, key=key, mesh=make_mesh())


def prepared(config) -> cached.Cached:
    source = opened(config)
    source.prepare(SILENT)
    return source
