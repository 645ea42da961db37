"""The article's ImageDataGenerator: decoding, resizing and augmenting in one Python thread, as `fit` reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf


def describe() -> dict[str, str]:
    return {"version": f"keras {tf.keras.__version__}", "device": "cpu"}


def decode_augment(*, data: str, size: int, batch: int) -> Callable[[int], None]:
    generator = tf.keras.preprocessing.image.ImageDataGenerator(
        rescale=1 / 255,
        rotation_range=40,
        width_shift_range=0.2,
        height_shift_range=0.2,
        shear_range=0.2,
        zoom_range=0.2,
        horizontal_flip=True,
    )
    flow = generator.flow_from_directory(Path(data) / "train", (size, size), batch_size=batch, class_mode="binary")

    def run(calls: int) -> None:
        for _ in range(calls):
            next(flow)

    return run


TASKS = {"decode_augment": decode_augment}
