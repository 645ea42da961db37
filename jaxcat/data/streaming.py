"""What training reads its batches from: the protocol `Source`, and `Streaming`, which decodes and augments images.

The other source, of bottlenecks, is in bottlenecks/source.py. Both give the same steps in the same order; the train
step tells them apart by the names in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from jaxcat.data import checks, pixel_groups
from jaxcat.data.augmentation.table import UNCHANGED, Views, store_size, views_of
from jaxcat.data.batches import Batches, at_most, batches
from jaxcat.data.records import Data, Split, fingerprint, order
from jaxcat.data.store import Store, make_stores, prepare_stores
from jaxcat.errors import DataError
from jaxcat.system.console import progress_of
from jaxcat.system.files import never
from jaxcat.system.processes import values_of_processes


class Source(Protocol):
    """Where the batches of a run come from."""

    @property
    def splits(self) -> Mapping[str, Split]:
        """The records of "train" and "validation"; after `prepare`, unreadable ones are left out."""

    @property
    def digests(self) -> Mapping[str, Sequence[bytes]]:
        """After `prepare`: for each split the digest of every record, as `Split.digest` gives it."""

    def describe(self) -> str:
        """A few words: the number of records and their kind; after `prepare` also what was found or computed."""

    def prepare(self, console: Console, *, stop: Callable[[], int] = never) -> int:
        """Does all long work once, before the first epoch, and shows its progress on the console.

        It calls `stop` now and then, equally often in every process of the run, and ends if that does not return 0.

        Returns:
            0, or what `stop` returned if that is not 0.
        """

    def train(self, epoch: int, *, first: int) -> Batches:
        """The batches of an epoch from step `first` on. They may be stacked, for `training.steps.repeated`."""

    def validation(self) -> Batches:
        """The batches of one pass over all validation records."""


def stores_of(
    config: ConfigDict, splits: Mapping[str, Split], names: Iterable[str] = ("train", "validation")
) -> dict[str, Store]:
    """Makes the stores of the splits of these names without decoding; `data.cache_gb` limits their memory."""
    size = config.data.image_size
    return make_stores(
        {name: splits[name] for name in names},
        sizes={name: store_size(config.data.augment, size) if name == "train" else size for name in names},
        mode=config.data.resize,
        cache_gb=config.data.cache_gb,
    )


def decode_all(
    stores: Mapping[str, Store],
    console: Console,
    *,
    classes: Sequence[str],
    skip_bad: bool,
    stop: Callable[[], int] = never,
) -> int:
    """Decodes every image of the stores once, with a progress bar, and warns of images with the same pixels.

    Returns:
        0, or what `stop` returned if that is not 0.

    Raises:
        DataError: images cannot be read (the message lists all of them), or the processes cannot read the same ones.
    """
    with progress_of("images decoded", total=sum(map(len, stores.values())), console=console) as progress:
        if status := prepare_stores(stores, skip_bad=skip_bad, progress=progress, stop=stop):
            return status
    splits = {name: store.split for name, store in stores.items()}
    check_agreement(splits)
    checks.warn_of_pixels(splits, {name: store.pixels for name, store in stores.items()}, classes)
    for store in stores.values():
        pixel_groups.remember(store.split, store.digests, store.pixels)
    return 0


def warn_of_known_pixels(
    splits: Mapping[str, Split], digests: Mapping[str, Sequence[bytes]], *, classes: Sequence[str]
) -> None:
    """Warns of images with the same pixels as far as the cache has the digests of their pixels; decodes nothing.

    Args:
        digests: of each record of each split, as `Split.digest` gives it.
    """
    pixels = {}
    for name, split in splits.items():
        known = pixel_groups.known_pixels(digests[name], split.decoding)
        pixels[name] = [known.get(digest, digest) for digest in digests[name]]
    checks.warn_of_pixels(splits, pixels, classes)


def check_agreement(splits: Mapping[str, Split]) -> None:
    """Checks that all processes have the same records: each makes its part of a batch from its own list.

    Raises:
        DataError: the lists differ.
    """
    found = values_of_processes(int(fingerprint(splits)[:7], 16))
    if len(set(found)) > 1:
        raise DataError(
            f"the processes of this run do not have the same images (this one: {counts(splits)}): --config.data.dir "
            "must show every host the same files, and with --config.data.skip_bad every host must read the same ones"
        )


class Streaming:
    """A `Source` of images: decoded once if they fit in memory, and augmented anew in every epoch."""

    def __init__(self, config: ConfigDict, data: Data, *, mesh: Mesh):
        self._config, self._mesh, self._classes = config, mesh, data.classes
        self._stores = stores_of(config, data.splits)

    @property
    def splits(self) -> dict[str, Split]:
        return {name: store.split for name, store in self._stores.items()}

    @property
    def digests(self) -> dict[str, Sequence[bytes]]:
        return {name: store.digests for name, store in self._stores.items()}

    def describe(self) -> str:
        held = "in memory" if all(store.in_memory for store in self._stores.values()) else "decoded on demand"
        return f"{counts(self.splits)} images, {held}"

    def prepare(self, console: Console, *, stop: Callable[[], int] = never) -> int:
        return decode_all(self._stores, console, classes=self._classes, skip_bad=self._config.data.skip_bad, stop=stop)

    def train(self, epoch: int, *, first: int) -> Batches:
        config, store = self._config, self._stores["train"]
        indices = order(len(store), seed=config.seed, epoch=epoch)[first * config.batch_size :]
        return self._batches(store, indices, augment=views_of(config), view=epoch)

    def validation(self) -> Batches:
        store = self._stores["validation"]
        return self._batches(store, np.arange(len(store)), augment=UNCHANGED, view=0)

    def _batches(self, store: Store, indices: np.ndarray, *, augment: Views, view: int) -> Batches:
        return batches(
            store,
            store.split.labels,
            indices,
            batch_size=at_most(len(store), self._config.batch_size),
            size=self._config.data.image_size,
            mesh=self._mesh,
            augment=augment,
            seed=self._config.seed,
            view=view,
        )


def counts(splits: Mapping[str, Split]) -> str:
    """The number of records of each split, such as "1000 train / 200 validation"."""
    return " / ".join(f"{len(split)} {name}" for name, split in splits.items())
