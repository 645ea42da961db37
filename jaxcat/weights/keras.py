"""Keras's layouts made ours: which `conv2d_N` is which unit of jaxcat/inception.py. Pure: names in, names out.

Keras numbers layers in the order of creation, so the number of a layer is the only name its tensors have in the legacy
format; Keras 3 forgets even that and counts them anew. Several units share a shape, so a mix-up would load without
complaint: never sort these names as strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from jaxcat.weights.contents import Contents, Tensor
from jaxcat.weights.registry import KERAS_3, KERAS_LEGACY_H5

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

# Keras 3 names the group of a layer by its class and its place in `model.layers`, which is sorted by depth.
# KERAS_3_ORDER[k] is the place in `UNITS` of group `conv2d_k` (`conv2d` for 0) and of `batch_normalization_k`.
KERAS_3_ORDER = (
    *(0, 1, 2, 3, 4),  # stem
    *(8, 6, 9, 5, 7, 10, 11),  # mixed0
    *(15, 13, 16, 12, 14, 17, 18),
    *(22, 20, 23, 19, 21, 24, 25),
    *(27, 28, 26, 29),  # mixed3
    *(34, 35, 31, 36, 32, 37, 30, 33, 38, 39),  # mixed4
    *(44, 45, 41, 46, 42, 47, 40, 43, 48, 49),
    *(54, 55, 51, 56, 52, 57, 50, 53, 58, 59),
    *(64, 65, 61, 66, 62, 67, 60, 63, 68, 69),
    *(72, 73, 70, 74, 71, 75),  # mixed8
    *(80, 77, 81, 78, 79, 82, 83, 76, 84),  # mixed9
    *(89, 86, 90, 87, 88, 91, 92, 85, 93),
)

# Layer kind and tensor in the file → path below the unit.
_TENSORS = {
    ("conv2d", "kernel"): "conv/kernel",
    ("conv2d", "bias"): "conv/bias",  # Inception-v3 has none: named so that the strict load can refuse it
    ("batch_normalization", "beta"): "bn/bias",
    ("batch_normalization", "gamma"): "bn/scale",  # likewise
    ("batch_normalization", "moving_mean"): "bn/mean",
    ("batch_normalization", "moving_variance"): "bn/var",
}
# The same for Keras 3, where a tensor is known by its number in `layer.variables`.
_NUMBERED = {
    "conv2d": ("kernel", "bias"),
    "batch_normalization": ("beta", "moving_mean", "moving_variance"),
    "dense": ("kernel", "bias"),
}
_NOT_LAYERS = ("top_level_model_weights/", "optimizer_weights/")
_KERAS_3_ROOTS = ("layers/", "_layer_checkpoint_dependencies/")  # of Keras 3, and of `.keras` in TensorFlow ≤ 2.15


def is_keras_3(names: Iterable[str]) -> bool:
    """Whether an HDF5 file with these data sets was written by Keras 3's `save_weights` or `save`."""
    return any(name.startswith(_KERAS_3_ROOTS) for name in names)


def from_legacy(found: dict[str, Tensor]) -> Contents:
    """What `model.save("x.h5")`, `model.save_weights("x.h5")` of Keras 2 and Keras Applications write.

    Args:
        found: by name in the file, `conv2d_N/…/kernel:0` (HWIO), `batch_normalization_N/…/beta:0`, `moving_mean:0`,
            `moving_variance:0` and perhaps `predictions/…/kernel:0`, `bias:0`. N may start anywhere. `model.save` puts
            `model_weights/` before all of them, and a network inside another model has that layer's name before it.
    """
    layers: dict[str, Tensor] = {}
    for name, tensor in found.items():
        name = name.removeprefix("model_weights/")
        if not name.startswith(_NOT_LAYERS) and "/seed_generator" not in name:  # the random state of a dropout layer
            layers[name] = tensor
    layers, left_out = _network(layers, separator="/")
    ranks = _ranks(layers, "conv2d") | _ranks(layers, "batch_normalization")
    tensors: dict[str, Tensor] = {}
    for name, tensor in layers.items():
        layer, _, below = name.partition("/")
        variable = below.rpartition("/")[2].removesuffix(":0")
        place = _TENSORS.get((layer.rstrip("_0123456789"), variable))
        if layer == "predictions":
            tensors[f"logits/{variable}"] = tensor
        elif place and ranks.get(layer, len(UNITS)) < len(UNITS):
            tensors[f"{UNITS[ranks[layer]]}/{place}"] = tensor
        else:
            tensors[f"[{name}]"] = tensor
    return Contents(KERAS_LEGACY_H5, tensors, left_out)


