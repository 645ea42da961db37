"""tf.data: JPEGs decoded and resized by TensorFlow's threads, without Keras."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf


def describe() -> dict[str, str]:
    return {"version": f"tensorflow {tf.__version__}", "device": "cpu"}


def decode(*, data: str, size: int, batch: int, reduced: bool = False) -> Callable[[int], None]:
    """Whole images; with `reduced`, libjpeg makes them 2, 4 or 8 times smaller as long as none is enlarged after it."""

    def resized(encoded: tf.Tensor, ratio: int) -> tf.Tensor:
        image = tf.io.decode_jpeg(encoded, channels=3, ratio=ratio)
        small = tf.image.resize(image, (size, size), antialias=True)
        return tf.ensure_shape(tf.cast(tf.round(small), tf.uint8), (size, size, 3))

    def read(file: tf.Tensor) -> tf.Tensor:
        encoded = tf.io.read_file(file)
        if not reduced:
            return resized(encoded, 1)
        least = tf.reduce_min(tf.image.extract_jpeg_shape(encoded)[:2]) // size
        cases = [(least >= ratio, functools.partial(resized, encoded, ratio)) for ratio in (8, 4, 2)]
        return tf.case(cases, default=functools.partial(resized, encoded, 1))

    files = sorted(str(path) for path in Path(data, "train").glob("*/*") if path.is_file())
    images = tf.data.Dataset.from_tensor_slices(files).repeat().map(read, num_parallel_calls=tf.data.AUTOTUNE)
    batches = iter(images.batch(batch))

    def run(calls: int) -> None:
        for _ in range(calls):
            next(batches)

    return run


TASKS = {"decode": decode, "decode_reduced": functools.partial(decode, reduced=True)}
