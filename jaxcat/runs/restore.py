"""Restores the network of a run, with its parameters and statistics, from its workdir alone."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import NamedTuple

from ml_collections import FrozenConfigDict

from jaxcat.errors import CheckpointError, ConfigError
from jaxcat.models.backbone import Top
from jaxcat.models.network import Network, Tree
from jaxcat.models.preprocessing import Conventions
from jaxcat.runs import checkpoints
from jaxcat.runs.choice import choose, existing
from jaxcat.runs.meta import Meta, read_meta
from jaxcat.system.compilation import PROGRAMS_KEPT
from jaxcat.system.devices import make_mesh, replicated


class Restored(NamedTuple):
    """A network with its parameters and statistics on the devices.

    Attributes:
        frozen, trained: `{"params": …, "stats": …}` of the prefix and of the suffix, by stage.
    """

    meta: Meta
    network: Network
    frozen: Tree
    trained: Tree


def restore(workdir: str | os.PathLike, step: str | int = "best") -> Restored:
    """Restores the network from one checkpoint of a run; every array is checked against its digest.

    Args:
        step: "best" (highest validation accuracy, then lowest loss, then earliest; the latest if the run holds
            nothing out), "latest" or a step number.

    Raises:
        CheckpointError: no run there, no such step, or damaged files.
    """
    folder = existing(workdir)
    return restore_step(folder, read_meta(folder, choose(folder, step)))


def restore_step(folder: Path, meta: Meta) -> Restored:
    """The same from the checkpoint that `meta` describes, in the workdir `folder`."""
    sharding = replicated(make_mesh())
    try:
        network = network_of(meta)
    except ConfigError as error:
        raise CheckpointError(f"{folder}: step {meta.step} describes an impossible network: {error}") from error
    frozen, trained = network.split(*network.shapes())
    frozen = checkpoints.restore_frozen(folder, shapes=frozen, wanted=meta.frozen_digests, sharding=sharding)
    return Restored(meta, network, frozen, checkpoints.restore_model(folder, meta, shapes=trained, sharding=sharding))


def network_of(meta: Meta, *, top: Top | None = None) -> Network:
    """The network that a meta describes, with the head or the published `top`. Raises ConfigError if impossible.

    The same network comes back as the same object, so that programs which are kept for it need not be traced again.
    """
    size = meta.config.data.image_size
    return _network(FrozenConfigDict(meta.config.model), len(meta.classes), size, meta.conventions, top)


@functools.lru_cache(maxsize=PROGRAMS_KEPT)
def _network(
    model: FrozenConfigDict, classes: int, image_size: int, conventions: Conventions, top: Top | None
) -> Network:
    return Network(model, classes=classes, image_size=image_size, conventions=conventions, top=top)
