"""A plan as operations of JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcat.export.network import LOGITS
from jaxcat.models.plan import (
    IMAGE,
    Arrays,
    AveragePooling,
    Concatenation,
    Convolution,
    Dense,
    Features,
    Layer,
    MaxPooling,
    Normalize,
    Plan,
    Statistic,
)
from jaxcat.models.pooling import cells

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def logits_of(plan: Plan, arrays: Mapping[str, Arrays], images: Array) -> Array:
    """Logits float32 (N, outputs) of uint8 images (N, S, S, 3), by all layers of a plan."""
    outputs = {IMAGE: images}
    for layer in plan.layers:
        inputs = [outputs[name] for name in layer.inputs]
        outputs[layer.name] = _output(layer, inputs, arrays.get(layer.name))
    return outputs[LOGITS]


def _output(layer: Layer, inputs: list[Array], arrays: Arrays | None) -> Array:
    x = inputs[0]
    match layer:
        case Normalize():
            ordered = x if layer.channels == "RGB" else x[..., ::-1]
            mean, std = np.array(layer.mean, np.float32), np.array(layer.std, np.float32)
            return (ordered.astype(jnp.float32) / 255 - mean) / std
        case Convolution():
            assert arrays is not None
            strides = (layer.stride, layer.stride)
            kernel = jnp.asarray(arrays.kernel)
            x = lax.conv_general_dilated(x, kernel, strides, layer.padding, dimension_numbers=DIMENSIONS)
            return jax.nn.relu(x + arrays.bias) if layer.relu else x + arrays.bias
        case MaxPooling():
            window, steps = (1, layer.window, layer.window, 1), (1, layer.stride, layer.stride, 1)
            return lax.reduce_window(x, -jnp.inf, lax.max, window, steps, "VALID")
        case AveragePooling():
            inside = np.ones((1, *x.shape[1:3], 1), np.float32)
            counts = layer.window**2 if layer.counts_padding else _sums(inside, layer.window)
            return _sums(x, layer.window) / counts
        case Concatenation() | Features():
            return jnp.concatenate(inputs, axis=-1)
        case Statistic():
            return _statistic(layer, x)
        case Dense():
            assert arrays is not None
            x = x @ arrays.kernel + arrays.bias
            return jax.nn.relu(x) if layer.relu else x
    raise TypeError(f"{type(layer).__name__} is no layer that this writer knows")


def _sums(x: Array | np.ndarray, window: int) -> Array:
    return lax.reduce_window(x, np.float32(0), lax.add, (1, window, window, 1), (1, 1, 1, 1), "SAME")


def _statistic(layer: Statistic, x: Array) -> Array:
    if layer.kind == "flatten":
        return x.reshape(x.shape[0], -1)
    reduce: Callable[..., Array] = {"avg": jnp.mean, "max": jnp.max, "std": jnp.std}[layer.kind]  # type: ignore[assignment]
    height, width = x.shape[1:3]
    found = [reduce(x[:, a:b, c:d], axis=(1, 2)) for a, b, c, d in cells(height, width, layer.grid)]
    return jnp.concatenate(found, axis=-1)
