"""A network as a flat list of layers that any runtime can compute, and the arrays of these layers.

A plan says what is computed for one image, from its pixels to the logits: nothing about frozen and trained parts,
batches, dropout, the computation's dtype, or the files that the weights came from. Batch normalisation is part of the
convolution before it: `folded` gives kernels and biases that contain it. This module imports no framework.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxcat.models.backbone import BACKBONES, Top, pooled_blocks
from jaxcat.models.pooling import PooledPart, check_grid, hidden_layers, pooled_parts
from jaxcat.models.preprocessing import Channels, Conventions
from jaxcat.models.wiring import (
    BN_EPSILON,
    INPUT,
    OUTPUT,
    AveragePool,
    Concat,
    Conv,
    MaxPool,
    Padding,
    Shape,
    Table,
    shapes_of,
)
from jaxcat.system.files import json_digest

PLAN_VERSION = 1  # increase it if the same description comes to mean another computation

IMAGE = "image"  # what the first layer reads: uint8 (image_size, image_size, 3), RGB


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of a plan.

    Attributes:
        name: "normalize"; STAGE/LAYER, such as "mixed0/branch_pool", where STAGE/output is the output of the block;
            STAGE/STATISTIC, such as "mixed0/avg"; "features"; the name of a dense layer, such as "logits".
        inputs: names of the layers that it reads, all of them earlier in the plan, or `IMAGE`.
        shape: of its output for one image: (height, width, channels), or (features,).
    """

    name: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Normalize(Layer):
    """uint8 RGB pixels → float32 (pixel / 255 - mean) / std, channel by channel, in the order that `channels` names.

    `mean` and `std` are in that order too.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: Channels


@dataclasses.dataclass(frozen=True)
class Convolution(Layer):
    """A convolution with bias. `kernel` is (height, width); its arrays are in the result of `folded`.

    With padding SAME, the stride is 1 and the sides of the kernel are odd, so that both borders get as many zeros.
    """

    kernel: tuple[int, int]
    stride: int
    padding: Padding
    relu: bool


@dataclasses.dataclass(frozen=True)
class MaxPooling(Layer):
    """The largest value of `window` × `window` positions, without padding."""

    window: int
    stride: int


@dataclasses.dataclass(frozen=True)
class AveragePooling(Layer):
    """Means of `window` × `window` positions with stride 1 and SAME padding.

    `counts_padding`: whether a mean at the border divides by all positions of the window, or by those in the map.
    """

    window: int
    counts_padding: bool


@dataclasses.dataclass(frozen=True)
class Concatenation(Layer):
    """The channels of the inputs, one after the other."""


@dataclasses.dataclass(frozen=True)
class Statistic(Layer):
    """A map (height, width, channels) → (features,).

    `kind` avg, max or std: that of each channel in each cell of a `grid` × `grid` division (`pooling.cells`), cell by
    cell from left to right, then from top to bottom. std is the root of the mean squared deviation from the mean.
    `kind` flatten: all values, channels fastest.
    """

    kind: str
    grid: int


@dataclasses.dataclass(frozen=True)
class Features(Layer):
    """The statistics, one after the other."""


@dataclasses.dataclass(frozen=True)
class Dense(Layer):
    """Input times kernel plus bias; with ReLU, unless it gives the logits."""

    relu: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """The layers of a network, or of its first part.

    Attributes:
        layers: each reads earlier ones only.
        parts: the statistics that side by side are the features; () if the plan ends before them.
    """

    layers: tuple[Layer, ...]
    parts: tuple[PooledPart, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the statistics' layers, in the order of `parts`."""
        return tuple(f"{part.block}/{part.statistic}" for part in self.parts)

    @property
    def features(self) -> int:
        """Number of features that the head sees."""
        return sum(part.width for part in self.parts)

    def prefix(self) -> Plan:
        """The layers from the pixels to the statistics, without those of the head."""
        return Plan(tuple(layer for layer in self.layers if not isinstance(layer, Features | Dense)), self.parts)

    def up_to(self, block: str) -> Plan:
        """The layers that the statistics of this block are computed from: up to the block's output, no statistics.

        It does not depend on which blocks and statistics are pooled. Raises ValueError if the plan has no such block.
        """
        names = [layer.name for layer in self.layers]
        upstream = self.layers[: 1 + names.index(f"{block}/{OUTPUT}")]
        return Plan(tuple(layer for layer in upstream if not isinstance(layer, Statistic)), ())

    def describe(self) -> dict[str, Any]:
        """The structure as plain JSON: what each layer is, reads and gives."""
        layers = [{"layer": type(layer).__name__, **dataclasses.asdict(layer)} for layer in self.layers]
        plain = {"version": PLAN_VERSION, "layers": layers, "outputs": self.outputs}
        return json.loads(json.dumps(plain))  # tuples become lists

    def digest(self) -> str:
        """SHA-256 of `describe`, as hexadecimal digits."""
        return json_digest(self.describe())


