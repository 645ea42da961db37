"""Digests of the images of a split, by which their content is known again under any name."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from jaxcat.data.records import Split
from jaxcat.errors import DataError

HASHED_TOGETHER = 64  # images: handing them to the threads one by one takes longer than hashing a small one


def _nobody(count: int) -> None:
    """Does nothing: the default of `progress`."""


def digests_of(split: Split, *, progress: Callable[[int], object] = _nobody) -> list[bytes | None]:
    """`Split.digest` of every record, computed in threads; None for an image that cannot be read.

    `progress` is called with the number of images read since its last call.
    """

    def digest(record: int) -> bytes | None:
        try:
            return split.digest(record)
        except DataError:
            return None

    def some(first: int) -> list[bytes | None]:
        return [digest(record) for record in range(first, min(first + HASHED_TOGETHER, len(split)))]

    found: list[bytes | None] = []
    with ThreadPoolExecutor() as threads:
        for each in threads.map(some, range(0, len(split), HASHED_TOGETHER)):
            found += each
            progress(len(each))
    return found
