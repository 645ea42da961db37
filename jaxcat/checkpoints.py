"""Orbax behind one door: what a run saves, how it is restored, and which checkpoint is the best.

    DIR/frozen/                 the frozen prefix, written once
    DIR/checkpoints/STEP/model      trained parameters and their BN statistics: all that evaluation needs
    DIR/checkpoints/STEP/training   optimizer state, step, sums of the epoch
    DIR/checkpoints/STEP/meta       config, classes, preprocessing, provenance, history, versions, digests: JSON

A digest of every array lies in the meta, because Orbax restores flipped bytes without a word.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxcat.errors import CheckpointError
from jaxcat.network import Tree
from jaxcat.steps import TrainState

FORMAT = 1


def digests(tree: Any) -> dict[str, str]:
    """Path of every leaf → SHA-256 of its dtype, shape and bytes."""
    result = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.ascontiguousarray(leaf)
        header = f"{array.dtype} {array.shape} ".encode()
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        result[name] = hashlib.sha256(header + array.tobytes()).hexdigest()
    return result


def best_epoch(history: list[dict]) -> dict | None:
    """The record with the highest validation accuracy, then the lowest loss, then the earliest."""
    return min(history, key=_rank, default=None)


def _rank(record: dict) -> tuple[float, float, int]:
    return -record["validation/accuracy"], record["validation/loss"], record["epoch"]


class Checkpoints:
    """The checkpoints of one workdir. Use as a context manager; leaving it waits for the last write.

    Saving is asynchronous: the arrays are copied to the host before `save` returns, the files follow.
    """

    def __init__(self, workdir: Path, *, keep: int = 1):
        self.workdir, self.keep = workdir.absolute(), keep
        self._history: list[dict] = []
        with _reported(self.workdir):
            self._manager = ocp.CheckpointManager(
                self.workdir / "checkpoints",
                item_names=("model", "training", "meta"),
                options=ocp.CheckpointManagerOptions(create=True, max_to_keep=None),
            )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()
        self._manager.close()

    def save(self, state: TrainState, meta: dict) -> None:
        """Write `state` under its step. `meta["history"]` decides which older checkpoints are worth keeping."""
        self._finish()
        self._history = list(meta["history"])
        model, training = _items(state)
        meta = {
            **meta,
            "format": FORMAT,
            "step": int(state.step),
            "digests": digests({"model": model, "training": training}),
        }
        items = ocp.args.Composite(
            model=ocp.args.StandardSave(model),
            training=ocp.args.StandardSave(training),
            meta=ocp.args.JsonSave(json.loads(json.dumps(meta))),
        )
        with _reported(self.workdir):
            self._manager.save(int(state.step), args=items, force=True)

    def _finish(self) -> None:
        """Wait for the write under way, then remove what is neither the latest nor among the best."""
        with _reported(self.workdir):
            self._manager.wait_until_finished()
        there = sorted(self._manager.all_steps())
        ranked = [record["step"] for record in sorted(self._history, key=_rank) if record["step"] in there]
        for step in set(there[:-1]) - set(ranked[: self.keep]):
            self._manager.delete(step)


def _items(state: TrainState) -> tuple[Tree, Tree]:
    model = {"params": state.trained, "stats": state.stats}
    return model, {"opt_state": state.opt_state, "step": state.step, "sums": state.sums}


@contextlib.contextmanager
def _reported(workdir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"--workdir {workdir}: cannot write there: {reason}") from error


def save_frozen(workdir: Path, frozen: Tree) -> None:
    """Write the frozen tree of a new run, over one that an earlier start left without a checkpoint."""
    path = workdir.absolute() / "frozen"
    if jax.tree.leaves(frozen):
        with _reported(workdir), ocp.StandardCheckpointer() as checkpointer:
            # Orbax writes aside and renames when all of it is there
            checkpointer.save(path, frozen, force=True)


def steps(workdir: Path) -> list[int]:
    """Steps of the finished checkpoints, ascending; empty where there are none."""
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit() and (path / "meta").is_dir())


def read_meta(workdir: Path, step: int) -> dict:
    """The description that a checkpoint carries.

    Raises:
        CheckpointError: it cannot be read, or another version of jaxcat wrote it.
    """
    path = workdir / "checkpoints" / str(step) / "meta"
    try:
        meta = json.loads(next(path.glob("metadata*")).read_text())
    except (OSError, StopIteration, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error or 'it is empty'}): {_way_out(workdir, step)}"
        ) from error
    if meta.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {meta.get('format')!r}, this jaxcat reads {FORMAT}")
    return meta


def choose(workdir: Path, step: str | int) -> int:
    """`best`, `latest` or a step number → the step of a finished checkpoint.

    Raises:
        CheckpointError: there is none, or not that one; names those there are.
    """
    there = steps(workdir)
    if not there:
        raise CheckpointError(
            f"--workdir {workdir}: no finished checkpoint there; is it the --workdir of a training run?"
        )
    if step == "latest":
        return there[-1]
    if step == "best":
        record = best_epoch([r for r in read_meta(workdir, there[-1])["history"] if r["step"] in there])
        return there[-1] if record is None else record["step"]
    if str(step).isdigit() and int(step) in there:
        return int(step)
    raise CheckpointError(
        f"--step {step}: not in {workdir}, which has {', '.join(map(str, there))}; or say best, latest"
    )


def restore_model(workdir: Path, step: int, *, shapes: Tree, sharding: jax.sharding.Sharding) -> Tree:
    """`{"params", "stats"}` of the suffix at `step`, checked against its digests; the same on any device count."""
    wanted = read_meta(workdir, step)["digests"]
    tree = _restore(workdir / "checkpoints" / str(step) / "model", shapes, sharding)
    _check(digests({"model": tree}), wanted, workdir / "checkpoints" / str(step), _way_out(workdir, step))
    return tree


def restore_state(workdir: Path, step: int, *, like: TrainState, sharding: jax.sharding.Sharding) -> TrainState:
    """The whole state at `step`; `like` gives structure, shapes and dtypes."""
    model, training = _items(like)
    model = restore_model(workdir, step, shapes=model, sharding=sharding)
    folder = workdir / "checkpoints" / str(step)
    training = _restore(folder / "training", training, sharding)
    wanted = read_meta(workdir, step)["digests"]
    _check(digests({"training": training}), wanted, folder, _way_out(workdir, step))
    return TrainState(training["step"], model["params"], model["stats"], training["opt_state"], training["sums"])


def restore_frozen(workdir: Path, *, shapes: Tree, wanted: dict[str, str], sharding: jax.sharding.Sharding) -> Tree:
    """The frozen tree, checked against the digests that every checkpoint of the run carries."""
    if not jax.tree.leaves(shapes):
        return shapes
    tree = _restore(workdir / "frozen", shapes, sharding)
    _check(digests(tree), wanted, workdir / "frozen", "copy it back from a backup, or train again in a new workdir")
    return tree


def _restore(path: Path, like: Tree, sharding: jax.sharding.Sharding) -> Tree:
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=sharding), like)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(path.absolute(), abstract)
    except Exception as error:  # Orbax and TensorStore raise many kinds for files that are gone or damaged
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: cannot be restored: {reason}") from error


def _check(found: dict[str, str], wanted: dict[str, str], where: Path, way_out: str) -> None:
    damaged = [name for name, digest in found.items() if wanted.get(name) != digest]
    if damaged:
        raise CheckpointError(f"{where}: damaged on disk, {len(damaged)} arrays differ, first {damaged[0]}: {way_out}")


def _way_out(workdir: Path, step: int) -> str:
    others = [other for other in steps(workdir) if other != step]
    if others:
        return f"remove {workdir / 'checkpoints' / str(step)} to continue from step {others[-1]}"
    return "there is no other checkpoint; train again in a new workdir"
