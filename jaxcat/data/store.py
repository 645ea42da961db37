"""The random-access image store: images of one size, in memory if they fit, else decoded on demand."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxcat.data.images.resizing import resize
from jaxcat.data.records import Split, digest_of
from jaxcat.errors import DataError
from jaxcat.system import memory
from jaxcat.system.files import never
from jaxcat.wording import counted, printable

logger = logging.getLogger(__name__)

SHARE_OF_MEMORY = 0.75  # of the memory that is left; the rest is for batches, parameters and the program
ADVICE = "Replace or remove them, or leave them out with --config.data.skip_bad=True"
_CHUNK = 1024  # images handed to the threads at a time
_REPORTED = 128  # images between two calls of `progress`, and of `stop`


def _nobody(count: int) -> None:
    """Does nothing: the default of `progress`."""


class Store:
    """The images of a split at one size: `store[i]` is uint8 (size, size, 3).

    `prepare` decodes every image once. It finds unreadable images, and fills the store if all images fit in `cache_gb`.

    Attributes:
        split: the records in the order of the store; after `prepare`, unreadable ones are left out.
        unreadable: one line "file: reason" for each image that was left out.
        digests: after `prepare`, the digest of each record, as `Split.digest` gives it.
        pixels: after `prepare`, `digest_of` of each record's decoded pixels, before they are resized.
        in_memory: whether all decoded images are kept in memory after `prepare`.
    """

    def __init__(self, split: Split, *, size: int, mode: str, cache_gb: float, workers: int | None = None) -> None:
        """Decodes nothing.

        Args:
            split: the records to hold.
            size: side of the stored images in pixels.
            mode: how images are made square, a name in `resizing.RESIZES`.
            cache_gb: GiB of memory that the store may take.
            workers: threads; by default one per CPU.
        """
        self.split = split
        self.unreadable: tuple[str, ...] = ()
        self.digests: tuple[bytes, ...] = ()
        self.pixels: tuple[bytes, ...] = ()
        self.in_memory = memory_needed(split, size) <= cache_gb * 2**30
        self._size, self._mode = size, mode
        self._pool = ThreadPoolExecutor(workers or os.cpu_count(), thread_name_prefix="decode")
        self._images: np.ndarray | None = None

    def prepare(self, *, progress: Callable[[int], object] = _nobody, stop: Callable[[], int] = never) -> int:
        """Decodes every image once and leaves unreadable ones out; `prepare_stores` may refuse them.

        Args:
            progress: called now and then with the number of images decoded since its last call.
            stop: called now and then, equally often for the same split; the work ends if it does not return 0.

        Returns:
            0, or what `stop` returned if that is not 0; the store is then unchanged.
        """
        images = self._room()
        pixels = [b""] * len(self.split)

        def attempt(index: int) -> tuple[str, bytes]:
            try:
                image, digest = self.split.examine(index)
            except DataError as error:
                return str(error), b""
            pixels[index] = digest_of(image)
            if images is not None:
                images[index] = resize(image, self._size, mode=self._mode)
            return "", digest

        reasons: list[str] = []
        digests: list[bytes] = []
        for start in range(0, len(self.split), _CHUNK):
            end = min(start + _CHUNK, len(self.split))
            for number, (reason, digest) in enumerate(self._pool.map(attempt, range(start, end)), start + 1):
                reasons.append(reason)
                digests.append(digest)
                if number % _REPORTED == 0 or number == end:
                    progress((number - 1) % _REPORTED + 1)
                if number % _REPORTED == 0 and (status := stop()):
                    return status
        self._keep(images, reasons)
        self.digests = tuple(digest for digest in digests if digest)
        self.pixels = tuple(filter(None, pixels))  # those of the readable images
        return 0

    def _room(self) -> np.ndarray | None:
        """An array for all images, or None if they are decoded on demand."""
        try:
            return np.empty((len(self.split), self._size, self._size, 3), np.uint8) if self.in_memory else None
        except MemoryError:
            logger.warning("no memory for the decoded images of %s: they are decoded on demand", self.split.name)
            self.in_memory = False
            return None

    def _keep(self, images: np.ndarray | None, reasons: list[str]) -> None:
        """Keeps the records whose reason is empty, and their images; leaves the others out."""
        readable = np.array([i for i, reason in enumerate(reasons) if not reason], np.int64)
        if len(readable) < len(reasons):
            self.unreadable = tuple(reason for reason in reasons if reason)
            self.split = self.split.take(readable)
        if images is not None:
            if self.unreadable:
                for position, index in enumerate(readable):  # in place: a second array might not fit
                    images[position] = images[index]
            self._images = images[: len(readable)]
            self._images.flags.writeable = False

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> np.ndarray:
        """The image of one record: uint8 (size, size, 3), read-only if it is held in memory."""
        if self._images is not None:
            return self._images[index]
        return resize(self.split.fetch(index), self._size, mode=self._mode)

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """The images of these records: uint8 (len(indices), size, size, 3), a new array."""
        if self._images is not None:
            return self._images[indices]
        images = np.empty((len(indices), self._size, self._size, 3), np.uint8)
        for position, image in enumerate(self._pool.map(self.__getitem__, map(int, indices))):
            images[position] = image
        return images


def make_stores(
    splits: Mapping[str, Split], *, sizes: Mapping[str, int], mode: str, cache_gb: float, workers: int | None = None
) -> dict[str, Store]:
    """Makes one store per split without decoding. The first splits get their part of `cache_gb` first.

    A split that fits in `cache_gb` but not in the free memory is decoded on demand too, with a warning.

    `sizes` gives the side of the images by split name; the other arguments are those of `Store`.
    """
    stores: dict[str, Store] = {}
    room = SHARE_OF_MEMORY * memory.available() / 2**30
    for name, split in splits.items():
        needed = memory_needed(split, sizes[name]) / 2**30
        if room < needed <= cache_gb:
            logger.warning(
                "--config.data.cache_gb=%g: the decoded images of %s would take %.1f GiB, and only %.1f GiB of memory "
                "can be used: they are decoded on demand",
                *(cache_gb, name, needed, room),
            )
        stores[name] = Store(split, size=sizes[name], mode=mode, cache_gb=min(cache_gb, room), workers=workers)
        if stores[name].in_memory:
            cache_gb, room = cache_gb - needed, room - needed
    return stores


def prepare_stores(
    stores: Mapping[str, Store],
    *,
    skip_bad: bool,
    progress: Callable[[int], object] = _nobody,
    stop: Callable[[], int] = never,
    advice: str = ADVICE,
) -> int:
    """Decodes every image once; see `Store.prepare`. `advice` is what to do about unreadable images.

    With `skip_bad`, unreadable images are left out and a warning with their number is logged. The `split` of each store
    then has the records that are left, and its `unreadable` names the others.

    Returns:
        0, or what `stop` returned if that is not 0.

    Raises:
        DataError: images are unreadable and `skip_bad` is False (the message lists those of all splits), or
            `skip_bad` is True and a class has no readable image left.
    """
    splits = {name: store.split for name, store in stores.items()}
    for store in stores.values():
        if status := store.prepare(progress=progress, stop=stop):
            return status
    unreadable = [line for store in stores.values() for line in store.unreadable]
    if unreadable and not skip_bad:
        raise unreadable_images(unreadable, total=sum(map(len, splits.values())), advice=advice)
    for name, store in stores.items():
        if store.unreadable:
            _report_left_out(splits[name], store)
    return 0


def unreadable_images(lines: Sequence[str], *, total: int, advice: str = ADVICE) -> DataError:
    """The error about unreadable images, with a line for each."""
    number = f"{len(lines):,} of {counted(total, 'image')}"
    return DataError(f"{number} cannot be read:\n" + "".join(f"  {line}\n" for line in lines) + advice)


def open_stores(
    splits: Mapping[str, Split],
    *,
    sizes: Mapping[str, int],
    mode: str,
    cache_gb: float,
    workers: int | None = None,
    skip_bad: bool = False,
    progress: Callable[[int], object] = _nobody,
    advice: str = ADVICE,
) -> dict[str, Store]:
    """Calls `make_stores`, then `prepare_stores`."""
    stores = make_stores(splits, sizes=sizes, mode=mode, cache_gb=cache_gb, workers=workers)
    prepare_stores(stores, skip_bad=skip_bad, progress=progress, advice=advice)
    return stores


def _report_left_out(split: Split, store: Store) -> None:
    """Logs how many images of `split` the store left out. Raises DataError if a whole class is among them."""
    if text := refusal(split, store.split, store.unreadable):
        raise DataError(text)
    logger.warning(
        "%s of %s in %s cannot be read and are left out (--config.data.skip_bad=True); the first: %s",
        f"{len(store.unreadable):,}",
        counted(len(split), "image"),
        split.name,
        store.unreadable[0],
    )


def refusal(split: Split, readable: Split, reasons: Sequence[str]) -> str:
    """Why a split cannot be used without its unreadable images: a whole class is among them; "" if none is."""
    lost = np.setdiff1d(split.labels, readable.labels)
    if not len(lost):
        return ""
    example = split.files[int(np.flatnonzero(split.labels == lost[0])[0])]
    return (
        f"no readable image is left of {counted(len(lost), 'class', 'classes')} in {split.name}, such as "
        f"that of {printable(example)}; the first reason: {reasons[0]}"
    )


def memory_needed(split: Split, size: int) -> int:
    """Bytes that the decoded images of a split take at this size."""
    return len(split) * size * size * 3
