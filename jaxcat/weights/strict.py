"""Loads a whole network or nothing: all tensors of a backbone must be there and fit; those read must be finite.

Only the published top may be missing, if nobody asked for it. If part of it is in the file, all of it must fit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from jaxcat.errors import WeightsError
from jaxcat.models.backbone import BACKBONES
from jaxcat.models.layers import Options
from jaxcat.models.modules import blocks_of
from jaxcat.weights.formats.contents import Contents, Limits, Tensor
from jaxcat.weights.registry import TORCH
from jaxcat.wording import counted

DIFF_LINES = 20  # lines of each sign; further ones are only counted

Shapes = dict[str, tuple[int, ...]]


def expected(backbone: str, width: float) -> Shapes:
    """Shapes of all blocks of a backbone by path, parameters and statistics together, in the order the data flows."""
    return _shapes(backbone, width)[0]


def expected_top(backbone: str, width: float) -> Shapes:
    """The same for its published top; `width` changes only the number of inputs."""
    return _shapes(backbone, width)[1]


@functools.lru_cache(maxsize=8)
def _shapes(backbone: str, width: float) -> tuple[Shapes, Shapes]:
    table = BACKBONES[backbone]
    last = table.stages[-1]
    body: Shapes = {}
    for name, block in blocks_of(backbone, last, Options(width=width)).items():
        for kind in (block.params, block.stats):
            body |= {f"{name}/{path}": leaf.shape for path, leaf in flatten_dict(kind, sep="/").items()}
    output = table.shapes(last, table.image_size, width=width)[last]
    features = math.prod(output) if table.top.pool == "flatten" else output[-1]
    top: Shapes = {}
    for name, outputs in {**table.top.hidden, "logits": table.top.classes}.items():
        top |= {f"{name}/kernel": (features, outputs), f"{name}/bias": (outputs,)}
        features = outputs
    return body, top


@functools.cache
def limits(backbone: str | None) -> Limits:
    """The limits for reading a file of that backbone, or of any backbone if None.

    They leave room for the published top and for both slots of Adam.
    """
    if backbone is None:
        each = [limits(name) for name in BACKBONES]
        return Limits(max(limit.values for limit in each), max(limit.size for limit in each))
    sizes = [int(np.prod(shape)) for shapes in _shapes(backbone, 1.0) for shape in shapes.values()]
    return Limits(max(2**24, *sizes), 14 * sum(sizes))


def is_whole(contents: Contents) -> bool:
    """Whether every tensor of the blocks is there, in any shape."""
    return expected(contents.backbone, 1.0).keys() <= contents.tensors.keys()


def read(
    contents: Contents, *, path: Path, width: float, with_top: bool, stages: Collection[str]
) -> dict[str, np.ndarray]:
    """Reads the values of these stages, after checking all shapes: no value is read from a file of another network.

    Raises:
        WeightsError: tensors are missing, superfluous, misshapen or impossible; the message shows a diff.
    """
    shapes, top = expected(contents.backbone, width), expected_top(contents.backbone, width)
    if contents.layout == TORCH:
        shapes = shapes | {name.replace("/bn/mean", "/bn/scale"): shape for name, shape in shapes.items()}
    found = contents.tensors
    if with_top or any(name in found for name in top):
        shapes = shapes | top
    if (diff := _diff(shapes, found, _misfit)) is not None:
        wanted = f"a whole {BACKBONES[contents.backbone].title} of width {width:g}"
        raise WeightsError(f"{path} is not {wanted}{_hint(shapes, found, top)} (- expected, + found):\n{diff}")
    arrays = {name: found[name].read() for name in shapes if name.partition("/")[0] in stages}
    if (diff := _diff({name: shapes[name] for name in arrays}, arrays, _flaw)) is not None:
        raise WeightsError(f"{path} holds impossible numbers (- expected, + found):\n{diff}")
    return arrays


def fold_scale(arrays: dict[str, np.ndarray]) -> str | None:
    """Folds BatchNorm's scale γ into kernel W and mean μ: γ((Wx) - μ)/σ + β = ((γW)x - γμ)/σ + β, for any sign of γ.

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


def _hint(shapes: Shapes, found: dict[str, Tensor], top: Shapes) -> str:
    """What the file may be instead, as a text that begins with a comma, or ""."""
    if not shapes.keys() & found.keys():
        return ", it holds another network"
    bias = found.get("logits/bias")
    if bias is not None and bias.shape == (1008,):
        return ", it has the 1008 outputs of the FID variant of the network, which pools differently"
    if bias is not None and bias.shape != top["logits/bias"]:
        return (
            f", its top has {counted(bias.shape[0] if bias.shape else 0, 'class', 'classes')} and not ImageNet's 1000"
        )
    return ""


def _diff(shapes: dict, found: dict, flaw: Callable[[str, Any], str]) -> str | None:
    """A line for each tensor that is missing, superfluous, misshapen or flawed, or None if there is none."""
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
        return f" with {counted(bad, 'value')} of NaN or infinity"
    if name.endswith("bn/var") and (bad := int((array < 0).sum())):
        return f" with {counted(bad, 'negative variance')}"
    return ""
