"""A plan as TensorFlow operations: what a converted prefix or an exported network is made of.

TensorFlow is imported only when a function of this module is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcat.models.plan import (
    AveragePooling,
    Concatenation,
    Convolution,
    Dense,
    Features,
    Layer,
    MaxPooling,
    Normalize,
    Statistic,
)
from jaxcat.models.pooling import cells

GRAPH_VERSION = 1  # increase it if the operations of a layer change


def outputs_of(
    layers: Iterable[Layer], arrays: Mapping[str, tuple[Any, Any]], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Adds layers of a plan to the graph.

    Args:
        layers: all of them, or a part.
        arrays: the result of `models.plan.folded`, or a `tf.Variable` in place of each array.
        given: what they read of others, by name, such as the images, `IMAGE`, uint8 (B, S, S, 3).

    Returns:
        What was given, and the output of each layer by name, float32: (B, height, width, channels) or (B, features).
    """
    outputs = dict(given)
    for layer in layers:
        inputs = [outputs[name] for name in layer.inputs]
        outputs[layer.name] = _OPERATIONS[type(layer)](layer, inputs, *arrays.get(layer.name, ()))
    return outputs


def _normalize(layer: Normalize, inputs: Sequence[Any]) -> Any:
    import tensorflow as tf

    (images,) = inputs
    ordered = images if layer.channels == "RGB" else images[..., ::-1]
    mean, std = np.array(layer.mean, np.float32), np.array(layer.std, np.float32)
    return (tf.cast(ordered, tf.float32) / 255 - mean) / std


def _convolution(layer: Convolution, inputs: Sequence[Any], kernel: Any, bias: Any) -> Any:
    import tensorflow as tf

    (x,) = inputs
    x = tf.nn.conv2d(x, kernel, strides=layer.stride, padding=layer.padding) + bias
    return tf.nn.relu(x) if layer.relu else x


def _max_pooling(layer: MaxPooling, inputs: Sequence[Any]) -> Any:
    import tensorflow as tf

    (x,) = inputs
    return tf.nn.max_pool2d(x, layer.window, layer.stride, "VALID")


def _average_pooling(layer: AveragePooling, inputs: Sequence[Any]) -> Any:
    import tensorflow as tf

    (x,) = inputs
    if not layer.counts_padding:
        return tf.nn.avg_pool2d(x, layer.window, 1, "SAME")  # divides by the positions inside the map
    border = [layer.window // 2] * 2
    return tf.nn.avg_pool2d(tf.pad(x, [[0, 0], border, border, [0, 0]]), layer.window, 1, "VALID")


def _concatenation(layer: Concatenation | Features, inputs: Sequence[Any]) -> Any:
    import tensorflow as tf

    return tf.concat(inputs, axis=-1)


def _statistic(layer: Statistic, inputs: Sequence[Any]) -> Any:
    import tensorflow as tf

    (x,) = inputs
    if layer.kind == "flatten":
        return tf.reshape(x, [-1, layer.shape[0]])
    reduce = {"avg": _mean, "max": _maximum, "std": _deviation}[layer.kind]
    height, width = x.shape[1:3]
    found = [reduce(x[:, top:bottom, left:right]) for top, bottom, left, right in cells(height, width, layer.grid)]
    return found[0] if len(found) == 1 else tf.concat(found, axis=-1)


def _mean(x: Any) -> Any:
    import tensorflow as tf

    return tf.reduce_mean(x, axis=[1, 2])


def _maximum(x: Any) -> Any:
    import tensorflow as tf

    return tf.reduce_max(x, axis=[1, 2])


def _deviation(x: Any) -> Any:
    """The same formula as in models/head.py: squared deviations are averaged, so that no root is of a negative."""
    import tensorflow as tf

    deviations = x - tf.reduce_mean(x, axis=[1, 2], keepdims=True)
    return tf.sqrt(tf.reduce_mean(tf.square(deviations), axis=[1, 2]))


def _dense(layer: Dense, inputs: Sequence[Any], kernel: Any, bias: Any) -> Any:
    import tensorflow as tf

    (x,) = inputs
    x = tf.matmul(x, kernel) + bias
    return tf.nn.relu(x) if layer.relu else x


_OPERATIONS: dict[type[Layer], Any] = {
    Normalize: _normalize,
    Convolution: _convolution,
    MaxPooling: _max_pooling,
    AveragePooling: _average_pooling,
    Concatenation: _concatenation,
    Statistic: _statistic,
    Features: _concatenation,
    Dense: _dense,
}
