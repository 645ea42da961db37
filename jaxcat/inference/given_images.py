"""Images as a program gives them to a classifier: paths, encoded bytes, arrays, Pillow images; one, or a list."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxcat.errors import ConfigError, DataError
from jaxcat.system.paths import expanded


def readable(image: Any, name: str) -> tuple[Path | bytes | np.ndarray | Image.Image, str]:
    """The image as `data.images.decoding.decode` takes it, and what errors call it: its path if it has one, or `name`.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(image, (str, os.PathLike)):
        return _path(image), os.fspath(image)
    if isinstance(image, (bytearray, memoryview)):
        return bytes(image), name
    if isinstance(image, (bytes, np.ndarray, Image.Image)):
        return image, name
    if not hasattr(image, "__array__"):  # as the arrays of JAX and torch have
        raise DataError(
            f"{name}: {repr(image)[:60]} ({type(image).__name__}) is no image; give the path of a file, its "
            "bytes, a Pillow image, or an array of uint8 (H, W, 3)"
        )
    return np.asarray(image), name


def _path(image: str | os.PathLike) -> Path:
    """The path of an image; in a Path, `~` is not replaced, because a program gave it."""
    if isinstance(image, Path):
        return image
    try:
        return expanded(image)
    except ConfigError as error:
        raise DataError(str(error)) from error


def is_single(images: Any) -> bool:
    """Whether this is one image, or nothing that can be iterated over, in place of a list of images."""
    if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image)) or not _is_iterable(images):
        return True
    shape = getattr(images, "shape", None)
    return shape is not None and (len(shape) < 3 or (len(shape) == 3 and shape[2] in (1, 3, 4)))


def _is_iterable(images: Any) -> bool:
    return isinstance(images, Iterable) or hasattr(images, "__getitem__")
