"""Images of any size → squares: the table `RESIZES`, `resize`, and the part that is `seen` then. Pillow only.

Pillow resizes rows and columns one after the other and rounds to whole levels between them, so some levels depend on
the order, by one. Its versions choose the order by different rules, so `_scaled` chooses it itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxcat.data.images.bands import bands

# Raise this version if the pixels of a mode change. It is part of every bottleneck's key and stored with every run;
# tests/test_golden.py fails if the pixels change and the version does not.
RESIZE_VERSION = 2  # 1 left the order of the two passes to Pillow

Box = tuple[float, float, float, float]


class Resize(NamedTuple):
    """One row of `RESIZES`.

    Attributes:
        meaning: one line for `--help`.
        function: (uint8 (H, W, 3), size) → uint8 (size, size, 3).
        seen: ((H, W), size) → the part of the image that the result shows.
    """

    meaning: str
    function: Callable[[np.ndarray, int], np.ndarray]
    seen: Callable[[tuple[int, int], int], Box]


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
    return _row(mode).function(image, size)


def seen(shape: tuple[int, int], size: int, *, mode: str) -> Box:
    """The part of an image that `resize` keeps: left, top, right and bottom in pixels of the image.

    Args:
        shape: height and width of the image.
        size, mode: as for `resize`.

    Raises:
        ValueError: `mode` is not in `RESIZES`.
    """
    return _row(mode).seen(shape, size)


def _row(mode: str) -> Resize:
    if mode not in RESIZES:
        raise ValueError(f"mode={mode!r}; use one of {', '.join(RESIZES)}")
    return RESIZES[mode]


def _squash(image: np.ndarray, size: int) -> np.ndarray:
    return _bilinear(image, size, box=None)


def _whole(shape: tuple[int, int], size: int) -> Box:
    height, width = shape
    return 0, 0, width, height


def _center_crop(image: np.ndarray, size: int) -> np.ndarray:
    height, width = image.shape[:2]
    return _bilinear(image, size, box=_central_square((height, width), size))


def _central_square(shape: tuple[int, int], size: int) -> Box:
    height, width = shape
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


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
    if columns_first:
        narrow = Image.fromarray(image).resize((wide, height), kernel, box=(0, top, wide, bottom))
        return narrow.resize((width, height), kernel, box=(left, 0, right, height))
    parts = [
        Image.fromarray(image[first:end]).resize((width, end - first), kernel, box=(left, 0, right, end - first))
        for first, end in bands(tall, wide)
    ]
    low = parts[0]
    if len(parts) > 1:
        low = Image.fromarray(np.concatenate([np.asarray(part) for part in parts]))
    return low.resize((width, height), kernel, box=(0, top, width, bottom))


def _timm_shorter(size: int) -> int:
    return math.floor(size / 0.875)


def _torchvision_shorter(size: int) -> int:
    return round(size * 342 / 299)


class _Side(NamedTuple):
    """How `_middle` treats the height or the width of an image, in this order.

    Attributes:
        length: in pixels of the image.
        left_out: pixels left out at both ends.
        scaled: pixels that the rest is resized to.
        first: where the middle begins in these.
    """

    length: int
    left_out: int
    scaled: int
    first: int

    def seen(self, size: int) -> tuple[float, float]:
        """Begin and end, in pixels of the image, of the middle `size` pixels of the resized rest."""
        ratio = (self.length - 2 * self.left_out) / self.scaled
        return self.left_out + self.first * ratio, self.left_out + (self.first + size) * ratio


def _sides(shape: tuple[int, int], size: int, shorter: int) -> tuple[_Side, _Side]:
    """What `_middle` does to height and width."""
    least = min(shape)

    def side(length: int) -> _Side:
        left_out = max(0, (length - 8 * least) // 2)
        scaled = int(shorter * (length - 2 * left_out) / least)
        return _Side(length, left_out, scaled, round((scaled - size) / 2))

    height, width = shape
    return side(height), side(width)


def _middle(image: np.ndarray, size: int, *, shorter: Callable[[int], int], kernel: Image.Resampling) -> np.ndarray:
    """Brings the shorter side to `shorter(size)` pixels and takes the middle `size` × `size` of the result.

    The steps and the rounding are those of torchvision.transforms Resize and CenterCrop. If one side is more
    than eight times as long as the other, only the middle is resized, so that no huge image is made on the way.
    """
    rows, columns = _sides((image.shape[0], image.shape[1]), size, shorter(size))
    image = image[rows.left_out : rows.length - rows.left_out, columns.left_out : columns.length - columns.left_out]
    resized = _scaled(image, (columns.scaled, rows.scaled), kernel)
    top, left = rows.first, columns.first
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def _seen_middle(shape: tuple[int, int], size: int, *, shorter: Callable[[int], int]) -> Box:
    """The part of the image that `_middle` shows."""
    rows, columns = _sides(shape, size, shorter(size))
    (top, bottom), (left, right) = rows.seen(size), columns.seen(size)
    return left, top, right, bottom


RESIZES: dict[str, Resize] = {
    "squash": Resize("to a square whatever the aspect ratio, as Keras does; bilinear", _squash, _whole),
    "center_crop": Resize("the largest central square; bilinear", _center_crop, _central_square),
    "timm": Resize(
        "as timm evaluates Inception-v3: shorter side to size / 0.875, bicubic, then the middle",
        partial(_middle, shorter=_timm_shorter, kernel=Image.Resampling.BICUBIC),
        partial(_seen_middle, shorter=_timm_shorter),
    ),
    "torchvision": Resize(
        "as torchvision evaluates Inception-v3: shorter side to size · 342 / 299, bilinear, then the middle",
        partial(_middle, shorter=_torchvision_shorter, kernel=Image.Resampling.BILINEAR),
        partial(_seen_middle, shorter=_torchvision_shorter),
    ),
}
