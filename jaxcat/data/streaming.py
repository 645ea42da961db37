"""What training reads its batches from: the protocol `Source`, and `Streaming`, which decodes and augments images.

The other source, of bottlenecks, is in bottlenecks/source.py. Both give the same steps in the same order; the train
step tells them apart by the names in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from jaxcat.data.augment import store_size
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

    def describe(self) -> str:
        """In a few words: how many records, and of what; after `prepare` also what was found or computed."""

    def prepare(self, console: Console, *, stop: Callable[[], int] = never) -> int:
        """Does everything that takes long, once, before the first epoch, with its progress on the console.

        It asks `stop` now and then, as often in every process of the run, and ends if the answer is not 0.

        Returns:
            0, or what `stop` answered.
        """

    def train(self, epoch: int, *, first: int) -> Batches:
        """What is left of an epoch after its `first` steps. Batches may come stacked, for `steps.repeated`."""

    def validation(self) -> Batches:
        """Every validation record, once."""


def stores_of(config: ConfigDict, splits: Mapping[str, Split]) -> dict[str, Store]:
    """The stores of train and validation, nothing decoded yet; in memory as far as `data.cache_gb` goes."""
    size = config.data.image_size
    return make_stores(
        {name: splits[name] for name in ("train", "validation")},
        sizes={"train": store_size(config.data.augment, size), "validation": size},
        mode=config.data.resize,
        cache_gb=config.data.cache_gb,
    )


def decode_all(
    stores: Mapping[str, Store], console: Console, *, skip_bad: bool, stop: Callable[[], int] = never
) -> int:
    """Decodes every image of the stores once, with a progress bar.

    Returns:
        0, or what `stop` answered.

    Raises:
        DataError: images cannot be read, with all of them listed; or not every process can read the same ones.
    """
    with progress_of("images decoded", total=sum(map(len, stores.values())), console=console) as progress:
        if status := prepare_stores(stores, skip_bad=skip_bad, progress=progress, stop=stop):
            return status
    check_agreement({name: store.split for name, store in stores.items()})
    return 0


def check_agreement(splits: Mapping[str, Split]) -> None:
    """Compares the records of all processes: each makes its part of a batch from its own list of them.

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
    """Images, decoded once if memory allows, augmented anew in every epoch; see `Source`."""

    def __init__(self, config: ConfigDict, data: Data, *, mesh: Mesh):
        self._config, self._mesh = config, mesh
        self._stores = stores_of(config, data.splits)

    @property
    def splits(self) -> dict[str, Split]:
        return {name: store.split for name, store in self._stores.items()}

    def describe(self) -> str:
        held = "in memory" if all(store.in_memory for store in self._stores.values()) else "decoded on demand"
        return f"{counts(self.splits)} images, {held}"

    def prepare(self, console: Console, *, stop: Callable[[], int] = never) -> int:
        return decode_all(self._stores, console, skip_bad=self._config.data.skip_bad, stop=stop)

    def train(self, epoch: int, *, first: int) -> Batches:
        config, store = self._config, self._stores["train"]
        indices = order(len(store), seed=config.seed, epoch=epoch)[first * config.batch_size :]
        return self._batches(store, indices, augment=config.data.augment, view=epoch)

    def validation(self) -> Batches:
        store = self._stores["validation"]
        return self._batches(store, np.arange(len(store)), augment="none", view=0)

    def _batches(self, store: Store, indices: np.ndarray, *, augment: str, view: int) -> Batches:
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
    """Such as "1000 train / 200 validation"."""
    return " / ".join(f"{len(split)} {name}" for name, split in splits.items())
