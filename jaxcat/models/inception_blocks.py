"""The blocks of Inception-v3, in Flax NNX.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (arXiv:1512.00567), as implemented in
keras/src/applications/inception_v3.py. Within a block, convolutions are declared in the order Keras creates them
(`conv2d_1` … `conv2d_94`); weights/keras_names.py holds that order as a table.

Sizes in comments are for an input of 299×299; any height and width of at least 75 pixels work.
"""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxcat.models.layers import ConvBN, Options, average_pool, max_pool


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
