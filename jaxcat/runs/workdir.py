"""The layout of a workdir, and which checkpoints are there.

    DIR/frozen/                     the frozen prefix, written once
    DIR/checkpoints/STEP/model      trained parameters and their BatchNorm statistics: all that evaluation needs
    DIR/checkpoints/STEP/training   optimizer state, step, sums of the epoch
    DIR/checkpoints/STEP/meta       the description of the checkpoint, JSON; see meta.py
    DIR/heads/STEP.safetensors      the head of a checkpoint whose bottlenecks LiteRT computes; see head_file.py
    DIR/records.jsonl               the records of the run, written once; see records.py
    DIR/calibration.json            the temperature of a trained head, fitted afterwards; see calibration.py

    DIR/damaged/STEP                a checkpoint that recovery.py found damaged
    DIR/replaced/STEP               the old checkpoint, while a new one of the same step is written

Nothing in a workdir is ever executed or unpickled: arrays are read by TensorStore or safetensors, and the rest is JSON.
"""

from __future__ import annotations

import re
from pathlib import Path

from jaxcat.errors import CheckpointError

REPLACED = "replaced"
DAMAGED = "damaged"
STEP = re.compile("0|[1-9][0-9]*")  # a step as Orbax writes it; int() accepts more


def checkpoint(workdir: Path, step: int) -> Path:
    """The folder of one checkpoint."""
    return workdir.absolute() / "checkpoints" / str(step)


def steps(workdir: Path) -> list[int]:
    """Steps of the finished checkpoints, ascending.

    Orbax names a checkpoint by its step only when it is complete, so one that lacks a part is damaged.
    """
    return sorted(numbered(workdir / "checkpoints"))


def numbered(folder: Path) -> dict[int, Path]:
    """The folders in `folder` that are named by a step; empty if `folder` does not exist.

    Raises:
        CheckpointError: `folder` is a link or cannot be listed. Links are refused because checkpoints are moved and
            deleted there, and a link in a workdir from elsewhere may point to other files.
    """
    try:
        if folder.is_symlink():
            raise CheckpointError(
                f"{folder} is a link, but jaxcat moves and deletes what is there: make the whole workdir a link"
            )
        if not folder.is_dir():
            return {}
        found = [path for path in folder.iterdir() if STEP.fullmatch(path.name)]
        return {int(path.name): path for path in found if path.is_dir() and not path.is_symlink()}
    except OSError as error:  # also from is_dir and is_symlink, if access is denied
        raise CheckpointError(f"{folder}: cannot be listed: {error.strerror}; ask its owner for access") from error


def way_out(workdir: Path, step: int) -> str:
    """What to do if the checkpoint of this step cannot be used."""
    others = [other for other in steps(workdir) if other != step]
    if others:
        return f"use another step ({', '.join(map(str, others))}); training continues from the newest good one"
    return "there is no other checkpoint; train again in a new workdir"
