"""What training reads: pictures through the pipeline (here), or the frozen prefix's outputs (cached.py).

Both give the same steps in the same order; which it is, the train step sees by the names in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcat.augment import store_size
from jaxcat.console import Console, progress_of
from jaxcat.data import Data, Split, Store, fingerprint, open_stores, order
from jaxcat.errors import DataError
from jaxcat.pipeline import at_most, batches
from jaxcat.sharding import values_of_processes


def never() -> int:
    """What nobody interrupts."""
    return 0


class TimedBatches(Protocol):
    """An iterator of batches that counts the seconds its reader has waited for it."""

    wait_seconds: float

    def __iter__(self) -> Iterator[dict[str, Array]]: ...

    def __next__(self) -> dict[str, Array]: ...


class Source(Protocol):
    """Where the batches of a run come from.

    Attributes:
        splits: the records of "train" and "validation", unreadable ones left out.
    """

    splits: dict[str, Split]

    def describe(self) -> str:
        """In a few words: how many records, and from where."""

    def prepare(self, console: Console, *, stop: Callable[[], int] = never) -> int:
        """What takes long and is done once, before the first epoch, with its progress on the console.

        Asks `stop` now and then, as often in every process of the run, and leaves off with its answer if that is not 0.
        """

    def train(self, epoch: int, *, first: int) -> TimedBatches:
        """What is left of an epoch after its `first` steps. Batches may come stacked, for `steps.repeated`."""

    def validation(self) -> TimedBatches:
        """Every validation record, once."""


def open_pictures(config: ConfigDict, splits: Mapping[str, Split]) -> dict[str, Store]:
    """Train and validation, every picture checked and in memory as far as `data.cache_gb` goes.

    Raises:
        DataError: pictures cannot be read, with all of them listed; or not every process can read the same ones.
    """
    size = config.data.image_size
    opened = {name: splits[name] for name in ("train", "validation")}
    console = Console(quiet=jax.process_index() != 0)
    with progress_of("pictures decoded", total=sum(map(len, opened.values())), console=console) as progress:
        stores = open_stores(
            opened,
            sizes={"train": store_size(config.data.augment, size), "validation": size},
            mode=config.data.resize,
            cache_gb=config.data.cache_gb,
            skip_bad=config.data.skip_bad,
            progress=progress,
        )
    check_agreement({name: store.split for name, store in stores.items()})
    return stores


def check_agreement(splits: Mapping[str, Split]) -> None:
    """Every process makes its part of a batch from its own list of the records; they must be the same list.

    Raises:
        DataError: they are not.
    """
    found = values_of_processes(int(fingerprint(splits)[:7], 16))
    if len(set(found)) > 1:
        raise DataError(
            f"the processes of this run do not have the same pictures (this one: {counts(splits)}): --config.data.dir "
            "must show every host the same files, and with --config.data.skip_bad every host must read the same ones"
        )


class Streaming:
    """Pictures, decoded once where memory allows, augmented anew in every epoch; see `Source`."""

    def __init__(self, config: ConfigDict, data: Data, *, mesh: Mesh):
        self._config, self._mesh = config, mesh
        self._stores = open_pictures(config, data.splits)
        self.splits = {name: store.split for name, store in self._stores.items()}

    def describe(self) -> str:
        held = "in memory" if all(store.in_memory for store in self._stores.values()) else "decoded on demand"
        return f"{counts(self.splits)} pictures, {held}"

    def prepare(self, console: Console, *, stop: Callable[[], int] = never) -> int:
        return 0

    def train(self, epoch: int, *, first: int) -> TimedBatches:
        config, store = self._config, self._stores["train"]
        indices = order(len(store), seed=config.seed, epoch=epoch)[first * config.batch_size :]
        return self._batches(store, indices, augment=config.data.augment, view=epoch)

    def validation(self) -> TimedBatches:
        store = self._stores["validation"]
        return self._batches(store, np.arange(len(store)), augment="none", view=0)

    def _batches(self, store: Store, indices: np.ndarray, *, augment: str, view: int) -> TimedBatches:
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
    return " / ".join(f"{len(split)} {name}" for name, split in splits.items())
