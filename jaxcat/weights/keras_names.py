"""Translates Keras's names of layers and variables into jaxcat's, for each backbone. No values are read.

Keras numbers the layers of Inception-v3 in the order of creation. In the legacy format, only this number identifies the
tensors of a layer. Keras 3 drops this number, and VGG's layer names too, and numbers the layers in another order.
Several layers share a shape, so a mix-up would load without an error: never sort these names as strings.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

from jaxcat.models import vgg
from jaxcat.models.backbone import BACKBONES
from jaxcat.models.wiring import Conv
from jaxcat.weights.formats.contents import Contents, Tensor
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


# VGG-19: its layers have names, and Keras 3 counts them in the order the data flows.
_VGG_UNITS = tuple(
    f"{block}/{name}" for block, table in vgg.STAGES.items() for name, layer in table.items() if isinstance(layer, Conv)
)


@dataclasses.dataclass(frozen=True)
class KerasNames:
    """Keras's names for the layers of one backbone.

    Attributes:
        application: the function in `keras.applications` that builds the backbone.
        units: jaxcat's path of each convolution, in the order in which Keras creates them. A normalised convolution
            has `UNIT/conv` and `UNIT/bn`, any other has the unit itself.
        keras_3_order: for the number of each Keras 3 group, its place in `units`.
        legacy: Keras's layer → unit, for layers that have names of their own.
        dense: jaxcat's names of the dense layers, in the order the data flows.
        outputs: jaxcat's block → Keras's layer with the same output.
        batch_norm: whether the convolutions are normalised.
    """

    application: str
    units: tuple[str, ...]
    keras_3_order: tuple[int, ...]
    legacy: Mapping[str, str]
    dense: tuple[str, ...]
    outputs: Mapping[str, str]
    batch_norm: bool

    @property
    def numbered(self) -> bool:
        """Whether the legacy format identifies the convolutions only by number."""
        return not set(self.units) <= set(self.legacy.values())

    def place(self, kind: str, number: int, variable: str) -> str | None:
        """jaxcat's path of a variable of layer `number` (from 0) of its kind, or None if there is no such variable."""
        units = self.dense if kind == "dense" else self.units
        below = _VARIABLES.get((kind, variable))
        if below is None or number >= len(units):
            return None
        return f"{units[number]}/{below if self.batch_norm or kind != 'conv2d' else variable}"


KERAS_NAMES = {
    "inception_v3": KerasNames(
        application="InceptionV3",
        units=UNITS,
        keras_3_order=KERAS_3_ORDER,
        legacy={"predictions": "logits"},
        dense=("logits",),
        outputs={block: block for block in _CREATED if block != "stem"},  # Keras has no name for the stem's end
        batch_norm=BACKBONES["inception_v3"].batch_norm,
    ),
    "vgg19": KerasNames(
        application="VGG19",
        units=_VGG_UNITS,
        keras_3_order=tuple(range(len(_VGG_UNITS))),
        legacy={unit.replace("/", "_"): unit for unit in _VGG_UNITS}
        | {name: name for name in vgg.TOP_HIDDEN}
        | {"predictions": "logits"},
        dense=(*vgg.TOP_HIDDEN, "logits"),
        outputs={block: f"{block}_pool" for block in vgg.STAGES},
        batch_norm=BACKBONES["vgg19"].batch_norm,
    ),
}

# Kind of layer and variable in the file → path below a normalised unit, or below a dense layer.
_VARIABLES = {
    ("conv2d", "kernel"): "conv/kernel",
    ("conv2d", "bias"): "conv/bias",  # not in Inception-v3; it has a name so that the strict load can refuse it
    ("batch_normalization", "beta"): "bn/bias",
    ("batch_normalization", "gamma"): "bn/scale",  # not in Inception-v3 either
    ("batch_normalization", "moving_mean"): "bn/mean",
    ("batch_normalization", "moving_variance"): "bn/var",
    ("dense", "kernel"): "kernel",
    ("dense", "bias"): "bias",
}
# Keras 3 identifies a variable by its number in `layer.variables`; these are the variables in that order.
_NUMBERED = {
    "conv2d": ("kernel", "bias"),
    "batch_normalization": ("beta", "moving_mean", "moving_variance"),
    "dense": ("kernel", "bias"),
}
_OLDEST = {"W_1": "kernel", "b_1": "bias"}  # `block1_conv1_W_1:0`, as Keras 1 wrote VGG's published files
_NOT_LAYERS = ("top_level_model_weights/", "optimizer_weights/")
_KERAS_3_ROOTS = ("layers/", "_layer_checkpoint_dependencies/")  # of Keras 3, and of `.keras` in TensorFlow ≤ 2.15


def is_keras_3(names: Iterable[str]) -> bool:
    """Whether an HDF5 file with these data sets was written by Keras 3's `save_weights` or `save`."""
    return any(name.startswith(_KERAS_3_ROOTS) for name in names)


