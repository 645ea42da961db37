"""Recovery from checkpoints that are damaged on disk: a run continues from the newest good one, with a warning."""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Sharding

from jaxcat.errors import CheckpointError, JaxcatError, OtherFormatError, one_line
from jaxcat.models.network import Tree
from jaxcat.runs import checkpoints
from jaxcat.runs.meta import Meta, check_digests, digests, read_meta
from jaxcat.runs.unmerged import readable
from jaxcat.runs.workdir import DAMAGED, REPLACED, checkpoint, numbered, steps, way_out
from jaxcat.system.files import write_errors_as
from jaxcat.system.processes import barrier, values_of_processes
from jaxcat.wording import counted

logger = logging.getLogger(__name__)


def newest_good(workdir: Path) -> tuple[Meta | None, dict[int, CheckpointError]]:
    """The meta of the newest good checkpoint, and for each newer step the error of its checkpoint.

    The meta is None if the workdir holds no finished checkpoint. A checkpoint is good if every process of the run reads
    what was written.

    Raises:
        CheckpointError: there are checkpoints, but none is good. A run never starts over because of damage.
        OtherFormatError: another version of jaxcat wrote the newest.
    """
    damaged: dict[int, CheckpointError] = {}
    there = steps(workdir)
    if len(set(values_of_processes(zlib.crc32(repr(there).encode()) >> 1))) > 1:
        raise CheckpointError(
            f"--workdir {workdir}: the processes of this run do not see the same checkpoints there (this one: "
            f"{', '.join(map(str, there)) or 'none'}): the workdir must be one folder that all hosts share"
        )
    for step in reversed(there):
        meta, error = None, None
        try:
            meta = verify(workdir, step)
        except OtherFormatError:
            raise  # in every process; nothing is damaged or to be set aside
        except CheckpointError as caught:
            error = caught
        good = values_of_processes(meta is not None)
        if all(good):
            return meta, damaged
        damaged[step] = error or CheckpointError(f"step {step}: process {good.index(0)} cannot read it")
    if damaged:
        reasons = "\n  ".join(map(str, damaged.values()))
        raise CheckpointError(
            f"--workdir {workdir}: none of its checkpoints is good:\n  {reasons}\n"
            "copy one back from a backup, or use another --workdir to train from the beginning"
        )
    return None, damaged


def put_back(workdir: Path) -> None:
    """Moves a replaced checkpoint back if the new one of the same step was never finished."""
    if jax.process_index() == 0:
        for old in numbered(workdir / REPLACED).values():
            if not (workdir / "checkpoints" / old.name).exists():
                try:
                    os.rename(old, workdir / "checkpoints" / old.name)
                except OSError as error:
                    raise CheckpointError(f"{old}: cannot be moved to checkpoints/: {error.strerror}") from error
    barrier()


def verify(workdir: Path, step: int) -> Meta:
    """Reads all of a checkpoint and compares every array with its digest; returns the meta.

    Needs no `Network` and puts nothing on a device, so it can run before everything else.

    Raises:
        CheckpointError: something is missing, damaged or unreadable.
    """
    meta, folder = read_meta(workdir, step), checkpoint(workdir, step)
    found: dict[str, str] = {}
    for item in checkpoints.ITEMS:
        try:
            with readable(folder / item) as place, ocp.PyTreeCheckpointer() as checkpointer:
                described = checkpointer.metadata(place).item_metadata.tree
                as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), described)
                tree = checkpointer.restore(place, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
        except Exception as error:  # Orbax and TensorStore raise many kinds for files that are gone or damaged
            raise CheckpointError(f"{folder / item}: cannot be restored: {one_line(error)}") from error
        found |= digests({item: tree})
    missing = {name: "" for name in meta.digests if name not in found}
    check_digests(found | missing, meta.digests, folder, way_out(workdir, step))
    return meta


def set_aside(workdir: Path, damaged: dict[int, CheckpointError], *, good: int) -> None:
    """Moves damaged checkpoints to `workdir/damaged/`, with a warning for each; the run continues from step `good`."""
    for step, error in damaged.items():
        target = workdir / DAMAGED / str(step)
        if jax.process_index() == 0:
            with write_errors_as(CheckpointError, target):
                numbered(target.parent)  # raises for a link
                target.parent.mkdir(exist_ok=True)
                number = 1
                while target.exists():
                    number += 1
                    target = target.with_name(f"{step}.{number}")
                os.rename(checkpoint(workdir, step), target)
            logger.warning("%s; it is now in %s, and the run continues from step %d", error, target, good)
    barrier()  # no process goes on before they are moved


def restore_frozen(
    workdir: Path, *, shapes: Tree, wanted: dict[str, str], sharding: Sharding, again: Callable[[], Tree]
) -> Tree:
    """The frozen tree of a run, or a part of it; if it is damaged, `again` computes all of it, and it is written again.

    Raises:
        CheckpointError: it is damaged, and `again` fails or gives other bits.
    """
    tree: Tree = {}
    error = None
    try:
        tree = checkpoints.restore_frozen(workdir, shapes=shapes, wanted=wanted, sharding=sharding)
    except CheckpointError as caught:
        error = caught
    if all(values_of_processes(error is None)):
        return tree
    reason = str(error or f"{workdir / 'frozen'}: another process cannot read it")
    try:
        tree = again()
    except JaxcatError as failure:
        raise CheckpointError(f"{reason}; it cannot be made again: {failure}") from failure
    if digests(tree) != wanted:
        raise CheckpointError(f"{reason}; it cannot be made again, because what it was made from has changed")
    if jax.process_index() == 0:
        logger.warning("%s; it was made again from the origin of the run and is the same to the bit", reason)
    checkpoints.save_frozen(workdir, tree)
    part = {name: {stage: tree[name][stage] for stage in stages} for name, stages in shapes.items()}
    return jax.device_put(part, sharding)


def warn_of_lost_checkpoints(workdir: Path) -> None:
    """Warns if a workdir has the metrics of an earlier start but no checkpoint, so that the run starts over."""
    try:
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        epochs = sum(json.loads(line).get("event") == "epoch" for line in lines)
    except (OSError, ValueError, AttributeError):
        return
    if epochs and jax.process_index() == 0:
        logger.warning(
            "%s has the metrics of %s and no checkpoint: the run starts from the beginning",
            *(workdir, counted(epochs, "epoch")),
        )
