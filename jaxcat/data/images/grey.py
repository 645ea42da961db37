"""Finds the scale of the 16-bit images of a run: `data.grey_bits=0`. Reads headers, and decodes 16-bit images only."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jaxcat.data.archives import archives
from jaxcat.data.images import deep
from jaxcat.data.images.decoding import read_file
from jaxcat.data.images.formats import open_image
from jaxcat.data.records import Split

HEADER = 32  # bytes that tell whether a file may have more than 8 bits a channel


def is_deep(stored: Path | bytes | np.ndarray) -> bool:
    """Whether an image has more than 8 bits a channel; False if it cannot be read. Decodes no pixels.

    `stored` is what `Split.stored` gives.
    """
    if isinstance(stored, np.ndarray):
        return stored.dtype == np.uint16
    try:
        encoded = _read_if_deep(stored)
        if not encoded:
            return False
        with open_image(encoded) as image:
            return deep.is_deep(image)
    except Exception:  # decoding reports it
        return False


def bits_of(stored: Path | bytes | np.ndarray, *, max_pixels: int) -> int:
    """The bits that one image needs of the run's scale, 1 to 16; 0 if it has 8 bits a channel or cannot be read."""
    try:
        if isinstance(stored, np.ndarray):
            return _bits_of_array(stored)
        encoded = _read_if_deep(stored)
        if not encoded:
            return 0
        with open_image(encoded, max_pixels=max_pixels) as image:
            if not deep.is_deep(image):
                return 0
            deep.check_kind(image, encoded)
            return deep.bits_needed(image, encoded)
    except Exception:  # decoding reports it
        return 0


def _bits_of_array(array: np.ndarray) -> int:
    if array.dtype != np.uint16 or not array.size:
        return 0
    return max(int(deep.without_alpha(array, "").max()).bit_length(), 1)


def _read_if_deep(stored: Path | bytes) -> bytes:
    """The file if its first bytes are of a format that may have more than 8 bits a channel, else b""."""
    if isinstance(stored, bytes):
        return stored if deep.may_be_deep(stored[:HEADER]) else b""
    with archives.opened(stored) as file:
        if not deep.may_be_deep(file.read(HEADER)):
            return b""
    return read_file(stored)


def find_bits(train: Split) -> int:
    """The scale for all 16-bit images of a run: the smallest of 8, 10, 12, 14 and 16 bits that covers those of train.

    0 if train has none.
    """
    if not len(train):
        return 0
    first = train.stored(0)
    if isinstance(first, np.ndarray) and first.dtype == np.uint8:
        return 0  # sources that make arrays make all of one type, and making them is slow
    needed = functools.partial(bits_of, max_pixels=train.decoding.max_pixels)
    with ThreadPoolExecutor() as threads:
        most = max(threads.map(lambda index: needed(train.stored(index)), range(len(train))), default=0)
    return deep.scale_of(most) if most else 0


def deep_files(split: Split) -> Iterator[str]:
    """The names of the 16-bit images of a split; decodes none."""
    for index, name in enumerate(split.files):
        if is_deep(split.stored(index)):
            yield name
