"""Orbax behind one door: what a run saves, and how it is restored.

    DIR/frozen/                 the frozen prefix, written once
    DIR/checkpoints/STEP/model      trained parameters and their BN statistics: all that evaluation needs
    DIR/checkpoints/STEP/training   optimizer state, step, sums of the epoch
    DIR/checkpoints/STEP/meta       config, classes, preprocessing, provenance, history, versions, digests: JSON

    DIR/damaged/STEP                a checkpoint that recovery.py found damaged and put there
    DIR/replaced/STEP               one whose successor of the same step is being written

Nothing in a workdir is ever executed or unpickled: arrays come through TensorStore, the rest is JSON, which
checkpoint_meta.py reads.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxcat.checkpoint_meta import (
    FORMAT,
    REPLACED,
    check_digests,
    digests,
    first_line,
    meta_digest,
    numbered,
    rank,
    read_meta,
    way_out,
)
from jaxcat.errors import CheckpointError
from jaxcat.network import Tree
from jaxcat.sharding import lost_process, values_of_processes
from jaxcat.steps import TrainState


class Checkpoints:
    """The checkpoints of one workdir. Use as a context manager; leaving it waits for the last write.

    Kept are the latest, the one before it (should the latest be damaged one day), and the `keep` best.
    In a run of several processes every one of them calls every method; Orbax shares out the writing.

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
        values_of_processes(True)  # every process has read what is to go
        if jax.process_index() == 0:
            numbered(self.workdir / REPLACED)  # raises for a link
            (self.workdir / REPLACED).mkdir(exist_ok=True)
            os.rename(self.workdir / "checkpoints" / str(step), self.workdir / REPLACED / str(step))
        values_of_processes(True)
        self._manager.reload()

    def _finish(self) -> None:
        """Wait for the write under way, then remove what is not worth keeping."""
        with _reported(self.workdir):
            self._manager.wait_until_finished()
            for old in numbered(self.workdir / REPLACED).values() if jax.process_index() == 0 else ():
                if (self.workdir / "checkpoints" / old.name).is_dir():  # not where that write failed
                    shutil.rmtree(old)
        there = sorted(self._manager.all_steps())
        ranked = [record["step"] for record in sorted(self._history, key=rank) if record["step"] in there]
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
