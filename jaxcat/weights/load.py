"""Pretrained numbers, strictly: every tensor of Inception-v3 is there, fits and is finite, or none is taken.

Only the head is excused, and only by name: a 1000-class top in the file is left out when nobody asked for it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxcat import inception
from jaxcat.errors import WeightsError
from jaxcat.weights import conventions
from jaxcat.weights.contents import Contents, Tensor
from jaxcat.weights.conventions import Conventions
from jaxcat.weights.fetch import fetch, remember
from jaxcat.weights.formats import open_weights
from jaxcat.weights.registry import CANONICAL, REGISTRY, TORCH, Evaluation, Preprocessing, WeightsSpec

LAST = "mixed10"  # a file must hold the network up to here, wherever it is cut afterwards
TOP = {"logits/kernel": (2048, 1000), "logits/bias": (1000,)}  # the published one: 1000 classes of ImageNet
DIFF_LINES = 20  # of each sign; the rest is counted


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Numbers, and what they need to mean anything.

    Attributes:
        params: stage → unit → tensor, nested dicts of float32 arrays, as `nnx.to_pure_dict` of the stages' `nnx.Param`;
            with a top also `logits`: `kernel` (2048, 1000) and `bias` (1000,). Arrays of a safetensors file may be
            read-only views of it.
        stats: the same for `nnx.BatchStat`: `mean` and `var` of every unit.
        preprocessing, pool_counts_padding, evaluation: see `Conventions`.
        provenance: where the numbers come from, as plain JSON for the checkpoint.
        classes: names of the top's 1000 outputs, empty without a top.
    """

    params: dict[str, Any]
    stats: dict[str, Any]
    preprocessing: Preprocessing
    pool_counts_padding: bool
    provenance: dict[str, Any]
    evaluation: Evaluation | None = None
    classes: tuple[str, ...] = ()


def load_pretrained(
    source: str, *, cut: str, width: float = 1.0, with_top: bool = False, like: str | None = None
) -> Pretrained:
    """Load Inception-v3 from a published file (downloaded once) or a file of the user's.

    Args:
        source: a name in `REGISTRY` or the path of a file in one of the layouts there. A canonical file says how it was
            trained; any other is taken to be trained as its framework's own weights were.
        cut: the last stage wanted, a name in `inception.STAGES`; later ones must be in the file but are left out.
        width: of the network the numbers are for; published files have 1.0.
        with_top: whether to load the 1000-class layer too, as `logits`; needs `cut="mixed10"`.
        like: a name in `REGISTRY` whose conventions a file follows, where its framework's are not right.

    Raises:
        WeightsError: no such file or name, a download failed, another format or network, a canonical file that says
            impossible things of itself, or missing, superfluous, misshapen or impossible tensors; the message shows
            them as a diff of expected (-) and found (+).
    """
    if with_top and cut != LAST:
        raise WeightsError(f"the 1000-class top stands on {LAST}: set --config.model.cut={LAST}, not {cut!r}")
    spec = _spec(source, with_top=with_top)
    path = _published(spec, width=width, with_top=with_top) if spec else _existing(source)
    with open_weights(path, label_offset=spec.label_offset if spec else 0) as contents:
        if spec and contents.layout != spec.layout:
            raise WeightsError(f"{path} has the layout {contents.layout}, {spec.name!r} is published in {spec.layout}")
        about = conventions.of_file(contents, spec or conventions.like(like), path=path)
        arrays = _read(contents, path=path, width=width, with_top=with_top)
    scale = _fold_scale(arrays)
    names = list(inception.STAGES)
    kept = [*names[: names.index(cut) + 1], *(["logits"] if with_top else [])]
    stats = {name: array for name, array in arrays.items() if name.endswith(("/bn/mean", "/bn/var"))}
    provenance = _provenance(source, path, spec=spec, contents=contents, about=about)
    if spec:
        remember(spec, path, provenance["sha256"])
    return Pretrained(
        params=_tree({name: array for name, array in arrays.items() if name not in stats}, kept),
        stats=_tree(stats, kept),
        preprocessing=about.preprocessing,
        pool_counts_padding=about.pool_counts_padding,
        provenance=provenance | ({"batch_norm_scale": scale} if scale else {}),
        evaluation=about.evaluation,
        classes=about.classes if with_top else (),
    )


def _tree(arrays: dict[str, np.ndarray], stages: list[str]) -> dict[str, Any]:
    tree = unflatten_dict(arrays, sep="/")
    return {stage: tree[stage] for stage in stages if stage in tree}


def _spec(source: str, *, with_top: bool) -> WeightsSpec | None:
    """The registry's entry, or its sibling with the top."""
    spec = REGISTRY.get(source)
    if spec and with_top and not spec.with_top:
        return REGISTRY.get(f"{source}-top", spec)
    return spec


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
        hint = ""
        if (path / "checkpoints").is_dir():
            hint = f"; to start from the run in it, set --config.init_from={source} and --config.model.weights=none"
        raise WeightsError(f"weights {source!r} is a directory: set --config.model.weights to a file or a name{hint}")
    near = difflib.get_close_matches(source, REGISTRY, n=2)
    raise WeightsError(
        f"weights {source!r} is neither a file nor the name of published weights ({', '.join(REGISTRY)}). "
        + (f"Did you mean {' or '.join(near)}? " if near else "")
        + "Set --config.model.weights=PATH or to one of the names"
    )


