"""Where in an image a network looked: Grad-CAM (Selvaraju et al., arXiv:1610.02391) for one block of a `Network`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from jaxcat.models.network import Network, Tree


def block_map(network: Network, arrays: Tree, images: Array, labels: Array, *, block: str) -> Array:
    """Grad-CAM of one block for a class of each image.

    The score of a class is its logit. With one logit, it is the logit for class 1 and the negative logit for class 0.
    If a block feeds the head directly and through later blocks, the gradient is that of both ways together.

    Args:
        arrays: `{"params", "stats"}` of all stages.
        images: uint8 (B, image_size, image_size, 3).
        labels: of the classes to explain, int32 (B,).
        block: one of `network.blocks`.

    Returns:
        float32 (B, h, w), not negative: h and w are the sides of the block's output. Not divided by the maximum.
    """
    output, maps = network.up_to_block(arrays, images, block=block)
    weights = _logit_weights(labels, network.outputs)

    def score(output: Array) -> Array:  # of all images: each depends on its own output only
        return jnp.sum(weights * network.logits_from_block(arrays, output, maps, block=block))

    return grad_cam(output, jax.grad(score)(output))


def _logit_weights(labels: Array, outputs: int) -> Array:
    """The weights (B, outputs) whose products with the logits add up to the score of each class."""
    if outputs == 1:
        return jnp.where(labels == 1, 1.0, -1.0)[:, None]
    return jax.nn.one_hot(labels, outputs)


def grad_cam(output: Array, gradient: Array) -> Array:
    """A block's output and the gradient of a score with respect to it, both (B, h, w, channels) → map (B, h, w).

    Equations 1 and 2 of the paper: ReLU of the sum over channels of the output, each channel times the mean of its
    gradient.
    """
    importance = jnp.mean(gradient, axis=(1, 2))
    return jax.nn.relu(jnp.einsum("bhwc,bc->bhw", output, importance))