def from_keras_3(found: dict[str, Tensor]) -> Contents:
    """What `model.save_weights("x.weights.h5")` of Keras 3 writes, and `model.save("x.keras")` puts into its archive.

    Args:
        found: by name in the file, `layers/conv2d_K/vars/0` (HWIO), `layers/batch_normalization_K/vars/0` … `2` for
            beta, mean and variance, and perhaps `layers/dense/vars/0`, `1` for the top; see `KERAS_3_ORDER` for K. A
            network inside another model is `layers/functional/layers/…`.
    """
    layers: dict[str, Tensor] = {}
    for name, tensor in found.items():
        root = next((root for root in _KERAS_3_ROOTS if name.startswith(root)), None)
        if root and "/seed_generator" not in name:  # not the optimizer's
            layers[name.removeprefix(root)] = tensor
    layers, left_out = _network(layers, separator="/layers/")
    tensors: dict[str, Tensor] = {}
    for name, tensor in layers.items():
        match = re.fullmatch(r"(conv2d|batch_normalization|dense)(?:_(\d{1,4}))?/vars/(\d)", name)
        kind, group, variable = (match[1], int(match[2] or 0), int(match[3])) if match else ("", 0, 0)
        if kind == "dense" and group == 0 and variable < 2:
            tensors[f"logits/{_NUMBERED[kind][variable]}"] = tensor
        elif kind and kind != "dense" and group < len(UNITS) and variable < len(_NUMBERED[kind]):
            place = _TENSORS[kind, _NUMBERED[kind][variable]]
            tensors[f"{UNITS[KERAS_3_ORDER[group]]}/{place}"] = tensor
        else:
            tensors[f"[{name}]"] = tensor
    return Contents(KERAS_3, tensors, left_out)


def _network(layers: dict[str, Tensor], *, separator: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The layers of a network that is itself a layer, such as Sequential([InceptionV3(…), Dense(2)]), and the rest."""
    inner = re.compile(rf"([^/]+){separator}conv2d(_\d+)?/")
    parents = {match[1] for match in map(inner.match, layers) if match and not match[1].startswith("conv2d")}
    if len(parents) != 1:
        return layers, ()
    prefix = parents.pop() + separator
    inside = {name.removeprefix(prefix): tensor for name, tensor in layers.items() if name.startswith(prefix)}
    return inside, tuple(name for name in layers if not name.startswith(prefix))


def _ranks(names: Iterable[str], kind: str) -> dict[str, int]:
    """Layer name → place in `UNITS`, for the layers of one kind, wherever their numbering starts.

    With other than 94 of them the ranks mean nothing: they are then counted from the published 1, or from the lowest
    number where the numbers are not the published ones, so that the strict load can name what is missing or too much.
    """
    layers = {name.partition("/")[0] for name in names}
    matches = {layer: re.fullmatch(rf"{kind}(?:_(\d{{1,9}}))?", layer) for layer in layers}
    numbers = {layer: int(match[1] or 0) for layer, match in matches.items() if match}  # Keras 3 starts without number
    ordered = sorted(numbers.values())
    if len(ordered) == len(UNITS):
        return {layer: ordered.index(number) for layer, number in numbers.items()}
    first = 1 if ordered and ordered[0] >= 1 and ordered[-1] <= len(UNITS) else min(ordered, default=0)
    return {layer: number - first for layer, number in numbers.items()}
