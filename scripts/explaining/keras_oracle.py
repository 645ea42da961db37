"""Grad-CAM by Keras and TensorFlow alone: the layers of keras.applications, a head of Keras's layers, GradientTape.

Nothing of jaxcat computes here. Its numbers are put into Keras's layers by the names of weights/keras_names.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from jaxcat.models.backbone import BACKBONES, pooled_blocks
from jaxcat.weights.keras_names import KERAS_NAMES

Tree = Mapping[str, Any]


class KerasGradCam:
    """A network of full width in Keras.

    Args:
        config: the completed configuration of the run; `model.width` is 1.
        params, stats: `{stage: {layer: …}}`, of all stages.
        hidden: names of the layers between the features and the logits.
        dtype: of all that Keras computes.
    """

    def __init__(
        self,
        config: ConfigDict,
        params: Tree,
        stats: Tree,
        *,
        hidden: tuple[str, ...] = (),
        dtype: str = "float32",
    ):
        before, self._dtype = keras.config.dtype_policy(), dtype
        keras.config.set_dtype_policy(dtype)
        try:
            self._model = _model(config, params, stats, hidden=hidden)
        finally:
            keras.config.set_dtype_policy(before)

    def maps(self, inputs: np.ndarray, labels: np.ndarray, *, block: str) -> np.ndarray:
        """Normalised images, float32 (B, H, W, 3), and classes → Grad-CAM of the block, (B, h, w)."""
        with tf.GradientTape() as tape:
            outputs = self._model(tf.constant(inputs.astype(self._dtype)), training=False)
            logits, output = outputs["logits"], outputs[block]
            if logits.shape[1] == 1:
                score = tf.reduce_sum(tf.where(tf.constant(labels) == 1, logits[:, 0], -logits[:, 0]))
            else:
                score = tf.reduce_sum(tf.gather(logits, labels, batch_dims=1))
        gradient = tape.gradient(score, output)
        importance = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
        return tf.nn.relu(tf.reduce_sum(importance * output, axis=-1)).numpy()


def _model(config: ConfigDict, params: Tree, stats: Tree, *, hidden: tuple[str, ...]) -> Any:
    """The network, with the logits and the outputs of all blocks by name."""
    model, side = config.model, config.data.image_size
    names = KERAS_NAMES[model.backbone]
    application = getattr(keras.applications, names.application)
    backbone = application(weights=None, include_top=False, input_shape=(side, side, 3))
    _fill(backbone, names, params, stats)
    blocks = BACKBONES[model.backbone].up_to(model.cut)
    outputs = {block: backbone.get_layer(_output_layer(names, block, backbone)).output for block in blocks}
    features = [_features(outputs[block], model.pool, model.pool_grid) for block in pooled_blocks(model)]
    x = keras.layers.Concatenate()(features) if len(features) > 1 else features[0]
    for name in (*hidden, "logits"):
        layer = keras.layers.Dense(params[name]["bias"].size, activation=None if name == "logits" else "relu")
        x = layer(x)
        layer.set_weights([params[name]["kernel"], params[name]["bias"]])
    return keras.Model(backbone.input, {"logits": x, **outputs})


def _fill(backbone: Any, names: Any, params: Tree, stats: Tree) -> None:
    """Puts the numbers of the stages there are into the layers, which Keras numbers in the order of creation."""
    convolutions = _in_order(backbone, keras.layers.Conv2D)
    norms = _in_order(backbone, keras.layers.BatchNormalization)
    for place, unit in enumerate(names.units):
        stage, layer = unit.split("/")
        if stage not in params:
            continue
        found = params[stage][layer]
        if names.batch_norm:
            stored = stats[stage][layer]["bn"]
            convolutions[place].set_weights([found["conv"]["kernel"]])
            norms[place].set_weights([found["bn"]["bias"], stored["mean"], stored["var"]])
        else:
            convolutions[place].set_weights([found["kernel"], found["bias"]])


def _in_order(backbone: Any, kind: type) -> list[Any]:
    """The layers of one kind as they were created: Keras counts the names of all models, "conv2d_94" after "conv2d"."""
    layers = [layer for layer in backbone.layers if isinstance(layer, kind)]
    if all(layer.name.startswith("block") for layer in layers):
        return layers
    return sorted(layers, key=lambda layer: int(layer.name.rpartition("_")[2]) if layer.name[-1].isdigit() else 0)


def _output_layer(names: Any, block: str, backbone: Any) -> str:
    if block in names.outputs:
        return names.outputs[block]
    poolings = [layer for layer in backbone.layers if isinstance(layer, keras.layers.MaxPooling2D)]
    return poolings[1].name  # the end of Inception's stem, which Keras does not name


def _features(x: Any, pool: str, grid: int) -> Any:
    """The features of one block: cell by cell, all averages, then all standard deviations."""
    layers = keras.layers
    if pool == "flatten":
        return layers.Flatten()(x)
    statistics = {"avg": ["avg"], "max": ["max"], "avg_std": ["avg", "std"]}[pool]
    reductions = {
        "avg": layers.GlobalAveragePooling2D(),
        "max": layers.GlobalMaxPooling2D(),
        "std": layers.Lambda(_deviation),
    }
    height, width = x.shape[1:3]
    found = []
    for statistic in statistics:
        for row in range(grid):
            for column in range(grid):
                top, bottom = row * height // grid, -(-(row + 1) * height // grid)
                left, right = column * width // grid, -(-(column + 1) * width // grid)
                found.append(reductions[statistic](x[:, top:bottom, left:right]))
    return layers.Concatenate()(found) if len(found) > 1 else found[0]


def _deviation(x: Any) -> Any:
    variance = tf.math.reduce_variance(x, axis=(1, 2))
    return tf.sqrt(tf.maximum(variance, 1e-30))  # the root's gradient at 0 is infinite, and Keras would answer NaN
