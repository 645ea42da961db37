"""Writes and reads checkpoints and the frozen tree with Orbax. Their places in a workdir are in workdir.py."""

from __future__ import annotations

import contextlib
import dataclasses
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

from jaxcat.bottlenecks.engines.names import XLA
from jaxcat.errors import CheckpointError, one_line
from jaxcat.models.network import Tree
from jaxcat.runs.head_file import keep_heads, write_head
from jaxcat.runs.meta import Meta, check_digests, digests, rank, read_meta
from jaxcat.runs.unmerged import readable
from jaxcat.runs.workdir import REPLACED, checkpoint, numbered, way_out
from jaxcat.system.paths import plain_link
from jaxcat.system.processes import barrier, lost_process


def _of_use(record: logging.LogRecord) -> bool:
    """False for two warnings of Orbax: that an item lacks a metadata file, which only whole checkpoints have; and that
    a save waited for the one before it, as on a busy disk."""
    return not record.getMessage().startswith(("Metadata file does not exist", "Waiting for previous save"))


logging.getLogger("absl").addFilter(_of_use)  # here, so that notebooks do not show them either

ITEMS = ("model", "training")  # trees of a checkpoint, besides its meta


class Checkpoints:
    """The checkpoints of one workdir. Use as a context manager; leaving it waits for the last write.

    Keeps the latest checkpoint, the one before it (in case the latest gets damaged), and the `keep` best.
    In a run of several processes, each of them must call every method; Orbax divides the writing among them.

    Saving is asynchronous: the arrays are copied to the host before `save` returns, and the files are written later.
    So is the removal of old checkpoints, which begins when a newer one is complete.
    """

    def __init__(self, workdir: Path, *, keep: int = 1, history: Sequence[dict] = ()):
        self.workdir, self.keep = workdir.absolute(), keep
        self._history = list(history)  # of a continued run: tells which of its checkpoints are best
        self._manager: Any = None
        self._link, self._plain = contextlib.ExitStack(), self.workdir
        self._frozen = contextlib.ExitStack()  # leaving it waits until the frozen tree is written

    def __enter__(self) -> Checkpoints:
        with _reported(self.workdir):
            self._plain = self._link.enter_context(plain_link(self.workdir))
            self._manager = ocp.CheckpointManager(
                self._plain / "checkpoints",
                item_names=(*ITEMS, "meta"),
                options=ocp.CheckpointManagerOptions(
                    create=True, max_to_keep=None, cleanup_tmp_directories=True, enable_background_delete=True
                ),
            )
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None and jax.process_count() > 1:
            return  # the write under way needs every process, and one of them has failed
        with self._link:
            try:
                self._finish()
            finally:
                with _reported(self.workdir):
                    self._manager.close()

    def save_frozen(self, frozen: Tree) -> None:
        """Begins to write the frozen tree, as `save_frozen` below does; the first checkpoint waits for it."""
        _remove_frozen(self.workdir)
        if jax.tree.leaves(frozen):
            with _reported(self.workdir):
                checkpointer = self._frozen.enter_context(ocp.StandardCheckpointer())
                checkpointer.save(self._plain / "frozen", frozen)

    def save(self, items: dict[str, Tree], meta: Meta) -> None:
        """Writes the trees of `ITEMS` under `meta.step`; `meta.history` decides which older checkpoints are kept.

        Raises:
            CheckpointError: this write, or the one before it, failed, for example because the disk is full.
        """
        self._finish()
        self._history = list(meta.history)
        meta = dataclasses.replace(meta, digests=digests(items))
        with _reported(self.workdir):
            if meta.step in self._manager.all_steps():  # interrupted at the end of an epoch, before its validation
                if list(read_meta(self.workdir, meta.step).history) == self._history:
                    return
                self._replace(meta.step)
            if meta.config.bottleneck.engine != XLA and jax.process_index() == 0:
                write_head(self.workdir, meta.step, items["model"]["params"])
            trees = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
            plain = ocp.args.JsonSave(meta.to_json())
            self._manager.save(meta.step, args=ocp.args.Composite(**trees, meta=plain), force=True)

    def _replace(self, step: int) -> None:
        """Moves the checkpoint of this step aside for a new one; recovery.put_back restores it if that fails."""
        barrier()  # every process has read the old checkpoint
        if jax.process_index() == 0:
            numbered(self.workdir / REPLACED)  # raises for a link
            (self.workdir / REPLACED).mkdir(exist_ok=True)
            os.rename(checkpoint(self.workdir, step), self.workdir / REPLACED / str(step))
        barrier()
        self._manager.reload()

    def _finish(self) -> None:
        """Waits for the writes under way, then removes the checkpoints that are not to be kept."""
        with _reported(self.workdir):
            self._frozen.close()
            self._manager.wait_until_finished()
            for old in numbered(self.workdir / REPLACED).values() if jax.process_index() == 0 else ():
                if (self.workdir / "checkpoints" / old.name).is_dir():  # the new checkpoint is complete
                    shutil.rmtree(old)
        there = sorted(self._manager.all_steps())
        ranked = [entry["step"] for entry in sorted(self._history, key=rank) if entry["step"] in there]
        with _reported(self.workdir):
            for step in sorted(set(there[:-2]) - set(ranked[: self.keep])):
                self._manager.delete(step)
            if jax.process_index() == 0:
                keep_heads(self.workdir, self._manager.all_steps())