@functools.lru_cache(maxsize=4)
def expected(width: float) -> dict[str, tuple[int, ...]]:
    """Shapes of a whole Inception-v3 by path, parameters and statistics together."""
    stages = nnx.eval_shape(lambda: inception.build(LAST, inception.Options(width=width)))
    _, *states = nnx.split(stages, nnx.Param, nnx.BatchStat)
    shapes: dict[str, tuple[int, ...]] = {}
    for state in states:
        shapes |= {name: leaf.shape for name, leaf in flatten_dict(nnx.to_pure_dict(state), sep="/").items()}
    order = {stage: place for place, stage in enumerate(inception.STAGES)}
    return dict(sorted(shapes.items(), key=lambda item: order[item[0].partition("/")[0]]))


def _read(contents: Contents, *, path: Path, width: float, with_top: bool) -> dict[str, np.ndarray]:
    """All values, once every shape is known to be right: nothing is read from a file of another network."""
    shapes = expected(width)
    if contents.layout == TORCH:
        shapes = shapes | {name.replace("/bn/mean", "/bn/scale"): shape for name, shape in shapes.items()}
    found = dict(contents.tensors)
    if with_top or any(name in found for name in TOP):
        shapes = shapes | TOP
    if (diff := _diff(shapes, found, _misfit)) is not None:
        wanted = f"a whole Inception-v3 of width {width:g}"
        raise WeightsError(f"{path} is not {wanted}{_hint(shapes, found)} (- expected, + found):\n{diff}")
    arrays = {name: found[name].read() for name in shapes if with_top or name not in TOP}
    if (diff := _diff({name: shapes[name] for name in arrays}, arrays, _flaw)) is not None:
        raise WeightsError(f"{path} holds impossible numbers (- expected, + found):\n{diff}")
    return arrays


def _hint(shapes: dict[str, tuple[int, ...]], found: dict[str, Tensor]) -> str:
    """What else it may be, after a comma, or nothing."""
    if not shapes.keys() & found.keys():
        return ", it holds another network"
    bias = found.get("logits/bias")
    if bias is not None and bias.shape == (1008,):
        return ", it has the 1008 outputs of the FID variant, which pools otherwise"
    if bias is not None and bias.shape != TOP["logits/bias"]:
        return f", its top has {bias.shape[0] if bias.shape else 0} classes and not ImageNet's 1000"
    return ""


def _diff(shapes: dict, found: dict, flaw: Callable[[str, Any], str]) -> str | None:
    """Expected against found, a line per tensor that is missing, superfluous, misshapen or flawed, or None."""
    lines: dict[str, list[str]] = {"-": [], "+": []}
    for name in [*shapes, *(name for name in found if name not in shapes)]:
        reason = flaw(name, found[name]) if name in found else ""
        if name in found and found[name].shape == shapes.get(name) and not reason:
            continue
        if name in shapes:
            lines["-"].append(f"- {name} {shapes[name]}")
        if name in found:
            lines["+"].append(f"+ {name} {found[name].shape}{reason}")
    for listed in lines.values():
        if len(listed) > DIFF_LINES:
            listed[DIFF_LINES:] = [f"{listed[0][0]} … and {len(listed) - DIFF_LINES} more"]
    return "\n".join(lines["-"] + lines["+"]) or None


def _misfit(name: str, tensor: Tensor) -> str:
    return "" if tensor.floating else f" of {tensor.dtype}"


def _flaw(name: str, array: np.ndarray) -> str:
    if bad := array.size - int(np.isfinite(array).sum()):
        return f" with {bad} values that are NaN or infinite"
    if name.endswith("bn/var") and (bad := int((array < 0).sum())):
        return f" with {bad} negative variances"
    return ""


def _fold_scale(arrays: dict[str, np.ndarray]) -> str | None:
    """Take BatchNorm's scale γ out of `arrays`: γ((Wx) - μ)/σ + β = ((γW)x - γμ)/σ + β, whatever γ's sign.

    Returns:
        What was done, for the provenance; None for layouts that have no scale.
    """
    scales = {name: arrays.pop(name) for name in list(arrays) if name.endswith("/bn/scale")}
    folded = 0
    for name, scale in scales.items():
        unit = name.removesuffix("/bn/scale")
        if (scale != 1).any():
            folded += 1
            arrays[f"{unit}/conv/kernel"] = arrays[f"{unit}/conv/kernel"] * scale
            arrays[f"{unit}/bn/mean"] = arrays[f"{unit}/bn/mean"] * scale
    return (f"folded into {folded} of {len(scales)} kernels" if folded else "all ones") if scales else None


def _provenance(
    source: str, path: Path, *, spec: WeightsSpec | None, contents: Contents, about: Conventions
) -> dict[str, Any]:
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    known = {
        "source": source,
        "file": path.name,
        "sha256": sha256,
        "layout": contents.layout,
        "preprocessing": about.preprocessing.to_dict(),
        "pool_counts_padding": about.pool_counts_padding,
        "evaluation": about.evaluation.to_dict() if about.evaluation else None,
    }
    if contents.left_out:
        known["left_out"] = list(contents.left_out)
    if contents.layout == CANONICAL:
        known["before"] = contents.description.get("provenance")
    if spec is None:
        return known
    published = ("url", "licence", "notice", "top1", "top5", "accuracy_source", "hash_source")
    return known | {name: getattr(spec, name) for name in published}
