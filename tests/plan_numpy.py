"""Computes a plan with NumPy alone, in float64 and as the plan's own docstrings define each layer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

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


def computed(
    plan: Plan, arrays: Mapping[str, Arrays], image: np.ndarray, known: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """The output of every layer for one image, uint8 (H, W, 3) RGB; those that are `known` are taken as they are."""
    values = {IMAGE: image, **(known or {})}
    for layer in plan.layers:
        if layer.name in values:
            continue
        values[layer.name] = output = _output(layer, [values[name] for name in layer.inputs], arrays.get(layer.name))
        assert output.shape == layer.shape, layer
    return values


def _output(layer: Layer, inputs: list[np.ndarray], arrays: Arrays | None) -> np.ndarray:
    x = inputs[0]
    match layer:
        case Normalize():
            ordered = x if layer.channels == "RGB" else np.flip(x, axis=2)
            return (ordered / 255.0 - np.array(layer.mean)) / np.array(layer.std)
        case Convolution():
            if layer.padding == "SAME":
                x = np.pad(x, [(side // 2, side // 2) for side in layer.kernel] + [(0, 0)])
            windows = _windows(x, layer.kernel, layer.stride)
            x = np.tensordot(windows, np.moveaxis(np.float64(arrays.kernel), 2, 0), axes=3) + arrays.bias
            return np.maximum(x, 0) if layer.relu else x
        case MaxPooling():
            return _windows(x, (layer.window, layer.window), layer.stride).max(axis=(3, 4))
        case AveragePooling():
            border = [(layer.window // 2,) * 2] * 2 + [(0, 0)]
            sums, counts = (
                _windows(np.pad(values, border), (layer.window, layer.window), 1).sum(axis=(3, 4))
                for values in (x, np.ones_like(x))
            )
            return sums / (layer.window**2 if layer.counts_padding else counts)
        case Concatenation():
            return np.concatenate(inputs, axis=2)
        case Statistic(kind="flatten"):
            return x.reshape(-1)
        case Statistic():
            reduce = {"avg": np.mean, "max": np.max, "std": np.std}[layer.kind]
            rows, columns = ([(i * side // layer.grid, -(-(i + 1) * side // layer.grid)) for i in range(layer.grid)]
                             for side in x.shape[:2])  # fmt: skip
            return np.concatenate([reduce(x[a:b, c:d], axis=(0, 1)) for a, b in rows for c, d in columns])
        case Features():
            return np.concatenate(inputs)
        case Dense():
            x = x @ np.float64(arrays.kernel) + arrays.bias
            return np.maximum(x, 0) if layer.relu else x
    raise AssertionError(layer)


def _windows(x: np.ndarray, window: tuple[int, int], stride: int) -> np.ndarray:
    """(H, W, C) → (H', W', C, *window)."""
    return sliding_window_view(x, window, axis=(0, 1))[::stride, ::stride]
