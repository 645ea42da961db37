"""Images of any size → squares: the table `RESIZES`, and `resize`. Pillow only.

Pillow resizes rows and columns one after the other and rounds to whole levels between them, so the order of the two
shows: a level here and there. Its versions choose the order by different rules, so `_scaled` chooses it itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

# Raise this version if the pixels of a mode change. It is part of every bottleneck's key and stored with every run;
# tests/test_golden.py fails if the pixels change and the version does not.
RESIZE_VERSION = 2  # 1 left the order of the two passes to Pillow

Box = tuple[float, float, float, float]


class Resize(NamedTuple):
    """One row of `RESIZES`.

    Attributes:
        meaning: one line for `--help`.
        function: (uint8 (H, W, 3), size) → uint8 (size, size, 3).
    """

    meaning: str
    function: Callable[[np.ndarray, int], np.ndarray]


def resize(image: np.ndarray, size: int, *, mode: str) -> np.ndarray:
    """Resizes to a square, with antialiasing (the filter widens with the reduction).

    Args:
        image: uint8 (H, W, 3).
        size: side of the result in pixels.
        mode: a name in `RESIZES`.

    Returns:
        uint8 (size, size, 3).

    Raises:
        ValueError: `mode` is not in `RESIZES`.
    """
    if mode not in RESIZES:
        raise ValueError(f"mode={mode!r}; use one of {', '.join(RESIZES)}")
    return RESIZES[mode].function(image, size)


def _squash(image: np.ndarray, size: int) -> np.ndarray:
    return _bilinear(image, size, box=None)


def _center_crop(image: np.ndarray, size: int) -> np.ndarray:
    height, width = image.shape[:2]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return _bilinear(image, size, box=(left, top, left + side, top + side))


def _bilinear(image: np.ndarray, size: int, *, box: Box | None) -> np.ndarray:
    """Resizes the part of an image inside `box` (left, top, right, bottom), or all if None, to a square."""
    if image.shape == (size, size, 3):
        return image
    return np.asarray(_scaled(image, (size, size), Image.Resampling.BILINEAR, box=box))


def _scaled(
    image: np.ndarray, size: tuple[int, int], kernel: Image.Resampling, *, box: Box | None = None
) -> Image.Image:
    """Resizes (H, W, 3), or the part inside `box`, to `size` (width, height): each row first, then each column.

    If the height loses more than twice as many pixels as the width, each column comes first: that is faster, and what
    Pillow 13 does by itself.
    """
    (width, height), (tall, wide) = size, image.shape[:2]
    left, top, right, bottom = box or (0, 0, wide, tall)
    columns_first = tall > height and tall - height > 2 * (wide - width)
    stored = Image.fromarray(image)
    if columns_first:
        narrow = stored.resize((wide, height), kernel, box=(0, top, wide, bottom))
        return narrow.resize((width, height), kernel, box=(left, 0, right, height))
    low = stored.resize((width, tall), kernel, box=(left, 0, right, tall))
    return low.resize((width, height), kernel, box=(0, top, width, bottom))


def _timm(image: np.ndarray, size: int) -> np.ndarray:
    return _resize_middle(image, size, shorter=math.floor(size / 0.875), kernel=Image.Resampling.BICUBIC)


def _torchvision(image: np.ndarray, size: int) -> np.ndarray:
    return _resize_middle(image, size, shorter=round(size * 342 / 299), kernel=Image.Resampling.BILINEAR)


def _resize_middle(image: np.ndarray, size: int, *, shorter: int, kernel: Image.Resampling) -> np.ndarray:
    """Brings the shorter side to `shorter` pixels and takes the middle `size` × `size` of the result.

    The steps and the rounding are those of torchvision.transforms Resize and CenterCrop. If one side is more
    than eight times as long as the other, only the middle is resized, so that no huge image is made on the way.
    """
    height, width = image.shape[:2]
    least = min(height, width)
    top, left = max(0, (height - 8 * least) // 2), max(0, (width - 8 * least) // 2)
    image = image[top : height - top, left : width - left]
    tall, wide = (int(shorter * side / least) for side in image.shape[:2])
    resized = _scaled(image, (wide, tall), kernel)
    top, left = round((tall - size) / 2), round((wide - size) / 2)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


RESIZES: dict[str, Resize] = {
    "squash": Resize("to a square whatever the aspect ratio, as Keras does; bilinear", _squash),
    "center_crop": Resize("the largest central square; bilinear", _center_crop),
    "timm": Resize("as timm evaluates Inception-v3: shorter side to size / 0.875, bicubic, then the middle", _timm),
    "torchvision": Resize(
        "as torchvision evaluates Inception-v3: shorter side to size · 342 / 299, bilinear, then the middle",
        _torchvision,
    ),
}
