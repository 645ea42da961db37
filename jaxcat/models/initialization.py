"""The first values of parameters and BatchNorm statistics that no weights and no other run give."""

from __future__ import annotations

import math
import zlib
from functools import partial
from typing import Any

import jax
import numpy as np


def fresh(shapes: dict[str, Any], *, seed: int) -> dict[str, Any]:
    """A tree of `jax.ShapeDtypeStruct`s → the same tree of fresh values, float32 numpy.

    Convolutions: He normal (arXiv:1502.01852). Dense: Glorot uniform, as keras.layers.Dense. A leaf depends on the
    seed, its path and its shape only, not on the other leaves. Values are drawn with NumPy, because compiling an
    initialiser for 94 convolutions takes longer than training a small head.
    """
    return jax.tree_util.tree_map_with_path(partial(_draw, seed=seed), shapes)


def _draw(path: tuple, leaf: jax.ShapeDtypeStruct, *, seed: int) -> np.ndarray:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if not name.endswith("kernel"):
        return np.full(leaf.shape, 1.0 if name.endswith("var") else 0.0, np.float32)
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    fan_in, fan_out = math.prod(leaf.shape[:-1]), leaf.shape[-1]
    if len(leaf.shape) == 4:
        return generator.standard_normal(leaf.shape, np.float32) * np.float32(math.sqrt(2 / fan_in))
    limit = np.float32(math.sqrt(6 / (fan_in + fan_out)))
    return (generator.random(leaf.shape, np.float32) * 2 - 1) * limit
