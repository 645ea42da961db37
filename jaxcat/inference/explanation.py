"""Where a classifier looked: heat maps by Grad-CAM, their place on the original image, and their colours.

    heat_maps = classifier.explain(["cat.jpg"])  # on the square that the network sees

For the original image:

    raw, = classifier.xla.raw_maps([classifier.prepare("cat.jpg")], [label])
    image = classifier.decode("cat.jpg")
    heat = placed(normalized(raw), shape=image.shape[:2], size=data.image_size, mode=data.resize)
    shown = overlay(image, heat)
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from jaxcat.data.images.resizing import seen
from jaxcat.errors import ConfigError
from jaxcat.models.backbone import BACKBONES
from jaxcat.wording import counted, did_you_mean, not_one_of, printable

PALETTE = "turbo"  # of matplotlib: its upper half shows on dark and on bright photographs, the rest is transparent


def block_to_explain(model: ConfigDict, block: str, *, named: str = "block=") -> str:
    """The block of a completed section `model` whose map is asked for; "" is the last one that the head reads.

    Raises:
        ConfigError: there is no such block, or the head does not depend on it. The message begins with `named`.
    """
    stages = BACKBONES[model.backbone].stages
    if not block:
        return model.cut
    if problem := not_one_of(block, stages):
        raise ConfigError(f"{named}{block}: {problem}")
    if stages.index(block) > stages.index(model.cut):
        raise ConfigError(
            f"{named}{block} comes after {model.cut}, the last block that the head reads: use {model.cut} or an "
            "earlier one"
        )
    return block


def labels_of(names: Sequence[str], classes: Sequence[str], *, images: int) -> list[int]:
    """The numbers of the classes to explain, from their names, one for each of so many images.

    Raises:
        ConfigError: a class that the classifier does not know, or another number of names.
    """
    if isinstance(names, str) or len(names) != images:
        given = f"{names!r}" if isinstance(names, str) else counted(len(names), "name")
        raise ConfigError(f"classes: {given} for {counted(images, 'image')}; give a list with one name for each image")
    labels = {name: label for label, name in enumerate(classes)}
    for name in names:
        if name not in labels:
            raise ConfigError(
                f"classes: {printable(str(name))} is none of the {counted(len(classes), 'class', 'classes')} of this "
                f"classifier{did_you_mean(str(name), classes)}"
            )
    return [labels[name] for name in names]


def normalized(raw: np.ndarray) -> np.ndarray:
    """A raw map divided by its maximum, float32; a map without any positive value stays 0."""
    most = raw.max()
    return (raw / most if most > 0 else np.zeros_like(raw)).astype(np.float32)


def placed(
    heat: np.ndarray, *, shape: tuple[int, int], size: int, mode: str, output: tuple[int, int] | None = None
) -> np.ndarray:
    """A map (h, w) on the original image: float32 (H, W), 0 where the network did not see it.

    The cells of the map are spread evenly over the part of the image that the network saw, and values between their
    centres are interpolated linearly, as is usual for Grad-CAM.

    Args:
        shape: height and width of the original image, decoded and upright.
        size, mode: how it was made square: `data.image_size` and `data.resize`.
        output: height and width (H, W) of the result; by default those of the image. For a smaller copy of it.
    """
    left, top, right, bottom = seen(shape, size, mode=mode)
    height, width = output or shape
    rows = _interpolation(heat.shape[0], (top / shape[0], bottom / shape[0]), height)
    columns = _interpolation(heat.shape[1], (left / shape[1], right / shape[1]), width)
    return rows @ heat.astype(np.float32) @ columns.T


def _interpolation(cells: int, part: tuple[float, float], count: int) -> np.ndarray:
    """The matrix, float32 (count, cells), from values of cells along one side to values of its pixels.

    `part` is where the cells begin and end, as shares of the side. Rows of pixels outside of it are 0.
    """
    begin, end = part[0] * count, part[1] * count
    centres = np.arange(count) + 0.5
    place = np.clip((centres - begin) / (end - begin) * cells - 0.5, 0, cells - 1)
    before = np.minimum(place.astype(np.int64), max(0, cells - 2))
    matrix = np.zeros((count, cells), np.float32)
    pixels = np.arange(count)
    matrix[pixels, before] = 1 - (place - before)
    if cells > 1:
        matrix[pixels, before + 1] = place - before
    slack = 1e-6 * count  # of floating-point numbers: a pixel whose centre is at the border counts
    matrix[(centres < begin - slack) | (centres > end + slack)] = 0
    return matrix


def colours(heat: np.ndarray) -> np.ndarray:
    """A map (H, W) of values in [0, 1] → uint8 (H, W, 4), RGB and alpha: transparent at 0, opaque at 1."""
    levels = np.rint(255 * np.clip(heat, 0, 1)).astype(np.uint8)
    return np.dstack([_palette()[levels], levels])


def overlay(image: np.ndarray, heat: np.ndarray, *, opacity: float = 0.5) -> np.ndarray:
    """The colours of a map over an image, both (H, W): uint8 (H, W, 3).

    Args:
        image: uint8 (H, W, 3).
        heat: float (H, W) in [0, 1].
        opacity: of the colours where the map is 1.
    """
    drawn = colours(heat)
    share = drawn[..., 3:].astype(np.float32) * np.float32(opacity / 255)
    return np.rint(image + share * (drawn[..., :3].astype(np.float32) - image)).astype(np.uint8)


@functools.cache
def _palette() -> np.ndarray:
    """The colours of 256 levels, uint8 (256, 3)."""
    from matplotlib import colormaps  # importing it takes a fifth of a second, which answers alone need not wait for

    return np.rint(255 * colormaps[PALETTE](np.arange(256))[:, :3]).astype(np.uint8)
