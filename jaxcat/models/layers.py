"""Layers of the blocks, in Flax NNX: convolution with batch normalisation, pooling, and the options they share."""

from __future__ import annotations

import dataclasses
from functools import reduce

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxcat.models.wiring import BN_EPSILON, scaled


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
        return scaled(published, self.width)


class NoKeys(nnx.Rngs):
    """Replaces `nnx.Rngs` for layers that begin with zeros; initialization.py draws the initial values.

    It draws no keys, which would take twice as long as building the layers.
    """

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


def max_pool(x: Array, window: int = 3, stride: int = 2) -> Array:
    """Max pooling over `window` × `window` positions without padding.

    (B, H, W, C) → (B, 1 + (H - window) // stride, 1 + (W - window) // stride, C). If windows overlap, it is computed
    from strided slices, because the gradient of XLA's own window operation is slow on CPUs (docs/benchmarks_log.md).
    Then equal maxima share the gradient; in XLA's operation, the first one gets all of it.
    """
    if window <= stride:
        return nnx.max_pool(x, (window, window), strides=(stride, stride))
    for axis in (1, 2):
        end = x.shape[axis] - window + 1
        x = reduce(jnp.maximum, [jax.lax.slice_in_dim(x, at, end + at, stride, axis) for at in range(window)])
    return x


def average_pool(x: Array, *, o: Options) -> Array:
    return nnx.avg_pool(x, (3, 3), strides=(1, 1), padding="SAME", count_include_pad=o.pool_counts_padding)
