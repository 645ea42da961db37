"""The random-access image store: pictures of one size, in RAM where they fit, else decoded on demand."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxcat.data.records import Split
from jaxcat.errors import DataError
from jaxcat.images import ResizeMode, printable, resize

logger = logging.getLogger(__name__)

_CHUNK = 1024  # pictures between two reports of progress; also bounds the futures that exist at once


class Store:
    """images[i] → uint8 (size, size, 3) for the records of a split that can be read.

    Building it decodes every picture once. That is the check for unreadable ones, and it fills the store where
    that fits `cache_gb`.

    Attributes:
        split: the records that are left, in the order of the store.
        unreadable: one line "file: reason" for each picture that was left out.
        in_memory: whether all pictures are held decoded.
    """

    def __init__(
        self,
        split: Split,
        *,
        size: int,
        mode: ResizeMode,
        cache_gb: float,
        workers: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Decodes the pictures of split. Unreadable ones are left out; open_stores is the door that refuses them.

        Args:
            split: what to hold.
            size: side of the stored pictures in pixels.
            mode: how they are made square; see images.resize.
            cache_gb: GiB of memory that the store may take.
            workers: threads; by default one per CPU.
            progress: told now and then how many more pictures have been decoded.
        """
        self._size, self._mode = size, mode
        self._pool = ThreadPoolExecutor(workers or os.cpu_count(), thread_name_prefix="decode")
        self.in_memory = memory_needed(split, size) <= cache_gb * 2**30
        self._images = np.empty((len(split), size, size, 3), np.uint8) if self.in_memory else None
        reasons = self._decode_all(split, progress)
        self.unreadable = tuple(reason for reason in reasons if reason)
        readable = np.array([i for i, reason in enumerate(reasons) if not reason], np.int64)
        self.split = split.take(readable) if self.unreadable else split
        if self._images is not None:
            if self.unreadable:
                for position, index in enumerate(readable):  # in place: a second array might not fit
                    self._images[position] = self._images[index]
            self._images = self._images[: len(readable)]
            self._images.flags.writeable = False

    def _decode_all(self, split: Split, progress: Callable[[int], None] | None) -> list[str]:
        """Decodes every record once, into memory where that is held; "" or the reason of failure for each."""

        def attempt(index: int) -> str:
            try:
                picture = split.fetch(index)
            except DataError as error:
                return str(error)
            if self._images is not None:
                self._images[index] = resize(picture, self._size, mode=self._mode)
            return ""

        reasons: list[str] = []
        for start in range(0, len(split), _CHUNK):
            found = list(self._pool.map(attempt, range(start, min(start + _CHUNK, len(split)))))
            reasons += found
            if progress:
                progress(len(found))
        return reasons

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> np.ndarray:
        """The picture of one record: uint8 (size, size, 3), read-only where it is held in memory."""
        if self._images is not None:
            return self._images[index]
        return resize(self.split.fetch(index), self._size, mode=self._mode)

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """The pictures of these records: uint8 (len(indices), size, size, 3), a new array."""
        if self._images is not None:
            return self._images[indices]
        pictures = np.empty((len(indices), self._size, self._size, 3), np.uint8)
        for position, picture in enumerate(self._pool.map(self.__getitem__, map(int, indices))):
            pictures[position] = picture
        return pictures


def open_stores(
    splits: Mapping[str, Split],
    *,
    sizes: Mapping[str, int],
    mode: ResizeMode,
    cache_gb: float,
    workers: int | None = None,
    skip_bad: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Store]:
    """One store per split, sharing `cache_gb` in the order of splits; `sizes` gives the side by split name, the other
    arguments are those of Store.

    With skip_bad, unreadable pictures are left out and a warning is logged with their number; `.split` and
    `.unreadable` of each store say which records are left and which are not.

    Raises:
        DataError: pictures are unreadable and skip_bad is False: one error that lists those of all splits. Or with
            skip_bad, a class has no readable picture left.
    """
    stores: dict[str, Store] = {}
    memory_left = cache_gb
    for name, split in splits.items():
        stores[name] = store = Store(
            split, size=sizes[name], mode=mode, cache_gb=memory_left, workers=workers, progress=progress
        )
        if store.in_memory:
            memory_left -= memory_needed(split, sizes[name]) / 2**30
    unreadable = [line for store in stores.values() for line in store.unreadable]
    if unreadable and not skip_bad:
        raise DataError(
            f"{len(unreadable)} of {sum(map(len, splits.values()))} pictures cannot be read:\n"
            + "".join(f"  {line}\n" for line in unreadable)
            + "Replace or remove them, or leave them out with --config.data.skip_bad=True"
        )
    for name, store in stores.items():
        _report_left_out(splits[name], store)
    return stores


def _report_left_out(split: Split, store: Store) -> None:
    """Logs how many pictures were left out; refuses to go on where a whole class was."""
    if not store.unreadable:
        return
    lost = np.setdiff1d(split.labels, store.split.labels)
    if len(lost):
        example = split.files[int(np.flatnonzero(split.labels == lost[0])[0])]
        raise DataError(
            f"no readable picture is left of {len(lost)} class(es) in {split.name}, like that of {printable(example)};"
            f" the first reason: {store.unreadable[0]}"
        )
    logger.warning(
        "%d of %d pictures in %s cannot be read and are left out (--config.data.skip_bad=True); the first: %s",
        len(store.unreadable),
        len(split),
        split.name,
        store.unreadable[0],
    )


def memory_needed(split: Split, size: int) -> int:
    """Bytes that the decoded pictures of a split take at this size."""
    return len(split) * size * size * 3
