"""The head of a run in a small file beside its checkpoint, so that its bottlenecks become answers without JAX.

    DIR/heads/STEP.safetensors      hidden layers and logits of checkpoint STEP: `params/logits/kernel`, …, float32

It is written for runs whose bottlenecks LiteRT computes, and removed with its checkpoint. Every array is in the
checkpoint too, and its digest in the meta, so a missing or damaged file can be done without.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from jaxcat.errors import CheckpointError, one_line
from jaxcat.models.pooling import hidden_layers
from jaxcat.runs.meta import Meta, check_digests, digests
from jaxcat.runs.workdir import STEP
from jaxcat.system.files import regular_bytes, write_bytes

FOLDER, SUFFIX = "heads", ".safetensors"
MOST_BYTES = 2**31  # of a file
ITEM = "model"  # the item of a checkpoint that has these arrays, and the first part of the names of their digests

Head = Mapping[str, Mapping[str, np.ndarray]]  # layer → "kernel" (inputs, outputs) and "bias" (outputs,), float32


def path_of(workdir: Path, step: int) -> Path:
    """The file of the head of a step."""
    return workdir / FOLDER / f"{step}{SUFFIX}"


def write_head(workdir: Path, step: int, params: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes the parameters of the head, completely or not at all.

    Args:
        params: layer → arrays of NumPy or JAX.

    Raises:
        OSError: the file cannot be written.
        CheckpointError: its folder is a link.
    """
    folder = _own(workdir)
    folder.mkdir(exist_ok=True)
    arrays = {f"params/{layer}/{name}": np.asarray(each) for layer, of in params.items() for name, each in of.items()}
    write_bytes(path_of(workdir, step), save(arrays))


def keep_heads(workdir: Path, steps: Collection[int]) -> None:
    """Removes the heads of other steps. Raises OSError, or CheckpointError if their folder is a link."""
    folder = _own(workdir)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.suffix == SUFFIX and STEP.fullmatch(path.stem) and int(path.stem) not in steps:
            path.unlink()


def _own(workdir: Path) -> Path:
    """The folder of heads, in which files are made and removed."""
    folder = workdir / FOLDER
    if folder.is_symlink():
        raise CheckpointError(f"{folder} is a link, but jaxcat writes and removes files there: remove the link")
    return folder


def read_head(workdir: Path, meta: Meta) -> Head | None:
    """The head of the checkpoint that `meta` describes; None if there is no file of it.

    Raises:
        CheckpointError: the file cannot be read, is damaged, or is that of another checkpoint.
    """
    path, layers = path_of(workdir, meta.step), (*hidden_layers(meta.config.model), "logits")
    names = [f"{ITEM}/params/{layer}/{kind}" for layer in layers for kind in ("kernel", "bias")]
    try:
        arrays = load(regular_bytes(path, most=MOST_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {one_line(error)}") from error
    wanted = {name: meta.digests.get(name, "") for name in names}
    found = dict.fromkeys(names, "missing") | digests({ITEM: arrays})
    check_digests(found, wanted, path, "the checkpoint is used in its place")
    return {layer: {kind: arrays[f"params/{layer}/{kind}"] for kind in ("kernel", "bias")} for layer in layers}
