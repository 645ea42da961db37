"""Pretrained numbers, strictly: every tensor of Inception-v3 is there, fits and is finite, or none is taken.

Only the head is excused, and only by name: a 1000-class top in the file is left out when nobody asked for it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict

from jaxcat import inception
from jaxcat.errors import WeightsError
from jaxcat.weights.fetch import fetch
from jaxcat.weights.keras import from_legacy_h5
from jaxcat.weights.registry import REGISTRY, Preprocessing, WeightsSpec

LAST = "mixed10"  # a file must hold the network up to here, wherever it is cut afterwards
TOP = {"logits/kernel": (2048, 1000), "logits/bias": (1000,)}  # the published one: 1000 classes of ImageNet
DIFF_LINES = 20  # of each sign; the rest is counted


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Numbers, and what they need to mean anything.

    Attributes:
        params: stage → unit → tensor, nested dicts of float32 arrays, as `nnx.to_pure_dict` of the stages' `nnx.Param`;
            with a top also `logits`: `kernel` (2048, 1000) and `bias` (1000,).
        stats: the same for `nnx.BatchStat`: `mean` and `var` of every unit.
        preprocessing: what the network was trained to see.
        pool_counts_padding: the pooling rule it was trained with; see `inception.Options`.
        provenance: where the numbers come from, as plain JSON for the checkpoint.
    """

    params: dict[str, Any]
    stats: dict[str, Any]
    preprocessing: Preprocessing
    pool_counts_padding: bool
    provenance: dict[str, Any]


def load_pretrained(source: str, *, cut: str, width: float = 1.0, with_top: bool = False) -> Pretrained:
    """Load Inception-v3 from a published file (downloaded once) or a file of the user's.

    Args:
        source: a name in `REGISTRY` or the path of a Keras legacy HDF5 file. A file named by its path is taken to be
            trained as Keras Applications trains: input in [-1, 1], padding not counted in average pooling.
        cut: the last stage wanted, a name in `inception.STAGES`; later ones must be in the file but are left out.
        width: of the network the numbers are for; published files have 1.0.
        with_top: whether to load the 1000-class layer too, as `logits`; needs `cut="mixed10"`.

    Raises:
        WeightsError: no such file or name, a download failed, another format or network, or missing, superfluous,
            misshapen or impossible tensors; the message shows them as a diff of expected (-) and found (+).
    """
    if with_top and cut != LAST:
        raise WeightsError(f"the 1000-class top stands on {LAST}: set --config.model.cut={LAST}, not {cut!r}")
    spec = REGISTRY.get(source)
    path = _published(spec, width=width, with_top=with_top) if spec else _existing(source)
    if (kind := _other_format(path)) is not None:
        raise WeightsError(
            f"{path} is {kind}, not an Inception-v3 weights file in Keras's HDF5 layout: set --config.model.weights to "
            "such a file or to one of " + ", ".join(REGISTRY)
        )
    params, stats = from_legacy_h5(path, with_top=with_top)
    if (diff := _diff(params, stats, width=width, with_top=with_top)) is not None:
        raise WeightsError(f"{path} is not a whole Inception-v3 of width {width:g} (- expected, + found):\n{diff}")
    names = list(inception.STAGES)
    kept = names[: names.index(cut) + 1]
    conventions = spec or REGISTRY["keras-imagenet"]
    return Pretrained(
        params={name: params[name] for name in [*kept, *(["logits"] if with_top else [])]},
        stats={name: stats[name] for name in kept},
        preprocessing=conventions.preprocessing,
        pool_counts_padding=conventions.pool_counts_padding,
        provenance=_provenance(source, path, spec=spec, conventions=conventions),
    )


def _published(spec: WeightsSpec, *, width: float, with_top: bool) -> Path:
    """The verified file, once it is clear that it can serve the request."""
    if width != 1.0:
        raise WeightsError(
            f"the weights {spec.name!r} are of width 1.0, the network has {width:g}: set --config.model.width=1.0, or "
            "--config.model.weights=none to train from scratch"
        )
    if with_top and not spec.with_top:
        tops = ", ".join(name for name, other in REGISTRY.items() if other.with_top)
        raise WeightsError(f"the weights {spec.name!r} have no 1000-class top; these have: {tops}")
    return fetch(spec)


