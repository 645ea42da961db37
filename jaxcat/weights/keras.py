"""Keras's HDF5 layout made ours: which `conv2d_N` is which unit of jaxcat/inception.py. Pure: a file in, arrays out.

Keras numbers layers in the order of creation, so the number of a layer is the only name its tensors have. Several units
share a shape, so a mix-up would load without complaint: never sort these names as strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
from flax.traverse_util import unflatten_dict

from jaxcat.errors import WeightsError

_MIXED_A = (
    "branch1x1",
    *("branch5x5_1", "branch5x5_2"),
    *("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
    "branch_pool",
)
_MIXED_C = (
    "branch1x1",
    *("branch7x7_1", "branch7x7_2", "branch7x7_3"),
    *("branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5"),
    "branch_pool",
)
_MIXED_E = (
    "branch1x1",
    *("branch3x3", "branch3x3_1x3", "branch3x3_3x1"),
    *("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_1x3", "branch3x3dbl_3x1"),
    "branch_pool",
)
_CREATED = {
    "stem": ("conv1", "conv2", "conv3", "conv4", "conv5"),  # conv2d_1 … 5
    "mixed0": _MIXED_A,  # 6 … 12
    "mixed1": _MIXED_A,  # 13 … 19
    "mixed2": _MIXED_A,  # 20 … 26
    "mixed3": ("branch3x3", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),  # 27 … 30
    "mixed4": _MIXED_C,  # 31 … 40
    "mixed5": _MIXED_C,  # 41 … 50
    "mixed6": _MIXED_C,  # 51 … 60
    "mixed7": _MIXED_C,  # 61 … 70
    "mixed8": (  # 71 … 76
        *("branch3x3_1", "branch3x3_2"),
        *("branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"),
    ),
    "mixed9": _MIXED_E,  # 77 … 85
    "mixed10": _MIXED_E,  # 86 … 94
}
# In the order of keras/src/applications/inception_v3.py: UNITS[N - 1] is conv2d_N with batch_normalization_N.
UNITS = tuple(f"{stage}/{unit}" for stage, units in _CREATED.items() for unit in units)

# Layer kind and tensor in the file → (statistic or parameter, path below the unit).
_TENSORS = {
    ("conv2d", "kernel"): ("params", "conv/kernel"),
    ("conv2d", "bias"): ("params", "conv/bias"),  # Inception-v3 has none: named so that the strict load can refuse it
    ("batch_normalization", "beta"): ("params", "bn/bias"),
    ("batch_normalization", "gamma"): ("params", "bn/scale"),  # likewise
    ("batch_normalization", "moving_mean"): ("stats", "bn/mean"),
    ("batch_normalization", "moving_variance"): ("stats", "bn/var"),
}
MAX_VALUES = 2**24  # in one tensor; the largest of Inception-v3, logits/kernel, has 2,048,000
_NOT_LAYERS = ("top_level_model_weights/", "optimizer_weights/")


def from_legacy_h5(path: Path, *, with_top: bool) -> tuple[dict, dict]:
    """Read what `model.save("x.h5")`, `model.save_weights("x.h5")` of Keras 2 and Keras Applications write.

    Args:
        path: HDF5 file with a group per layer, `conv2d_N/…/kernel:0` (HWIO), `batch_normalization_N/…/beta:0`,
            `moving_mean:0`, `moving_variance:0` and perhaps `predictions/…/kernel:0`, `bias:0`. N may start anywhere.
        with_top: whether to read `predictions`, as `logits`; it is left out otherwise.

    Returns:
        Parameters and batch statistics, nested dicts of float32 arrays named as in jaxcat/inception.py. Tensors that
        have no place there keep their name in the file, in brackets; nothing is checked for completeness.

    Raises:
        WeightsError: not a readable HDF5 file, another layout, or tensors that are not floating-point numbers.
    """
    try:
        with h5py.File(path, "r") as file:
            if "layers" in file or "_layer_checkpoint_dependencies" in file:
                raise WeightsError(
                    f"{path} is in the .weights.h5 format of Keras 3, which does not keep the layers' numbers. "
                    'Load it into the Keras model and write model.save("inception.h5") instead.'
                )
            tensors = _tensors(file, path=path)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as HDF5, it may be incomplete: {error}") from error
    layers = {name.partition("/")[0] for name in tensors}
    ranks = _ranks(layers, "conv2d") | _ranks(layers, "batch_normalization")
    trees: dict[str, dict[str, np.ndarray]] = {"params": {}, "stats": {}}
    for name, array in tensors.items():
        layer, _, below = name.partition("/")
        tensor = below.rpartition("/")[2].removesuffix(":0")
        if layer == "predictions":
            if with_top:
                trees["params"][f"logits/{tensor}"] = array
            continue
        kind = layer.rstrip("_0123456789")
        tree, place = _TENSORS.get((kind, tensor), ("params", ""))
        if place and ranks[layer] < len(UNITS):
            trees[tree][f"{UNITS[ranks[layer]]}/{place}"] = array
        else:
            trees[tree][f"[{name}]"] = array
    return unflatten_dict(trees["params"], sep="/"), unflatten_dict(trees["stats"], sep="/")


def _tensors(file: h5py.File, *, path: Path) -> dict[str, np.ndarray]:
    """Every layer's tensors as float32, by the name they have below the group of layers."""
    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        name = name.removeprefix("model_weights/")  # model.save writes one level more than save_weights
        if not isinstance(item, h5py.Dataset) or name.startswith(_NOT_LAYERS):
            return
        if item.shape is None or not np.issubdtype(item.dtype, np.floating):
            raise WeightsError(f"{path}: tensor {name} holds {item.dtype}; weights are floating-point numbers")
        if item.external or item.is_virtual:
            raise WeightsError(f"{path}: the values of tensor {name} lie in another file; only whole files are read")
        if item.size > MAX_VALUES:
            raise WeightsError(f"{path}: tensor {name} {item.shape} is larger than any of Inception-v3")
        found[name] = item[()].astype(np.float32)

    file.visititems(visit)  # walks what is in this file: soft and external links are not followed
    return found


def _ranks(layers: Iterable[str], kind: str) -> dict[str, int]:
    """Layer name → place in `UNITS`, for the layers of one kind, wherever their numbering starts.

    With other than 94 of them the ranks mean nothing: they are then counted from the published 1, or from the lowest
    number where the numbers are not the published ones, so that the strict load can name what is missing or too much.
    """
    matches = {layer: re.fullmatch(rf"{kind}(?:_(\d+))?", layer) for layer in layers}
    numbers = {layer: int(match[1] or 0) for layer, match in matches.items() if match}  # Keras 3 starts without number
    ordered = sorted(numbers.values())
    if len(ordered) == len(UNITS):
        return {layer: ordered.index(number) for layer, number in numbers.items()}
    first = 1 if ordered and ordered[0] >= 1 and ordered[-1] <= len(UNITS) else min(ordered, default=0)
    return {layer: number - first for layer, number in numbers.items()}
