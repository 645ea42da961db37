"""Restores the network of a run, with its parameters and statistics, from its workdir alone."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import NamedTuple

from jaxcat.errors import CheckpointError, ConfigError
from jaxcat.models.backbone import Top
from jaxcat.models.network import Network, Tree
from jaxcat.runs import checkpoints
from jaxcat.runs.meta import Meta, best_epoch, is_validated, read_meta
from jaxcat.runs.workdir import REPLACED, STEP, numbered, steps
from jaxcat.system.devices import make_mesh, replicated
from jaxcat.system.paths import typed

logger = logging.getLogger(__name__)


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
    folder = typed(workdir)
    if not os.path.isdir(folder):
        raise CheckpointError(f"--workdir {workdir}: no such directory")
    sharding = replicated(make_mesh())
    number = choose(folder, step)
    meta = read_meta(folder, number)
    try:
        network = network_of(meta)
    except ConfigError as error:
        raise CheckpointError(f"{folder}: step {number} describes an impossible network: {error}") from error
    frozen, trained = network.split(*network.shapes())
    frozen = checkpoints.restore_frozen(folder, shapes=frozen, wanted=meta.frozen_digests, sharding=sharding)
    return Restored(meta, network, frozen, checkpoints.restore_model(folder, meta, shapes=trained, sharding=sharding))


def network_of(meta: Meta, *, top: Top | None = None) -> Network:
    """The network that a meta describes, with the head or the published `top`. Raises ConfigError if impossible."""
    return Network(
        meta.config.model,
        classes=len(meta.classes),
        image_size=meta.config.data.image_size,
        conventions=meta.conventions,
        top=top,
    )


def choose(workdir: Path, step: str | int) -> int:
    """`best`, `latest` or a step number → the step of a finished checkpoint.

    Raises:
        CheckpointError: there is no checkpoint, or not this one; the message lists those there are.
    """
    there = steps(workdir)
    for number, old in numbered(workdir / REPLACED).items():
        if number not in there:
            logger.warning("%s was moved aside and is not used: the train command of this run moves it back", old)
    if not there:
        raise CheckpointError(
            f"--workdir {workdir}: no finished checkpoint there: give the workdir of a training run; if this run was "
            "interrupted, run its train command again, which continues it"
        )
    if step == "latest":
        return there[-1]
    if step == "best":
        return _best(workdir, there)
    if STEP.fullmatch(str(step)) and int(step) in there:
        return int(step)
    raise CheckpointError(
        f"--step {step}: not in {workdir}, which has {', '.join(map(str, there))}; or use best or latest"
    )


def _best(workdir: Path, there: list[int]) -> int:
    """The best step of those that are there; warns if a better one is missing."""
    history = read_meta(workdir, there[-1]).history
    best, found = best_epoch(history), best_epoch([entry for entry in history if entry["step"] in there])
    if best is not None and not is_validated(best):
        return there[-1]
    if best is None or found is None:
        if best is not None:
            logger.warning("%s: no checkpoint of a whole epoch is left; using step %d", workdir, there[-1])
        return there[-1]
    if best["step"] != found["step"]:
        logger.warning(
            "%s: the best checkpoint, step %d, is missing; using step %d, the best of those there",
            *(workdir, best["step"], found["step"]),
        )
    return found["step"]