def _existing(source: str) -> Path:
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise WeightsError(f"weights {source!r} is a directory: set --config.model.weights to a file or a name")
    near = difflib.get_close_matches(source, REGISTRY, n=2)
    raise WeightsError(
        f"weights {source!r} is neither a file nor the name of published weights ({', '.join(REGISTRY)}). "
        + (f"Did you mean {' or '.join(near)}? " if near else "")
        + "Set --config.model.weights=PATH or to one of the names"
    )


def _other_format(path: Path) -> str | None:
    """What the file looks like, from its first bytes; None for HDF5."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}; see --config.model.weights") from error
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return None
    if not head:
        return "an empty file"
    if head.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.namelist()
        except zipfile.BadZipFile:
            return "a zip archive cut short, perhaps of PyTorch or Keras 3"
        if any(member.endswith("data.pkl") for member in members):
            return "a PyTorch checkpoint"
        return "a .keras archive of Keras 3" if "model.weights.h5" in members else "a zip archive"
    if head.startswith(b"\x80"):
        return "a pickle, perhaps an old PyTorch checkpoint"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size:
        return "a safetensors file"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer in place of the file it stands for"
    if b"\0" not in head:
        return "a web page" if head.lstrip().lower().startswith((b"<!doctype", b"<html")) else "a text file"
    return "of an unknown format"


@functools.lru_cache(maxsize=4)
def _expected(width: float, with_top: bool) -> dict[str, tuple[int, ...]]:
    """Shapes of a whole Inception-v3 by path, parameters and statistics together."""
    stages = nnx.eval_shape(lambda: inception.build(LAST, inception.Options(width=width)))
    _, *states = nnx.split(stages, nnx.Param, nnx.BatchStat)
    shapes: dict[str, tuple[int, ...]] = {}
    for state in states:
        shapes |= {name: leaf.shape for name, leaf in flatten_dict(nnx.to_pure_dict(state), sep="/").items()}
    order = {stage: place for place, stage in enumerate(inception.STAGES)}
    shapes = dict(sorted(shapes.items(), key=lambda item: order[item[0].partition("/")[0]]))
    return shapes | (TOP if with_top else {})


def _diff(params: dict, stats: dict, *, width: float, with_top: bool) -> str | None:
    """Expected against found, a line per tensor that is missing, superfluous, misshapen or impossible, or None."""
    expected = _expected(width, with_top)
    found = flatten_dict(params, sep="/") | flatten_dict(stats, sep="/")
    lines: dict[str, list[str]] = {"-": [], "+": []}
    for name in [*expected, *(name for name in found if name not in expected)]:
        flaw = "" if name not in found else _flaw(name, found[name])
        if name in found and found[name].shape == expected.get(name) and not flaw:
            continue
        if name in expected:
            lines["-"].append(f"- {name} {expected[name]}")
        if name in found:
            lines["+"].append(f"+ {name} {found[name].shape}{flaw}")
    for listed in lines.values():
        if len(listed) > DIFF_LINES:
            listed[DIFF_LINES:] = [f"{listed[0][0]} … and {len(listed) - DIFF_LINES} more"]
    return "\n".join(lines["-"] + lines["+"]) or None


def _flaw(name: str, array: np.ndarray) -> str:
    if bad := array.size - int(np.isfinite(array).sum()):
        return f" with {bad} values that are NaN or infinite"
    if name.endswith("bn/var") and (bad := int((array < 0).sum())):
        return f" with {bad} negative variances"
    return ""


def _provenance(source: str, path: Path, *, spec: WeightsSpec | None, conventions: WeightsSpec) -> dict[str, Any]:
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    known = {
        "source": source,
        "file": path.name,
        "sha256": sha256,
        "layout": conventions.layout,
        "preprocessing": conventions.preprocessing.to_dict(),
        "pool_counts_padding": conventions.pool_counts_padding,
    }
    if spec is None:
        return known
    published = ("url", "licence", "notice", "top1", "top5", "accuracy_source")
    return known | {name: getattr(spec, name) for name in published}
