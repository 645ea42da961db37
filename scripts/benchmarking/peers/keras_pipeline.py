"""The article's ImageDataGenerator: decoding, resizing and augmenting in one Python thread, as `fit` reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from benchmarking.article import AUGMENTATION


def describe() -> dict[str, str]:
    return {"version": f"keras {tf.keras.__version__}", "device": "cpu"}


def decode_augment(*, data: str, size: int, batch: int) -> Callable[[int], None]:
    generator = tf.keras.preprocessing.image.ImageDataGenerator(**AUGMENTATION)
    flow = generator.flow_from_directory(Path(data) / "train", (size, size), batch_size=batch, class_mode="binary")

    def run(calls: int) -> None:
        for _ in range(calls):
            next(flow)

    return run


TASKS = {"decode_augment": decode_augment}
