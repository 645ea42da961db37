"""Orbax behind one door: what a run saves, how it is restored, and which checkpoint is the best.

    DIR/frozen/                 the frozen prefix, written once
    DIR/checkpoints/STEP/model      trained parameters and their BN statistics: all that evaluation needs
    DIR/checkpoints/STEP/training   optimizer state, step, sums of the epoch
    DIR/checkpoints/STEP/meta       config, classes, preprocessing, provenance, history, versions, digests: JSON

    DIR/damaged/STEP                a checkpoint that recovery.py found damaged and put there
    DIR/replaced/STEP               one whose successor of the same step is being written

A digest of every array lies in the meta, and one of the meta itself, because Orbax restores flipped bytes without a
word. Nothing in a workdir is ever executed or unpickled: arrays come through TensorStore, the rest is JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxcat.errors import CheckpointError
from jaxcat.network import Tree
from jaxcat.sharding import lost_process, values_of_processes
from jaxcat.steps import TrainState

logger = logging.getLogger(__name__)

FORMAT = 2
REPLACED = "replaced"

# What reading relies on, and its type: a workdir from elsewhere is input like any other.
META_TYPES = {
    "config": dict,
    "classes": list,
    "preprocessing": dict,
    "pool_counts_padding": bool,
    "provenance": dict,
    "frozen_digests": dict,
    "versions": dict,
    "history": list,
    "step": int,
    "digests": dict,
}
RECORD = {"epoch", "step", "validation/accuracy", "validation/loss"}  # of an epoch, the least there is


def digests(tree: Any) -> dict[str, str]:
    """Path of every leaf → SHA-256 of its dtype, shape and bytes."""
    result = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.ascontiguousarray(leaf)
        header = f"{array.dtype} {array.shape} ".encode()
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        result[name] = hashlib.sha256(header + array.tobytes()).hexdigest()
    return result


def meta_digest(meta: dict) -> str:
    """SHA-256 of the meta without its own digest: a flipped byte in JSON may well be another valid number."""
    text = json.dumps({key: value for key, value in meta.items() if key != "meta_digest"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def best_epoch(history: list[dict]) -> dict | None:
    """The record with the highest validation accuracy, then the lowest loss, then the earliest."""
    return min(history, key=_rank, default=None)


def _rank(record: dict) -> tuple[float, float, int]:
    return -record["validation/accuracy"], record["validation/loss"], record["epoch"]


class Checkpoints:
    """The checkpoints of one workdir. Use as a context manager; leaving it waits for the last write.

    Kept are the latest, the one before it (should the latest be damaged one day), and the `keep` best.
    In a run of several processes every one of them calls every method; process 0 writes.

    Saving is asynchronous: the arrays are copied to the host before `save` returns, the files follow.
    """

    def __init__(self, workdir: Path, *, keep: int = 1, history: Sequence[dict] = ()):
        self.workdir, self.keep = workdir.absolute(), keep
        self._history = list(history)  # of a run that continues: by it the best of what is there is known
        with _reported(self.workdir):
            self._manager = ocp.CheckpointManager(
                self.workdir / "checkpoints",
                item_names=("model", "training", "meta"),
                options=ocp.CheckpointManagerOptions(create=True, max_to_keep=None, cleanup_tmp_directories=True),
            )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None and jax.process_count() > 1:
            return  # the write under way needs every process, and one of them has failed
        try:
            self._finish()
        finally:
            self._manager.close()

    def save(self, state: TrainState, meta: dict) -> None:
        """Write `state` under its step. `meta["history"]` decides which older checkpoints are worth keeping.

        Raises:
            CheckpointError: this write, or the one before it, failed: a full disk, a workdir that went away.
        """
        self._finish()
        self._history = list(meta["history"])
        model, training = _items(state)
        meta = {
            **meta,
            "format": FORMAT,
            "step": int(state.step),
            "digests": digests({"model": model, "training": training}),
        }
        meta = json.loads(json.dumps(meta))
        meta["meta_digest"] = meta_digest(meta)
        items = ocp.args.Composite(
            model=ocp.args.StandardSave(model),
            training=ocp.args.StandardSave(training),
            meta=ocp.args.JsonSave(meta),
        )
        with _reported(self.workdir):
            if meta["step"] in self._manager.all_steps():  # interrupted at the end of an epoch, before its validation
                if read_meta(self.workdir, meta["step"])["history"] == meta["history"]:
                    return
                self._replace(meta["step"])
            self._manager.save(meta["step"], args=items, force=True)

    def _replace(self, step: int) -> None:
        """Make way for another checkpoint of this step; until that is written, recovery.put_back finds this one."""
        if jax.process_index() == 0:
            (self.workdir / REPLACED).mkdir(exist_ok=True)
            os.rename(self.workdir / "checkpoints" / str(step), self.workdir / REPLACED / str(step))
        values_of_processes(True)
        self._manager.reload()

    def _finish(self) -> None:
        """Wait for the write under way, then remove what is not worth keeping."""
        with _reported(self.workdir):
            self._manager.wait_until_finished()
            for old in (self.workdir / REPLACED).glob("*") if jax.process_index() == 0 else ():
                if (self.workdir / "checkpoints" / old.name).is_dir():  # not where that write failed
                    shutil.rmtree(old)
        there = sorted(self._manager.all_steps())
        ranked = [record["step"] for record in sorted(self._history, key=_rank) if record["step"] in there]
        with _reported(self.workdir):
            for step in sorted(set(there[:-2]) - set(ranked[: self.keep])):
                self._manager.delete(step)


def _items(state: TrainState) -> tuple[Tree, Tree]:
    model = {"params": state.trained, "stats": state.stats}
    return model, {"opt_state": state.opt_state, "step": state.step, "sums": state.sums}


@contextlib.contextmanager
def _reported(workdir: Path) -> Iterator[None]:
    """What goes wrong while writing as an error that says what to do. TensorStore's are ValueErrors with a code."""
    try:
        yield
    except (OSError, ValueError) as error:
        if lost_process(error):
            raise
        system = re.search(r"([\w ]+) \[os_error_code=", str(error))
        reason = getattr(error, "strerror", None) or (system.group(1).strip() if system else first_line(error))
        raise CheckpointError(
            f"--workdir {workdir}: cannot write a checkpoint there: {reason}. What is there stays good: make room or "
            "give access, and the same command continues"
        ) from error