def from_legacy(found: dict[str, Tensor], backbone: str) -> Contents:
    """The contents of a file of `model.save("x.h5")`, `model.save_weights("x.h5")` of Keras 2 or Keras Applications.

    Args:
        found: tensors by name in the file: `conv2d_N/…/kernel:0` (HWIO), `batch_normalization_N/…/beta:0`,
            `moving_mean:0` and `moving_variance:0` with any first N, or `block1_conv1/…/kernel:0`; perhaps also
            `predictions/…/kernel:0` and `bias:0`. `model.save` adds `model_weights/` before every name. If the network
            is a layer of another model, the name of that layer comes first.
        backbone: the backbone whose names these are.
    """
    table = KERAS_NAMES[backbone]
    layers: dict[str, Tensor] = {}
    for name, tensor in found.items():
        name = name.removeprefix("model_weights/")
        if not name.startswith(_NOT_LAYERS) and "/seed_generator" not in name:  # the random state of a dropout layer
            layers[name] = tensor
    layers, left_out = _network(layers, separator="/")
    kinds = ("conv2d", "batch_normalization") if table.numbered else ()
    ranks = {layer: rank for kind in kinds for layer, rank in _ranks(layers, kind, places=len(table.units)).items()}
    tensors: dict[str, Tensor] = {}
    for name, tensor in layers.items():
        layer, _, below = name.partition("/")
        variable = below.rpartition("/")[2].removesuffix(":0").removeprefix(f"{layer}_")
        variable = _OLDEST.get(variable, variable)
        place = table.place(layer.rstrip("_0123456789"), ranks[layer], variable) if layer in ranks else None
        if layer in table.legacy:
            place = f"{table.legacy[layer]}/{variable}"
        tensors[place if place and place not in tensors else f"[{name}]"] = tensor
    return Contents(KERAS_LEGACY_H5, backbone, tensors, left_out)


def from_keras_3(found: dict[str, Tensor], backbone: str) -> Contents:
    """The contents of a file of Keras 3's `model.save_weights("x.weights.h5")`, or of the one in a `.keras` archive.

    Args:
        found: tensors by name in the file: `layers/conv2d_K/vars/0` (HWIO) and perhaps `1`,
            `layers/batch_normalization_K/vars/0` … `2` for beta, mean and variance, and perhaps `layers/dense/vars/0`
            and `1` for the top; see `KERAS_3_ORDER` for K. If the network is a layer of another model, its names begin
            with `layers/functional/layers/`.
        backbone: the backbone whose layers these are.
    """
    table = KERAS_NAMES[backbone]
    layers: dict[str, Tensor] = {}
    for name, tensor in found.items():
        root = next((root for root in _KERAS_3_ROOTS if name.startswith(root)), None)
        if root and "/seed_generator" not in name:  # not the optimizer's
            layers[name.removeprefix(root)] = tensor
    layers, left_out = _network(layers, separator="/layers/")
    tensors: dict[str, Tensor] = {}
    for name, tensor in layers.items():
        place = None
        if match := re.fullmatch(r"(conv2d|batch_normalization|dense)(?:_(\d{1,4}))?/vars/(\d)", name):
            kind, group, variable = match[1], int(match[2] or 0), int(match[3])
            if kind != "dense" and group < len(table.units):
                group = table.keras_3_order[group]
            if variable < len(_NUMBERED[kind]):
                place = table.place(kind, group, _NUMBERED[kind][variable])
        tensors[place if place and place not in tensors else f"[{name}]"] = tensor
    return Contents(KERAS_3, backbone, tensors, left_out)


def _network(layers: dict[str, Tensor], *, separator: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Separates a network that is itself a layer, as in Sequential([InceptionV3(…), Dense(2)]), from the others."""
    convolution = r"(conv2d(_\d+)?|block\d_conv\d)"
    inner = re.compile(rf"([^/]+){separator}{convolution}/")
    parents = {match[1] for match in map(inner.match, layers) if match and not re.fullmatch(convolution, match[1])}
    if len(parents) != 1:
        return layers, ()
    prefix = parents.pop() + separator
    inside = {name.removeprefix(prefix): tensor for name, tensor in layers.items() if name.startswith(prefix)}
    return inside, tuple(name for name in layers if not name.startswith(prefix))


def _ranks(names: Iterable[str], kind: str, *, places: int) -> dict[str, int]:
    """Maps each layer of one kind to its place in the order of creation, whatever number the first layer has.

    If there are not exactly `places` such layers, the ranks only serve an error message. They are then counted from 1,
    as in the published files, or from the lowest number if the numbers are not between 1 and `places`, so that the
    strict load can name what is missing or superfluous.
    """
    layers = {name.partition("/")[0] for name in names}
    matches = {layer: re.fullmatch(rf"{kind}(?:_(\d{{1,9}}))?", layer) for layer in layers}
    numbers = {layer: int(match[1] or 0) for layer, match in matches.items() if match}  # Keras 3's first has no number
    ordered = sorted(numbers.values())
    if len(ordered) == places:
        return {layer: ordered.index(number) for layer, number in numbers.items()}
    first = 1 if ordered and ordered[0] >= 1 and ordered[-1] <= places else min(ordered, default=0)
    return {layer: number - first for layer, number in numbers.items()}
