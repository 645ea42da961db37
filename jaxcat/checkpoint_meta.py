"""What checkpoints say of themselves, and which of them is the best: JSON and digests, without Orbax.

A digest of every array lies in the meta, and one of the meta itself, because Orbax restores flipped bytes without a
word.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcat.errors import CheckpointError, OtherFormatError

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
METRICS = ("train/accuracy", "train/loss", "validation/accuracy", "validation/loss")  # of an epoch, the least there is
_STEP = re.compile("0|[1-9][0-9]*")  # a number as Orbax writes it, and nothing else that int() would take


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
    return min(history, key=rank, default=None)


def rank(record: dict) -> tuple[float, float, int]:
    """Of an epoch's record; the lowest is the best."""
    return -record["validation/accuracy"], record["validation/loss"], record["epoch"]


def steps(workdir: Path) -> list[int]:
    """Steps of the finished checkpoints, ascending; empty where there are none. Orbax gives a checkpoint its number
    when all of it is written, so one that lacks a part is damaged, not unfinished."""
    return sorted(numbered(workdir / "checkpoints"))


def numbered(folder: Path) -> dict[int, Path]:
    """The folders in `folder` that a step has given its name, by step; empty where it does not exist.

    Raises:
        CheckpointError: it is a link. Checkpoints are moved and deleted there, and a workdir from elsewhere shall not
            say what else that may hit. Or it cannot be listed.
    """
    try:
        if folder.is_symlink():
            raise CheckpointError(
                f"{folder} is a link, and jaxcat moves and deletes what is there: link the whole workdir"
            )
        if not folder.is_dir():
            return {}
        found = [path for path in folder.iterdir() if _STEP.fullmatch(path.name)]
        return {int(path.name): path for path in found if path.is_dir() and not path.is_symlink()}
    except OSError as error:  # also from is_dir and is_symlink, in a directory that may not be entered
        raise CheckpointError(f"{folder}: cannot be listed: {error.strerror}; ask its owner for access") from error


def read_meta(workdir: Path, step: int) -> dict:
    """The description that a checkpoint carries.

    Raises:
        CheckpointError: it cannot be read.
        OtherFormatError: another version of jaxcat wrote it.
    """
    path = workdir / "checkpoints" / str(step) / "meta" / "metadata"
    try:
        meta = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read ({first_line(error)}): {way_out(workdir, step)}") from error
    whole = isinstance(meta, dict) and meta.get("meta_digest") == meta_digest(meta)  # else its format says nothing
    if whole and meta.get("format") != FORMAT:
        raise OtherFormatError(
            f"{path}: format {meta.get('format')}, this jaxcat reads {FORMAT}: use the jaxcat that wrote it, or another"
            " --workdir"
        )
    if (
        not isinstance(meta, dict)
        or any(not isinstance(meta.get(key), kind) for key, kind in META_TYPES.items())
        or not all(map(_is_record, meta["history"]))
        or not _has_ints(meta.get("length", {"pictures": 0, "batch_size": 0}), "pictures", "batch_size")
    ):
        raise CheckpointError(f"{path}: not the description of a checkpoint: {way_out(workdir, step)}")
    if not whole or meta["step"] != step:
        raise CheckpointError(f"{path}: damaged on disk: {way_out(workdir, step)}")
    return meta


def _is_record(record: Any) -> bool:
    return _has_ints(record, "epoch", "step") and all(type(record.get(name)) in (int, float) for name in METRICS)


def _has_ints(table: Any, *names: str) -> bool:
    return isinstance(table, dict) and all(type(table.get(name)) is int for name in names)


def choose(workdir: Path, step: str | int) -> int:
    """`best`, `latest` or a step number → the step of a finished checkpoint.

    Raises:
        CheckpointError: there is none, or not that one; names those there are.
    """
    there = steps(workdir)
    for number, old in numbered(workdir / REPLACED).items():
        if number not in there:
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
    if _STEP.fullmatch(str(step)) and int(step) in there:
        return int(step)
    raise CheckpointError(
        f"--step {step}: not in {workdir}, which has {', '.join(map(str, there))}; or say best, latest"
    )


def check_digests(found: dict[str, str], wanted: dict[str, str], where: Path, way_out: str) -> None:
    """Raises CheckpointError where a digest differs from the one wanted."""
    damaged = [name for name, digest in found.items() if wanted.get(name) != digest]
    if damaged:
        raise CheckpointError(f"{where}: damaged on disk, {len(damaged)} arrays differ, first {damaged[0]}: {way_out}")


def way_out(workdir: Path, step: int) -> str:
    """What to do where the checkpoint of this step cannot be used."""
    others = [other for other in steps(workdir) if other != step]
    if others:
        return f"use another step of {', '.join(map(str, others))}; training continues from the newest good one"
    return "there is no other checkpoint; train again in a new workdir"


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
