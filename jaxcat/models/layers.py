"""Layers of the blocks, in Flax NNX: convolution with batch normalisation, pooling, and the options they share."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

BN_EPSILON = 1e-3  # TF-slim's inception_arg_scope; Keras and torchvision inherit it. Flax's default is 1e-5.


@dataclasses.dataclass(frozen=True)
class Options:
    """Options that all layers of one network share.

    Attributes:
        width: multiplier on every channel count; 1.0 is the published network.
        pool_counts_padding: whether average pooling inside the blocks divides by 9 at the border too (torch weights
            were trained so) or by the number of real pixels (Keras weights).
        bn_momentum: share of the old value kept when batch statistics update the running ones.
        dtype: dtype of the computation; parameters and statistics are always float32.
    """

    width: float = 1.0
    pool_counts_padding: bool = False
    bn_momentum: float = 0.99
    dtype: str = "float32"

    def channels(self, published: int) -> int:
        return max(1, round(published * self.width))


class NoKeys(nnx.Rngs):
    """In place of `nnx.Rngs` for layers that begin with zeros: it draws no keys, which would take twice as long as
    building the layers. initialization.py draws the initial values."""

    def params(self) -> None:
        return None


class ConvBN(nnx.Module):
    """Convolution without bias, batch normalisation without scale, ReLU; (B, H, W, in) → (B, H', W', features)."""

    def __init__(
        self, inputs: int, published: int, kernel=(1, 1), *, stride: int = 1, padding: str = "SAME", o: Options
    ):
        self.features = o.channels(published)
        dtype = jnp.dtype(o.dtype)
        rngs = NoKeys()
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
        """If `train`, normalises by the rows of this batch whose `mask` (B,) is True, and updates the statistics."""
        x = self.conv(x)
        rows = None if mask is None else mask[:, None, None, None]
        return nnx.relu(self.bn(x, use_running_average=not train, mask=rows if train else None))


def max_pool(x: Array) -> Array:
    """Max pooling over 3×3 windows with stride 2; (B, H, W, C) → (B, (H - 1) // 2, (W - 1) // 2, C).

    Computed from strided slices, because the gradient of XLA's own window operation is slow on CPUs
    (docs/benchmarks_log.md). Here, equal maxima share the gradient; in XLA's operation, the first one gets all of it.
    """
    for axis in (1, 2):
        first, second, third = (jax.lax.slice_in_dim(x, at, x.shape[axis] - 2 + at, 2, axis) for at in range(3))
        x = jnp.maximum(jnp.maximum(first, second), third)
    return x


def average_pool(x: Array, *, o: Options) -> Array:
    return nnx.avg_pool(x, (3, 3), strides=(1, 1), padding="SAME", count_include_pad=o.pool_counts_padding)