def save_frozen(workdir: Path, frozen: Tree) -> None:
    """Write the frozen tree, whatever an earlier start without a checkpoint left in its place."""
    path = workdir.absolute() / "frozen"
    with _reported(workdir):
        if jax.process_index() == 0:
            for left in (path, *path.parent.glob("frozen.orbax-checkpoint-tmp*")):  # of a start that was killed
                shutil.rmtree(left, ignore_errors=not left.exists())
        values_of_processes(True)  # nobody writes before it is gone
        if jax.tree.leaves(frozen):
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(path, frozen)  # Orbax writes aside and renames when all of it is there


def steps(workdir: Path) -> list[int]:
    """Steps of the finished checkpoints, ascending; empty where there are none. Orbax gives a checkpoint its number
    when all of it is written, so one that lacks a part is damaged, not unfinished."""
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit() and path.is_dir())


def read_meta(workdir: Path, step: int) -> dict:
    """The description that a checkpoint carries.

    Raises:
        CheckpointError: it cannot be read, or another version of jaxcat wrote it.
    """
    path = workdir / "checkpoints" / str(step) / "meta" / "metadata"
    try:
        meta = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read ({first_line(error)}): {way_out(workdir, step)}") from error
    if isinstance(meta, dict) and isinstance(meta.get("format"), int) and meta["format"] != FORMAT:
        raise CheckpointError(f"{path}: format {meta['format']}, this jaxcat reads {FORMAT}")
    if (
        not isinstance(meta, dict)
        or any(not isinstance(meta.get(key), kind) for key, kind in META_TYPES.items())
        or any(not isinstance(record, dict) or not record.keys() >= RECORD for record in meta["history"])
    ):
        raise CheckpointError(f"{path}: not the description of a checkpoint: {way_out(workdir, step)}")
    if meta.get("meta_digest") != meta_digest(meta) or meta["step"] != step:
        raise CheckpointError(f"{path}: damaged on disk: {way_out(workdir, step)}")
    return meta


