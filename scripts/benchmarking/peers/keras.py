"""keras.applications.InceptionV3 on the backend that KERAS_BACKEND names: tensorflow (`tf.function`) or jax."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

BACKEND = keras.backend.backend()

if BACKEND == "tensorflow":
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)  # the other peers live on the same device
else:
    import jax


def describe() -> dict[str, str]:
    if BACKEND == "tensorflow":
        return {
            "version": f"keras {keras.__version__}, tensorflow {tf.__version__}",
            "device": tf.config.list_logical_devices()[-1].name,
        }
    return {"version": f"keras {keras.__version__}, jax {jax.__version__}", "device": str(jax.devices()[0])}


def device_memory() -> int | None:
    if BACKEND == "tensorflow" and tf.config.list_logical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return None


def forward(*, size: int, batch: int, dtype: str) -> Callable[[int], None]:
    model = _model(size, dtype, "head")
    x, _ = _batch(size, batch)
    if BACKEND == "tensorflow":
        function = tf.function(lambda x: model(x, training=False))
        x = tf.constant(x)

        def run(calls: int) -> None:
            for _ in range(calls):
                result = function(x)
            result.numpy()

        return run
    trained = [variable.value for variable in model.trainable_variables]
    others = [variable.value for variable in model.non_trainable_variables]
    function = jax.jit(lambda trained, others, x: model.stateless_call(trained, others, x, training=False)[0])
    x = jax.device_put(x)

    def run_jax(calls: int) -> None:
        for _ in range(calls):
            result = function(trained, others, x)
        result.block_until_ready()

    return run_jax


def step(*, size: int, batch: int, dtype: str, train_from: str) -> Callable[[int], None]:
    """What `fit` calls for every batch on TensorFlow, `train_on_batch` on JAX."""
    model = _model(size, dtype, train_from)
    model.compile(loss="binary_crossentropy", optimizer=keras.optimizers.RMSprop(1e-6), metrics=["accuracy"])
    x, y = _batch(size, batch)
    if BACKEND == "tensorflow":
        model.make_train_function()
        iterator = iter(tf.data.Dataset.from_tensors((x, y)).repeat())

        def run(calls: int) -> None:
            for _ in range(calls):
                logs = model.train_function(iterator)
            logs["loss"].numpy()

        return run
    x, y = jax.device_put(x), jax.device_put(y)

    def run_jax(calls: int) -> None:
        for _ in range(calls):
            model.train_on_batch(x, y)  # returns the loss as a number, so it waits

    return run_jax


TASKS = {"forward": forward, "step": step}


def _model(size: int, dtype: str, train_from: str) -> Any:
    """BatchNorm runs on its stored statistics in every case, as Keras's guide to fine-tuning says and jaxcat does."""
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if dtype == "bfloat16" else "float32")
    keras.utils.set_random_seed(0)
    backbone = keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(size, size, 3))
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.kernel.assign(keras.initializers.HeNormal()(layer.kernel.shape))
    names = [layer.name for layer in backbone.layers]
    after = {"head": "mixed10", "mixed8": "mixed7", "stem": names[0]}[train_from]  # what the first trained layer reads
    for layer in backbone.layers[: names.index(after) + 1]:
        layer.trainable = False
    inputs = keras.Input((size, size, 3))
    x = keras.layers.GlobalAveragePooling2D()(backbone(inputs, training=False))
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", dtype="float32")(x))


def _batch(size: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.random((batch, size, size, 3), np.float32) * 2 - 1
    return x, generator.integers(0, 2, (batch, 1)).astype(np.float32)
