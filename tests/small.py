"""Small things the tests share: a tiny configuration, a folder of drawn images, a network with numbers in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image, ImageDraw

from jaxcat.config import default
from jaxcat.models.completion import complete
from jaxcat.models.network import Network
from jaxcat.models.preprocessing import Conventions
from jaxcat.train import train

SHAPES = ("disc", "square", "cross")


def slow_except(quick: Sequence, values: Iterable) -> list:
    """Parameters of a test of which those that are not `quick` are tried by the whole suite only."""
    assert all(each in values for each in quick), quick
    return [each if each in quick else pytest.param(each, marks=pytest.mark.slow) for each in values]


def draw(shape: str, generator: np.random.Generator, size: int = 90) -> Image.Image:
    """A bright shape, anywhere, on a dark noisy ground."""
    noise = generator.integers(0, 60, (size, size, 3), np.uint8)
    image = Image.fromarray(noise)
    pen = ImageDraw.Draw(image)
    radius = int(generator.integers(size // 6, size // 4))
    x, y = (int(v) for v in generator.integers(radius, size - radius, 2))
    colour = tuple(int(v) for v in generator.integers(150, 255, 3))
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "disc":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    else:
        pen.line((box[0], box[1], box[2], box[3]), fill=colour, width=8)
        pen.line((box[0], box[3], box[2], box[1]), fill=colour, width=8)
    return image


def image_folder(
    root: Path, *, train: int = 12, validation: int = 6, classes: tuple[str, ...] = SHAPES[:2], seed: int = 0
) -> Path:
    """`root/{train,validation}/CLASS/NN.png`, `train` and `validation` of each class."""
    generator = np.random.default_rng(seed)
    for split, count in (("train", train), ("validation", validation)):
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                draw(name, generator).save(folder / f"{i:03}.png")
    return root


def tiny_config(folder: Path | None = None) -> ConfigDict:
    """A network of 1/16 of the width cut at mixed0, trained from scratch at 75 px: seconds on a CPU."""
    config = default()
    if folder is None:
        config.data.source = "digits"
        config.data.train_size, config.data.validation_size = 40, 20
    else:
        config.data.dir = str(folder)
    config.data.image_size = 75
    config.model.weights = "none"
    config.model.width = 1 / 16
    config.model.cut = "mixed0"
    config.batch_size = 8
    config.epochs = 2
    config.optim.learning_rate = 1e-3
    return config


def one_epoch(folder: Path, workdir: Path) -> Path:
    """The workdir of a finished run of one epoch with `tiny_config`."""
    config = tiny_config(folder)
    config.epochs = 1
    assert train(config, workdir) == 0
    return workdir


def network(config: ConfigDict, classes: int = 2, conventions: Conventions | None = None) -> Network:
    complete(config)
    return Network(
        config.model,
        classes=classes,
        image_size=config.data.image_size,
        conventions=conventions or Conventions(),
    )


def images(count: int, size: int = 75, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


class InterruptedAt:
    """In place of `loop.Interruption`: asks to stop at the n-th look of a start, as a SIGTERM would; never at 0.

    Every step and every batch of validation is a look; decoding fewer than 128 images has none.
    """

    def __init__(self, at: int):
        self.at, self.looks, self.status = at, 0, 0

    def __call__(self, mesh) -> InterruptedAt:
        self.looks = self.status = 0
        return self

    def __enter__(self) -> InterruptedAt:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def stop(self) -> int:
        self.looks += 1
        self.status = 143 if self.looks == self.at else 0
        return self.status