@contextlib.contextmanager
def _reported(workdir: Path) -> Iterator[None]:
    """Turns errors while writing into one that says what to do. TensorStore raises ValueErrors with a code."""
    try:
        yield
    except (OSError, ValueError) as error:
        if lost_process(error):
            raise
        system = re.search(r"([\w ]+) \[os_error_code=", str(error))
        reason = getattr(error, "strerror", None) or (system.group(1).strip() if system else one_line(error))
        raise CheckpointError(
            f"--workdir {workdir}: cannot write a checkpoint there: {reason}. The checkpoints there stay good: free "
            "space or give access, and the same command continues"
        ) from error


def save_frozen(workdir: Path, frozen: Tree) -> None:
    """Removes the frozen tree of an earlier start that made no checkpoint, then writes the tree."""
    with plain_link(workdir.absolute()) as parent:
        _remove_frozen(workdir.absolute())
        if jax.tree.leaves(frozen):
            with _reported(workdir), ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(parent / "frozen", frozen)  # Orbax renames the folder when all of it is written


def _remove_frozen(workdir: Path) -> None:
    """Removes a frozen tree, also a half-written one, that a start without a checkpoint left."""
    path = workdir / "frozen"
    with _reported(workdir):
        if jax.process_index() == 0:
            for left in (path, *path.parent.glob("frozen.orbax-checkpoint-tmp*")):  # of a start that was killed
                shutil.rmtree(left, ignore_errors=not left.exists())
        barrier()  # no process writes before it is removed


def restore_model(workdir: Path, meta: Meta, *, shapes: Tree, sharding: jax.sharding.Sharding) -> Tree:
    """`{"params", "stats"}` of the suffix, checked against the digests in `meta`; works with any number of devices."""
    return restore_items(workdir, meta, like={"model": shapes}, sharding=sharding)["model"]


def restore_items(
    workdir: Path, meta: Meta, *, like: dict[str, Tree], sharding: jax.sharding.Sharding
) -> dict[str, Tree]:
    """Trees of the checkpoint that `meta` describes, checked against its digests; `like` gives shapes and dtypes."""
    folder = checkpoint(workdir, meta.step)
    items = {name: _restore(folder / name, tree, sharding) for name, tree in like.items()}
    check_digests(digests(items), meta.digests, folder, way_out(workdir, meta.step))
    return items


def restore_frozen(workdir: Path, *, shapes: Tree, wanted: dict[str, str], sharding: jax.sharding.Sharding) -> Tree:
    """The frozen tree, checked against the digests that every checkpoint of the run carries.

    `shapes` may have fewer stages than are on disk: those that a later stage of the run trains are left out.
    """
    if not jax.tree.leaves(shapes):
        return shapes
    tree = _restore(workdir / "frozen", shapes, sharding, part=True)
    check_digests(
        digests(tree), wanted, workdir / "frozen", "copy it back from a backup, or train again in a new workdir"
    )
    return tree


def _restore(path: Path, like: Tree, sharding: jax.sharding.Sharding, *, part: bool = False) -> Tree:
    """The tree on disk; with `part`, only the arrays that `like` has."""
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=sharding), like)
    try:
        with readable(path.absolute()) as folder:
            if not part:
                with ocp.StandardCheckpointer() as checkpointer:
                    return checkpointer.restore(folder, abstract)
            wanted = ocp.checkpoint_utils.construct_restore_args(abstract)
            arguments = ocp.args.PyTreeRestore(abstract, restore_args=wanted, partial_restore=True)
            with ocp.PyTreeCheckpointer() as checkpointer:
                return checkpointer.restore(folder, args=arguments)
    except Exception as error:  # Orbax and TensorStore raise many types for files that are missing or damaged
        raise CheckpointError(f"{path}: cannot be restored: {one_line(error)}") from error
