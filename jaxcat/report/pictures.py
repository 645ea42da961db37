"""The images of the page: thumbnails, each of them once, and larger ones for the gallery."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxcat.data.records import Split, digest_of
from jaxcat.system.console import Console, progress_of

THUMBNAIL = 112  # pixels of the longer side
QUALITY = 60  # of the JPEG file of a thumbnail
LARGER_QUALITY = 75


class Seen(NamedTuple):
    """What is kept of a decoded image.

    Attributes:
        height, width: in pixels, upright.
        thumbnail: a JPEG file.
        pixels: `digest_of` its decoded pixels.
    """

    height: int
    width: int
    thumbnail: bytes
    pixels: bytes


class Pictures:
    """The images of a split, by their number. Every image is decoded once for what is kept of it."""

    def __init__(self, split: Split):
        """Decodes nothing."""
        self.split = split
        self._seen: dict[str, Seen] = {}
        self._embedded: set[int] = set()
        self._watched: _Watched | None = None

    def watched(self) -> Split:
        """The split, such that whoever examines an image of it also shows it to this object."""
        values = {each.name: getattr(self.split, each.name) for each in fields(self.split)}
        self._watched = _Watched(**values)
        self._watched.call(self._see)
        return self._watched

    def _see(self, name: str, image: np.ndarray) -> None:
        height, width = image.shape[:2]
        self._seen[name] = Seen(height, width, jpeg(image, side=THUMBNAIL, quality=QUALITY), digest_of(image))

    def settle(self, split: Split, *, console: Console) -> None:
        """Takes the records that are left when unreadable ones are not; decodes those that nobody has examined."""
        self.split = split
        if self._watched is not None:
            self._watched.call(None)
        missing = [number for number, name in enumerate(split.files) if name not in self._seen]

        def see(number: int) -> None:
            self._see(split.files[number], split.fetch(number))

        if missing:
            with (
                progress_of("images for the page", total=len(missing), console=console) as advance,
                ThreadPoolExecutor(os.cpu_count()) as threads,
            ):
                for _ in threads.map(see, missing):
                    advance(1)

    def seen(self, number: int) -> Seen:
        """What is kept of an image."""
        return self._seen[self.split.files[number]]

    def pixels(self) -> list[bytes]:
        """`digest_of` the decoded pixels of every record."""
        return [self.seen(number).pixels for number in range(len(self.split))]

    def embed(self, numbers: Iterable[int]) -> list[int]:
        """Puts the thumbnails of these records into the page, where `<img data-image=NUMBER>` shows one."""
        found = [int(number) for number in numbers]
        self._embedded.update(found)
        return found

    @property
    def embedded(self) -> list[int]:
        """The records whose thumbnails are in the page, in their order."""
        return sorted(self._embedded)

    def island(self) -> dict[str, str]:
        """Number → JPEG file as base64, of the thumbnails that the page needs."""
        return {str(number): _base64(self.seen(number).thumbnail) for number in self.embedded}

    def original(self, number: int) -> np.ndarray:
        """The decoded image, upright: uint8 (H, W, 3)."""
        return self.split.fetch(number)

    def shown(self, number: int, *, side: int = 224) -> str:
        """An image with at most `side` pixels on its longer side, as a data URI."""
        return f"data:image/jpeg;base64,{_base64(jpeg(self.original(number), side=side, quality=LARGER_QUALITY))}"


class _Watched(Split):
    """A split that calls a function with the name and the pixels of each image that is examined; its parts do not."""

    _show: Callable[[str, np.ndarray], None] | None = None

    def call(self, show: Callable[[str, np.ndarray], None] | None) -> None:
        object.__setattr__(self, "_show", show)  # the class is frozen

    def examine(self, index: int) -> tuple[np.ndarray, bytes]:
        image, digest = super().examine(index)
        if self._show is not None:
            self._show(self.files[index], image)
        return image, digest


def jpeg(image: np.ndarray, *, side: int, quality: int) -> bytes:
    """A JPEG file of uint8 (H, W, 3), reduced to at most `side` pixels on its longer side."""
    reduced, file = Image.fromarray(image), io.BytesIO()
    reduced.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    reduced.save(file, format="JPEG", quality=quality, optimize=True)
    return file.getvalue()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