def choose(workdir: Path, step: str | int) -> int:
    """`best`, `latest` or a step number → the step of a finished checkpoint.

    Raises:
        CheckpointError: there is none, or not that one; names those there are.
    """
    there = steps(workdir)
    for old in (workdir / REPLACED).glob("*"):
        if old.name.isdigit() and int(old.name) not in there:
            logger.warning("%s is waiting to be put back: the train command of this run does that", old)
    if not there:
        raise CheckpointError(
            f"--workdir {workdir}: no finished checkpoint there; is it the --workdir of a training run?"
        )
    if step == "latest":
        return there[-1]
    if step == "best":
        history = read_meta(workdir, there[-1])["history"]
        best, record = best_epoch(history), best_epoch([r for r in history if r["step"] in there])
        if best is None or record is None:
            if best is not None:
                logger.warning("%s: no checkpoint of a whole epoch is left; taking step %d", workdir, there[-1])
            return there[-1]
        if best["step"] != record["step"]:
            logger.warning(
                "%s: the best checkpoint, step %d, is missing; taking step %d, the best of those there",
                *(workdir, best["step"], record["step"]),
            )
        return record["step"]
    if str(step).isdigit() and int(step) in there:
        return int(step)
    raise CheckpointError(
        f"--step {step}: not in {workdir}, which has {', '.join(map(str, there))}; or say best, latest"
    )


def restore_model(workdir: Path, step: int, *, shapes: Tree, sharding: jax.sharding.Sharding) -> Tree:
    """`{"params", "stats"}` of the suffix at `step`, checked against its digests; the same on any device count."""
    wanted = read_meta(workdir, step)["digests"]
    tree = _restore(workdir / "checkpoints" / str(step) / "model", shapes, sharding)
    check_digests(digests({"model": tree}), wanted, workdir / "checkpoints" / str(step), way_out(workdir, step))
    return tree


def restore_state(workdir: Path, step: int, *, like: TrainState, sharding: jax.sharding.Sharding) -> TrainState:
    """The whole state at `step`; `like` gives structure, shapes and dtypes."""
    model, training = _items(like)
    model = restore_model(workdir, step, shapes=model, sharding=sharding)
    folder = workdir / "checkpoints" / str(step)
    training = _restore(folder / "training", training, sharding)
    wanted = read_meta(workdir, step)["digests"]
    check_digests(digests({"training": training}), wanted, folder, way_out(workdir, step))
    return TrainState(training["step"], model["params"], model["stats"], training["opt_state"], training["sums"])


def restore_frozen(workdir: Path, *, shapes: Tree, wanted: dict[str, str], sharding: jax.sharding.Sharding) -> Tree:
    """The frozen tree, checked against the digests that every checkpoint of the run carries."""
    if not jax.tree.leaves(shapes):
        return shapes
    tree = _restore(workdir / "frozen", shapes, sharding)
    check_digests(
        digests(tree), wanted, workdir / "frozen", "copy it back from a backup, or train again in a new workdir"
    )
    return tree


def _restore(path: Path, like: Tree, sharding: jax.sharding.Sharding) -> Tree:
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=sharding), like)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(path.absolute(), abstract)
    except Exception as error:  # Orbax and TensorStore raise many kinds for files that are gone or damaged
        raise CheckpointError(f"{path}: cannot be restored: {first_line(error)}") from error


def check_digests(found: dict[str, str], wanted: dict[str, str], where: Path, way_out: str) -> None:
    damaged = [name for name, digest in found.items() if wanted.get(name) != digest]
    if damaged:
        raise CheckpointError(f"{where}: damaged on disk, {len(damaged)} arrays differ, first {damaged[0]}: {way_out}")


def way_out(workdir: Path, step: int) -> str:
    others = [other for other in steps(workdir) if other != step]
    if others:
        return f"use another step of {', '.join(map(str, others))}; training continues from the newest good one"
    return "there is no other checkpoint; train again in a new workdir"


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
