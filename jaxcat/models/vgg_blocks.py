"""The block of VGG, in Flax NNX."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxcat.models.layers import NoKeys, Options


class VGGBlock(nnx.Module):
    """`count` 3×3 convolutions with bias and ReLU, then 2×2 max pooling; (B, H, W, inputs) → (B, H // 2, W // 2, …)."""

    def __init__(self, inputs: int, count: int, published: int, *, o: Options):
        self.features, self.count = o.channels(published), count
        conv = partial(
            nnx.Conv,
            kernel_size=(3, 3),
            padding="SAME",
            kernel_init=nnx.initializers.zeros,
            dtype=jnp.dtype(o.dtype),
            rngs=NoKeys(),
        )
        for number in range(1, count + 1):
            setattr(self, f"conv{number}", conv(inputs, self.features))
            inputs = self.features

    def __call__(self, x: Array, *, train: bool = False, mask: Array | None = None) -> Array:
        """Ignores `train` and `mask`, which only batch normalisation needs."""
        for number in range(1, self.count + 1):
            x = nnx.relu(getattr(self, f"conv{number}")(x))
        return nnx.max_pool(x, (2, 2), strides=(2, 2))
