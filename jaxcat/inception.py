"""Inception-v3 as an ordered table of named blocks, in Flax NNX.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (arXiv:1512.00567), as realised by
keras/src/applications/inception_v3.py. Within a block, convolutions are declared in the order Keras creates them
(`conv2d_1` … `conv2d_94`); weights/keras.py holds that order as a table.

Sizes in comments are for an input of 299×299; any height and width of at least 75 pixels work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

BN_EPSILON = 1e-3  # TF-slim's inception_arg_scope; Keras and torchvision inherit it. Flax's default is 1e-5.


@dataclasses.dataclass(frozen=True)
class Options:
    """What every layer of one network shares.

    Attributes:
        width: multiplier on every channel count; 1.0 is the published network.
        pool_counts_padding: whether average pooling inside the blocks divides by 9 at the border too (torch weights
            were trained so) or by the number of real pixels (Keras weights).
        bn_momentum: share of the old value kept when batch statistics update the running ones.
        dtype: dtype of the computation; parameters and statistics are float32 whatever it is.
    """

    width: float = 1.0
    pool_counts_padding: bool = False
    bn_momentum: float = 0.99
    dtype: str = "float32"

    def channels(self, published: int) -> int:
        return max(1, round(published * self.width))


class ConvBN(nnx.Module):
    """Convolution without bias, batch normalisation without scale, ReLU; (B, H, W, in) → (B, H', W', features)."""

    def __init__(
        self, inputs: int, published: int, kernel=(1, 1), *, stride: int = 1, padding: str = "SAME", o: Options
    ):
        self.features = o.channels(published)
        dtype = jnp.dtype(o.dtype)
        rngs = nnx.Rngs(0)  # nothing is drawn from it: network.py initialises from shapes
        self.conv = nnx.Conv(
            inputs,
            self.features,
            kernel,
            strides=stride,
            padding=padding,
            use_bias=False,
            kernel_init=nnx.initializers.zeros,
            dtype=dtype,
            rngs=rngs,
        )
        self.bn = nnx.BatchNorm(
            self.features,
            epsilon=BN_EPSILON,
            momentum=o.bn_momentum,
            use_scale=False,  # the Keras weights have none: the next layer's kernel can absorb it
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, x: Array, *, train: bool = False, mask: Array | None = None) -> Array:
        """`train` normalises by this batch, reading rows where `mask` (B,) is True only, and updates the statistics."""
        x = self.conv(x)
        rows = None if mask is None else mask[:, None, None, None]
        return nnx.relu(self.bn(x, use_running_average=not train, mask=rows if train else None))


def max_pool(x: Array) -> Array:
    """Maxima of 3×3 cells, two apart; (B, H, W, C) → (B, (H - 1) // 2, (W - 1) // 2, C).

    Of strided slices, rows and then columns: on CPUs the gradient of XLA's own operation on windows is many passes over
    the map (docs/benchmarks.md). Equal maxima share the gradient here; there it goes to the first.
    """
    for axis in (1, 2):
        first, second, third = (jax.lax.slice_in_dim(x, at, x.shape[axis] - 2 + at, 2, axis) for at in range(3))
        x = jnp.maximum(jnp.maximum(first, second), third)
    return x


def average_pool(x: Array, *, o: Options) -> Array:
    return nnx.avg_pool(x, (3, 3), strides=(1, 1), padding="SAME", count_include_pad=o.pool_counts_padding)


class Stem(nnx.Module):
    """(B, 299, 299, 3) → (B, 35, 35, 192)."""

    def __init__(self, inputs: int, *, o: Options):
        conv = partial(ConvBN, o=o)
        self.conv1 = conv(inputs, 32, (3, 3), stride=2, padding="VALID")
        self.conv2 = conv(self.conv1.features, 32, (3, 3), padding="VALID")
        self.conv3 = conv(self.conv2.features, 64, (3, 3))
        self.conv4 = conv(self.conv3.features, 80, padding="VALID")
        self.conv5 = conv(self.conv4.features, 192, (3, 3), padding="VALID")
        self.features = self.conv5.features

    def __call__(self, x: Array, **mode) -> Array:
        x = self.conv1(x, **mode)  # 149 × 149 × 32
        x = self.conv2(x, **mode)  # 147 × 147 × 32
        x = self.conv3(x, **mode)  # 147 × 147 × 64
        x = max_pool(x)  # 73 × 73 × 64
        x = self.conv4(x, **mode)  # 73 × 73 × 80
        x = self.conv5(x, **mode)  # 71 × 71 × 192
        return max_pool(x)  # 35 × 35 × 192


class MixedA(nnx.Module):
    """mixed0, mixed1, mixed2: 1×1, 5×5, double 3×3 and pooling side by side; (B, 35, 35, ·) → (B, 35, 35, 256|288)."""

    def __init__(self, inputs: int, pool_features: int, *, o: Options):
        conv, self.o = partial(ConvBN, o=o), o
        self.branch1x1 = conv(inputs, 64)
        self.branch5x5_1 = conv(inputs, 48)
        self.branch5x5_2 = conv(self.branch5x5_1.features, 64, (5, 5))
        self.branch3x3dbl_1 = conv(inputs, 64)
        self.branch3x3dbl_2 = conv(self.branch3x3dbl_1.features, 96, (3, 3))
        self.branch3x3dbl_3 = conv(self.branch3x3dbl_2.features, 96, (3, 3))
        self.branch_pool = conv(inputs, pool_features)
        ends = (self.branch1x1, self.branch5x5_2, self.branch3x3dbl_3, self.branch_pool)
        self.features = sum(end.features for end in ends)

    def __call__(self, x: Array, **mode) -> Array:
        one = self.branch1x1(x, **mode)
        five = self.branch5x5_2(self.branch5x5_1(x, **mode), **mode)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x, **mode), **mode)
        double = self.branch3x3dbl_3(double, **mode)
        pool = self.branch_pool(average_pool(x, o=self.o), **mode)
        return jnp.concatenate([one, five, double, pool], axis=-1)


class MixedB(nnx.Module):
    """mixed3: halves the grid; (B, 35, 35, 288) → (B, 17, 17, 768)."""

    def __init__(self, inputs: int, *, o: Options):
        conv = partial(ConvBN, o=o)
        self.branch3x3 = conv(inputs, 384, (3, 3), stride=2, padding="VALID")
        self.branch3x3dbl_1 = conv(inputs, 64)
        self.branch3x3dbl_2 = conv(self.branch3x3dbl_1.features, 96, (3, 3))
        self.branch3x3dbl_3 = conv(self.branch3x3dbl_2.features, 96, (3, 3), stride=2, padding="VALID")
        self.features = self.branch3x3.features + self.branch3x3dbl_3.features + inputs

    def __call__(self, x: Array, **mode) -> Array:
        three = self.branch3x3(x, **mode)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x, **mode), **mode)
        double = self.branch3x3dbl_3(double, **mode)
        return jnp.concatenate([three, double, max_pool(x)], axis=-1)


class MixedC(nnx.Module):
    """mixed4 … mixed7: 7×7 convolutions factorised into 1×7 and 7×1; (B, 17, 17, 768) → (B, 17, 17, 768)."""

    def __init__(self, inputs: int, inner: int, *, o: Options):
        conv, self.o = partial(ConvBN, o=o), o
        self.branch1x1 = conv(inputs, 192)
        self.branch7x7_1 = conv(inputs, inner)
        self.branch7x7_2 = conv(self.branch7x7_1.features, inner, (1, 7))
        self.branch7x7_3 = conv(self.branch7x7_2.features, 192, (7, 1))
        self.branch7x7dbl_1 = conv(inputs, inner)
        self.branch7x7dbl_2 = conv(self.branch7x7dbl_1.features, inner, (7, 1))
        self.branch7x7dbl_3 = conv(self.branch7x7dbl_2.features, inner, (1, 7))
        self.branch7x7dbl_4 = conv(self.branch7x7dbl_3.features, inner, (7, 1))
        self.branch7x7dbl_5 = conv(self.branch7x7dbl_4.features, 192, (1, 7))
        self.branch_pool = conv(inputs, 192)
        ends = (self.branch1x1, self.branch7x7_3, self.branch7x7dbl_5, self.branch_pool)
        self.features = sum(end.features for end in ends)

    def __call__(self, x: Array, **mode) -> Array:
        one = self.branch1x1(x, **mode)
        seven = self.branch7x7_2(self.branch7x7_1(x, **mode), **mode)
        seven = self.branch7x7_3(seven, **mode)
        double = self.branch7x7dbl_2(self.branch7x7dbl_1(x, **mode), **mode)
        double = self.branch7x7dbl_4(self.branch7x7dbl_3(double, **mode), **mode)
        double = self.branch7x7dbl_5(double, **mode)
        pool = self.branch_pool(average_pool(x, o=self.o), **mode)
        return jnp.concatenate([one, seven, double, pool], axis=-1)


class MixedD(nnx.Module):
    """mixed8: halves the grid; (B, 17, 17, 768) → (B, 8, 8, 1280)."""

    def __init__(self, inputs: int, *, o: Options):
        conv = partial(ConvBN, o=o)
        self.branch3x3_1 = conv(inputs, 192)
        self.branch3x3_2 = conv(self.branch3x3_1.features, 320, (3, 3), stride=2, padding="VALID")
        self.branch7x7x3_1 = conv(inputs, 192)
        self.branch7x7x3_2 = conv(self.branch7x7x3_1.features, 192, (1, 7))
        self.branch7x7x3_3 = conv(self.branch7x7x3_2.features, 192, (7, 1))
        self.branch7x7x3_4 = conv(self.branch7x7x3_3.features, 192, (3, 3), stride=2, padding="VALID")
        self.features = self.branch3x3_2.features + self.branch7x7x3_4.features + inputs

    def __call__(self, x: Array, **mode) -> Array:
        three = self.branch3x3_2(self.branch3x3_1(x, **mode), **mode)
        seven = self.branch7x7x3_2(self.branch7x7x3_1(x, **mode), **mode)
        seven = self.branch7x7x3_4(self.branch7x7x3_3(seven, **mode), **mode)
        return jnp.concatenate([three, seven, max_pool(x)], axis=-1)


class MixedE(nnx.Module):
    """mixed9, mixed10: 3×3 convolutions split into parallel 1×3 and 3×1; (B, 8, 8, ·) → (B, 8, 8, 2048)."""

    def __init__(self, inputs: int, *, o: Options):
        conv, self.o = partial(ConvBN, o=o), o
        self.branch1x1 = conv(inputs, 320)
        self.branch3x3 = conv(inputs, 384)
        self.branch3x3_1x3 = conv(self.branch3x3.features, 384, (1, 3))
        self.branch3x3_3x1 = conv(self.branch3x3.features, 384, (3, 1))
        self.branch3x3dbl_1 = conv(inputs, 448)
        self.branch3x3dbl_2 = conv(self.branch3x3dbl_1.features, 384, (3, 3))
        self.branch3x3dbl_1x3 = conv(self.branch3x3dbl_2.features, 384, (1, 3))
        self.branch3x3dbl_3x1 = conv(self.branch3x3dbl_2.features, 384, (3, 1))
        self.branch_pool = conv(inputs, 192)
        pairs = (self.branch3x3_1x3, self.branch3x3_3x1, self.branch3x3dbl_1x3, self.branch3x3dbl_3x1)
        self.features = sum(end.features for end in (self.branch1x1, *pairs, self.branch_pool))

    def __call__(self, x: Array, **mode) -> Array:
        one = self.branch1x1(x, **mode)
        three = self.branch3x3(x, **mode)
        threes = [self.branch3x3_1x3(three, **mode), self.branch3x3_3x1(three, **mode)]
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x, **mode), **mode)
        doubles = [self.branch3x3dbl_1x3(double, **mode), self.branch3x3dbl_3x1(double, **mode)]
        pool = self.branch_pool(average_pool(x, o=self.o), **mode)
        return jnp.concatenate([one, *threes, *doubles, pool], axis=-1)


# Name → constructor, in the order the data flows. The names are Keras's and the public vocabulary of `model.cut` and
# `model.train_from`; `mixedN` is what Keras calls the concatenation that ends the block.
STAGES: dict[str, Callable[..., nnx.Module]] = {
    "stem": Stem,
    "mixed0": partial(MixedA, pool_features=32),
    "mixed1": partial(MixedA, pool_features=64),
    "mixed2": partial(MixedA, pool_features=64),
    "mixed3": MixedB,
    "mixed4": partial(MixedC, inner=128),
    "mixed5": partial(MixedC, inner=160),
    "mixed6": partial(MixedC, inner=160),
    "mixed7": partial(MixedC, inner=192),
    "mixed8": MixedD,
    "mixed9": MixedE,
    "mixed10": MixedE,
}


def build(cut: str, options: Options) -> dict[str, Any]:
    """Modules by name: the stages from the stem to `cut`, each `(B, H, W, C) → (B, H', W', module.features)`.

    Raises:
        KeyError: `cut` is not a name in `STAGES`.
    """
    names = list(STAGES)
    modules: dict[str, Any] = {}
    features = 3
    for name in names[: names.index(cut) + 1] if cut in STAGES else [cut]:
        modules[name] = STAGES[name](features, o=options)
        features = modules[name].features
    return modules