def plan_of(
    model: ConfigDict, *, image_size: int, conventions: Conventions, classes: int, top: Top | None = None
) -> Plan:
    """The whole network that `Network` builds from the same arguments.

    Args:
        model: the section `model` of a configuration, completed by `completion.complete`.
        image_size: pixels a side.
        conventions: those of the parameters that will be used.
        classes: number of classes; two give one logit.
        top: published classification layers in place of the head that `model` describes.

    Raises:
        ConfigError: `pool_grid` is finer than the map it pools.
    """
    backbone, pooled, kind = BACKBONES[model.backbone], pooled_blocks(model), top.pool if top else model.pool
    pixels, shape = conventions.preprocessing, (image_size, image_size, 3)
    layers: list[Layer] = [Normalize("normalize", (IMAGE,), shape, pixels.mean, pixels.std, pixels.channels)]
    last = layers[0]
    parts: list[PooledPart] = []
    for block in backbone.up_to(model.cut):
        layers += _of_block(block, backbone.wiring[block], last, width=model.width, conventions=conventions)
        last = layers[-1]
        if block in pooled:
            found = pooled_parts(kind, model.pool_grid, {block: _map(last)})
            layers += (
                Statistic(f"{block}/{part.statistic}", (last.name,), (part.width,), part.statistic, model.pool_grid)
                for part in found
            )
            parts += found
    check_grid(model, _map(last), image_size=image_size)
    plan = Plan(tuple(layers), tuple(parts))
    widths = {**hidden_layers(model, top), "logits": 1 if classes == 2 else classes}
    head: list[Layer] = [Features("features", plan.outputs, (plan.features,))]
    for name, width in widths.items():
        head.append(Dense(name, (head[-1].name,), (width,), relu=name != "logits"))
    return Plan((*plan.layers, *head), plan.parts)


def _map(layer: Layer) -> Shape:
    """The shape of a layer's output, which must be a map."""
    height, width, channels = layer.shape
    return height, width, channels


def _of_block(block: str, table: Table, before: Layer, *, width: float, conventions: Conventions) -> Iterator[Layer]:
    """The layers of a block that reads the layer `before`."""
    shapes = shapes_of(table, _map(before), width=width)
    names = {INPUT: before.name} | {name: f"{block}/{name}" for name in table}
    for name, layer in table.items():
        common = names[name], tuple(names[each] for each in layer.inputs), shapes[name]
        match layer:
            case Conv():
                yield Convolution(*common, layer.kernel, layer.stride, layer.padding, relu=True)
            case MaxPool():
                yield MaxPooling(*common, layer.window, layer.stride)
            case AveragePool():
                yield AveragePooling(*common, window=3, counts_padding=conventions.pool_counts_padding)
            case Concat():
                yield Concatenation(*common)


class Arrays(NamedTuple):
    """The arrays of a layer, float32.

    Attributes:
        kernel: (height, width, inputs, outputs) of a convolution, (inputs, outputs) of a dense layer.
        bias: (outputs,).
    """

    kernel: np.ndarray
    bias: np.ndarray


def folded(plan: Plan, params: Mapping[str, Any], stats: Mapping[str, Any]) -> dict[str, Arrays]:
    """The arrays of every convolution and dense layer of the plan, by the layer's name.

    Batch normalisation by stored statistics, (x - mean) / sqrt(var + epsilon) + bias, becomes part of the kernel and
    the bias. That is computed in float64 and rounded once; all other arrays are unchanged.

    Args:
        plan: a whole network or a part of one; `params` and `stats` need not have other stages.
        params, stats: `{stage: {layer: …}}` as `Network` has them, of NumPy or JAX arrays.

    Raises:
        KeyError: they lack a layer.
    """
    arrays = {}
    for layer in plan.layers:
        if isinstance(layer, Convolution):
            stage, name = layer.name.split("/")
            found = params[stage][name]
            arrays[layer.name] = _normalized(found, stats[stage][name]["bn"]) if "bn" in found else _plain(found)
        elif isinstance(layer, Dense):
            arrays[layer.name] = _plain(params[layer.name])
    return arrays


def _plain(found: Mapping[str, Any]) -> Arrays:
    return Arrays(np.asarray(found["kernel"], np.float32), np.asarray(found["bias"], np.float32))


def _normalized(found: Mapping[str, Any], stored: Mapping[str, Any]) -> Arrays:
    mean, var = np.asarray(stored["mean"], np.float64), np.asarray(stored["var"], np.float64)
    scale = 1 / np.sqrt(var + BN_EPSILON)
    kernel = np.asarray(found["conv"]["kernel"], np.float64) * scale
    bias = np.asarray(found["bn"]["bias"], np.float64) - mean * scale
    return Arrays(kernel.astype(np.float32), bias.astype(np.float32))
