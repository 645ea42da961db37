"""A step in parts: the batch goes through the suffix in equal parts, one after the other, whose gradients are added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcat.data.batches import at_most
from jaxcat.errors import ConfigError
from jaxcat.system.devices import padded_batch_size
from jaxcat.wording import counted

# Folded into the step's key, so that the draws of parts are independent of those of mixing (mixing.py).
OF_PARTS = 2


def check_parts(config: ConfigDict, *, images: int, mesh: Mesh) -> None:
    """Checks that each device can divide its rows of a batch into `optim.accumulate` parts.

    Args:
        config: the config of the run.
        images: number of images in train; a batch has at most as many rows.
        mesh: the mesh of all devices.

    Raises:
        ConfigError: a device's share of the batch is no multiple of the number of parts.
    """
    parts, batch_size = config.optim.accumulate, at_most(images, config.batch_size)
    share = padded_batch_size(batch_size, mesh) // mesh.size
    if share % parts:
        raise ConfigError(
            f"--config.optim.accumulate={parts}: each of {mesh.size} devices has {counted(share, 'row')} of a batch of "
            f"{batch_size}, and {share} is no multiple of {parts}: set --config.batch_size to a multiple of "
            f"{parts * mesh.size}, or accumulate to 1"
        )


def divided(rows: Any, parts: int) -> Any:
    """A tree of arrays (B, …) → (parts, B / parts, …). Part i has rows i, i + parts, …: each device divides its own."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, parts, *leaf.shape[1:]).swapaxes(0, 1), rows)


def added(function: Callable[[Any, Array], Any], rows: Any, *, parts: int, key: Array) -> Any:
    """The sum of what `function` gives for each part of the rows, a tree of arrays.

    Args:
        function: (rows of a part, its key) → a tree of arrays.
        rows: a tree of arrays (B, …), B a multiple of `parts`.
        parts: number of parts.
        key: the parts get different keys made of it.
    """

    of_parts = jax.random.fold_in(key, OF_PARTS)

    def add(total: Any, part: tuple[Array, Any]) -> tuple[Any, None]:
        number, rows = part
        return jax.tree.map(jnp.add, total, function(rows, jax.random.fold_in(of_parts, number))), None

    inputs = (jnp.arange(parts), divided(rows, parts))
    like = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], inputs[1]), key)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    if jax.default_backend() != "cpu":
        return jax.lax.scan(add, zeros, inputs)[0]
    # On a CPU, gradients of convolutions are about 8 times slower in a loop. Written out, each part has to wait for the
    # one before it; else all would be in memory at once. The barrier needs `compilation.jit(keep_barriers=True)`.
    total = zeros
    for number in range(parts):
        part = jax.tree.map(lambda leaf, number=number: leaf[number], inputs)
        total, _ = add(*jax.lax.optimization_barrier((total, part)))
    return total
