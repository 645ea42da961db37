"""A batch of images in chunks, each of which stays in the processor's cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import Array

# On a CPU the prefix goes through a batch in chunks of about four images of 299 px, whose activations stay in the
# processor's cache: 8 % more images/s at 299 px on 2 cores (docs/benchmarks_log.md). Results may differ by rounding.
CHUNK_PIXELS = 4 * 299 * 299


def in_chunks(forward: Callable[[Array], Any], images: Array) -> Any:
    """The result of `forward` for all images (B, H, W, 3), computed in chunks: arrays (B, …); see CHUNK_PIXELS."""
    count, chunk = len(images), _chunk(images.shape)
    if chunk == count:
        return forward(images)
    outputs = jax.lax.map(forward, images.reshape(count // chunk, chunk, *images.shape[1:]))
    return jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), outputs)


def _chunk(shape: tuple[int, ...]) -> int:
    """Number of images of a batch (B, H, W, 3) that go through the prefix at once; a divisor of B.

    It is B on accelerators, which are fast with large batches; if several devices share the batch; and if all
    divisors are far below the wanted number, because very small chunks are slow.
    """
    count, height, width = shape[:3]
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return count
    most = max(1, CHUNK_PIXELS // (height * width))
    chunk = max(divisor for divisor in range(1, count + 1) if count % divisor == 0 and divisor <= most)
    return chunk if 2 * chunk >= most else count
