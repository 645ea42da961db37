"""How the layers of a block are connected, as a table without a framework.

A table maps the name of each layer to its specification, in the order the layers are computed. A layer reads earlier
layers by name; the block's own input is called "input". The last layer is called "output" and is the block's output.
blocks.py makes a Flax module of such a table, and plan.py a description for other runtimes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

INPUT, OUTPUT = "input", "output"
BN_EPSILON = 1e-3  # TF-slim's inception_arg_scope; Keras and torchvision inherit it. Flax's default is 1e-5.

Padding = Literal["SAME", "VALID"]
Shape = tuple[int, int, int]  # height, width, channels


@dataclasses.dataclass(frozen=True)
class OfOne:
    """A layer that reads one other, `input`."""

    input: str

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclasses.dataclass(frozen=True)
class Conv(OfOne):
    """A convolution with ReLU.

    Between them is batch normalisation without scale, or else the convolution has a bias; `Backbone.batch_norm` says
    which.

    Attributes:
        channels: number of output channels of the published network; see `scaled`.
        kernel: height and width.
        stride: along both sides; 1 if the padding is SAME.
        padding: SAME keeps height and width; VALID adds nothing at the border.
    """

    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: Padding = "SAME"


@dataclasses.dataclass(frozen=True)
class MaxPool(OfOne):
    """The largest value of `window` × `window` positions, without padding."""

    window: int = 3
    stride: int = 2


@dataclasses.dataclass(frozen=True)
class AveragePool(OfOne):
    """Means of 3×3 positions with stride 1 and SAME padding; what counts at the border is in `Conventions`."""


@dataclasses.dataclass(frozen=True)
class Concat:
    """The channels of several layers, one after the other."""

    inputs: tuple[str, ...]


Table = Mapping[str, Conv | MaxPool | AveragePool | Concat]


def scaled(channels: int, width: float) -> int:
    """Number of channels of a network that is `width` times as wide as the published one."""
    return max(1, round(channels * width))


def channels_of(table: Table, inputs: int, *, width: float) -> dict[str, int]:
    """Number of channels of the input and of each layer, by name, for an input of `inputs` channels."""
    channels = {INPUT: inputs}
    for name, layer in table.items():
        total = sum(channels[each] for each in layer.inputs)
        channels[name] = scaled(layer.channels, width) if isinstance(layer, Conv) else total
    return channels


def shapes_of(table: Table, shape: Shape, *, width: float) -> dict[str, Shape]:
    """Height, width and channels of the input and of each layer, by name; `width` multiplies the channels."""
    channels = channels_of(table, shape[2], width=width)
    sides = {INPUT: shape[:2]}
    for name, layer in table.items():
        height, breadth = sides[layer.inputs[0]]
        if isinstance(layer, Conv) and layer.padding == "VALID":
            rows, columns = layer.kernel
            height, breadth = (height - rows) // layer.stride + 1, (breadth - columns) // layer.stride + 1
        elif isinstance(layer, MaxPool):
            height, breadth = (1 + (side - layer.window) // layer.stride for side in (height, breadth))
        sides[name] = (height, breadth)
    return {name: (*sides[name], channels[name]) for name in channels}
