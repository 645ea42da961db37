"""Training on bottlenecks: the frozen prefix's outputs, computed once for every view, then read from disk or memory.

If the suffix has no convolution, many steps come stacked and run in one compiled loop. Convolution gradients inside a
loop are 12 to 25 times slower on a CPU, so a suffix with blocks gets its batches one by one.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from jaxcat.bottlenecks.compute import Engine, alone, extract, request_of
from jaxcat.bottlenecks.engines.interpreted import LiteRT
from jaxcat.bottlenecks.engines.names import XLA as BY_XLA
from jaxcat.bottlenecks.engines.xla import XLA
from jaxcat.bottlenecks.key import keys_of
from jaxcat.bottlenecks.parts import PartReader, Parts, Reader, parts_of
from jaxcat.bottlenecks.reading import batches_of, chunks, evaluated_together, stacked
from jaxcat.bottlenecks.rows import identities
from jaxcat.data.augmentation.table import UNCHANGED, views_of
from jaxcat.data.batches import Batches
from jaxcat.data.digests import digests_of
from jaxcat.data.records import Data, Split, order
from jaxcat.data.store import Store
from jaxcat.data.streaming import counts, decode_all, stores_of, warn_of_known_pixels
from jaxcat.errors import CacheError, DataError
from jaxcat.models.network import Network, Tree
from jaxcat.models.pooling import PooledPart
from jaxcat.system.console import progress_of
from jaxcat.system.files import never
from jaxcat.system.processes import values_of_processes
from jaxcat.wording import counted, gigabytes

IN_MEMORY = 2**28  # bytes; if all rows take no more, they are kept in memory, else read through memory maps


class Pass(NamedTuple):
    """One pass of a split through the prefix; `view` is None if nothing is augmented."""

    split: str
    view: int | None


class BottleneckSource:
    """Rows of the prefix's output: `bottleneck.views` views of every training image, and unaugmented validation.

    See `data.streaming.Source`. Images are decoded, and thereby checked, only if a row is missing.

    Attributes:
        splits: the records of "train", "validation" and what else was asked for; after `prepare`, unreadable ones are
            left out.
        digests: after `look_up`, for each split the digest of every record.
        views: number of views of every training image, at most the number of epochs.
        to_compute: number of bottlenecks of which `look_up` found a part missing.
    """

    def __init__(
        self,
        config: ConfigDict,
        data: Data,
        *,
        network: Network,
        frozen: Tree,
        frozen_digests: Mapping[str, str],
        mesh: Mesh,
        splits: Sequence[str] = ("train", "validation"),
    ):
        """Reads and computes nothing.

        Args:
            config: the config of the run.
            data: the records.
            network: the network of the run.
            frozen: `{"params", "stats"}` of the prefix, on the devices.
            frozen_digests: the digests of `frozen`, from the meta of the run.
            mesh: the mesh of all devices.
            splits: names of the splits that go through the prefix.
        """
        self._config, self._network, self._frozen, self._mesh = config, network, frozen, mesh
        self._frozen_digests = frozen_digests
        self._engine: Engine
        if config.bottleneck.engine == BY_XLA:
            self._engine = XLA(config, network=network, frozen=frozen, mesh=mesh)
        else:
            self._engine = LiteRT(config, network=network, frozen=frozen, frozen_digests=frozen_digests, mesh=mesh)
        self._classes = data.classes
        self.splits: Mapping[str, Split] = {name: data.splits[name] for name in splits}
        augmented = views_of(config).changed
        self.views = min(config.bottleneck.views, config.epochs) if augmented else 1
        self._train = [Pass("train", view if augmented else None) for view in range(self.views)]
        self._passes = [*(Pass(name, None) for name in splits if name != "train"), *self._train]
        self.to_compute = self._lacking = self._needed = 0  # bottlenecks, parts, bytes
        self.digests: Mapping[str, Sequence[bytes]] = {}
        self._identities: dict[Pass, list[bytes]] = {}
        self._undigested = False
        self._stores: dict[str, Store] = {}
        self._readers: dict[Pass, Reader] = {}

    @functools.cached_property
    def keys(self) -> list[dict[str, Any]]:
        """Everything that shapes a row except the image; see `bottlenecks.key.keys_of`."""
        return keys_of(self._config, self._network, frozen_digests=self._frozen_digests)

    @functools.cached_property
    def parts(self) -> Parts:
        """The rows of all parts on disk; `look_up` opens them."""
        return parts_of(self.keys, network=self._network)

    def describe(self) -> str:
        words = f"{counts(self.splits)} bottlenecks, {counted(self.views, 'view')}"
        return f"{words}, {self._found('computed' if self._readers else 'to compute')}" if self._identities else words

    def _found(self, missing: str) -> str:
        """What `look_up` found, in a few words; `missing` is what it calls missing rows."""
        total = sum(map(len, self._identities.values()))
        found = f"{self.to_compute} of {total} {missing}" if self.to_compute else f"all {total} found"
        if 0 < self._lacking < len(self.parts.rows):
            found += f", for {self._lacking} of {len(self.parts.rows)} parts"
        return f"{self.parts.describe(total)}, {found}"

    def prepare(self, console: Console, *, stop: Callable[[], int] = never) -> int:
        """Looks rows up and computes the missing ones. If it is stopped, the next run continues after the last block.

        Raises:
            CacheError: the cache cannot be written, or has too little space.
            DataError: images cannot be read.
            EngineError: the network cannot be converted for the engine that was asked for.
        """
        try:
            status = self._make_all(console, stop)
        finally:
            self._engine.close()
        if not status:
            self._stores = {}
            in_memory = self._bytes() <= IN_MEMORY
            self._readers = {
                each: self.parts.reader(wanted, in_memory=in_memory) for each, wanted in self._identities.items()
            }
        return status

    def _make_all(self, console: Console, stop: Callable[[], int]) -> int:
        if status := self.look_up(console, stop=stop):
            return status
        console.print(f"bottlenecks: {self._found('to compute')}")
        if self.to_compute:
            if status := self._engine.ready(console, stop=stop):
                return status
            lacking = {part for missing in self._missing().values() for part in np.flatnonzero(missing.any(axis=1))}
            rows = [self.parts.rows[part] for part in lacking]
            with alone(rows, console, stop=stop) as status:
                if not status:
                    for each in rows:
                        each.refresh()
                    status = self._compute_missing(console, stop)
            return status
        return 0

    def look_up(self, console: Console, *, stop: Callable[[], int] = never) -> int:
        """Finds missing rows. If there are any, decodes the images and checks the free space, but computes no rows.

        Returns:
            0, or what `stop` returned if that is not 0.
        """
        config = self._config
        self.parts.open()
        self._identify(self.splits, console)
        if not self.to_compute:
            warn_of_known_pixels(self.splits, self.digests, classes=self._classes)
            return 0
        if not config.data.skip_bad:  # with it, the number of rows is not known yet
            self._check_space()
        self._engine.begin()
        self._stores = stores_of(config, self.splits, names=self.splits)
        skip_bad, classes = config.data.skip_bad, self._classes
        if status := decode_all(self._stores, console, classes=classes, skip_bad=skip_bad, stop=stop):
            return status
        left_out = any(store.unreadable for store in self._stores.values())
        if any(values_of_processes(left_out or self._undigested)):
            self._identify({name: store.split for name, store in self._stores.items()}, console)
        if any(values_of_processes(self._undigested)):
            raise DataError("an image was decoded, but could not be read again: is the data being copied? Run again")
        self._check_space()
        return 0

    def _identify(self, splits: Mapping[str, Split], console: Console) -> None:
        """Hashes every image, and counts the rows that are missing."""
        with progress_of("images read", total=sum(map(len, splits.values())), console=console) as advance:
            digests = {name: digests_of(split, progress=advance) for name, split in splits.items()}
        self._undigested = any(None in found for found in digests.values())
        # b"" is never found, so the images are decoded, and decoding names or leaves out files that cannot be read
        self.digests = {name: [digest or b"" for digest in found] for name, found in digests.items()}
        self.splits = splits
        self._identities = {each: identities(self.digests[each.split], view=each.view) for each in self._passes}
        missing = list(self._missing().values())
        self.to_compute = sum(int(lacks.any(axis=0).sum()) for lacks in missing)
        lacking = np.sum([lacks.sum(axis=1) for lacks in missing], axis=0)
        self._lacking = int(np.count_nonzero(lacking))
        self._needed = sum(int(n) * rows.row_bytes for n, rows in zip(lacking, self.parts.rows, strict=True))

    def _missing(self) -> dict[Pass, np.ndarray]:
        """bool (parts, records) for each pass: the rows that at least one process of the run lacks."""
        missing = {each: self.parts.missing(wanted) for each, wanted in self._identities.items()}
        if jax.process_count() > 1:
            missing = {each: multihost_utils.process_allgather(lacks).any(axis=0) for each, lacks in missing.items()}
        return missing

    def _check_space(self) -> None:
        folder = self.parts.rows[0].folder
        needed, free = self._needed, shutil.disk_usage(folder).free
        if any(values_of_processes(needed > free)):
            elsewhere = "" if needed > free else ", enough, but not where another process of this run writes"
            raise CacheError(
                f"the bottlenecks need {gigabytes(needed)}, {folder} has {gigabytes(free)} free{elsewhere}: "
                "lower --config.bottleneck.views, set --config.bottleneck.dtype=float16, set JAXCAT_CACHE to another "
                "directory or, if the head is trained, do without bottlenecks: --config.bottleneck.views=0"
            )

    def _bytes(self) -> int:
        return sum(map(len, self._identities.values())) * self.parts.row_bytes

    def _compute_missing(self, console: Console, stop: Callable[[], int]) -> int:
        config = self._config
        requests = [
            request_of(
                self._stores[each.split],
                lacks,
                identities=self._identities[each],
                augment=UNCHANGED if each.view is None else views_of(config),
                view=each.view or 0,
            )
            for each, lacks in self._missing().items()
        ]
        return extract(
            self.parts.rows,
            [request for request in requests if len(request.records)],
            engine=self._engine,
            console=console,
            stop=stop,
        )

    def train(self, epoch: int, *, first: int) -> Batches:
        config, split = self._config, self.splits["train"]
        indices = order(len(split), seed=config.seed, epoch=epoch)[first * config.batch_size :]
        steps_per_epoch = -(-len(split) // config.batch_size)
        begin = epoch * steps_per_epoch + first
        most = self._stacked(steps_per_epoch, config.checkpoint.every_steps)
        sizes = chunks(begin, (epoch + 1) * steps_per_epoch, every=config.checkpoint.every_steps, most=most)
        each = self._train[epoch % self.views]
        return self._batches_of(each)(indices=indices, batch_size=config.batch_size, sizes=sizes)

    def validation(self) -> Batches:
        total = len(self.splits["validation"])
        batch_size = evaluated_together(total, row_bytes=self.parts.row_bytes)
        return self._batches_of(self._first("validation"))(indices=np.arange(total), batch_size=batch_size)

    def reader_of(self, split: str) -> list[tuple[PooledPart, PartReader]]:
        """Each part of the features of a split, of "train" the first view if it has several, and its reader.

        Only after `prepare`, and if the prefix ends with "pool".
        """
        reader = self._readers[self._first(split)]
        return [(part, reader.part(index)) for index, part in enumerate(self._network.parts)]

    def _first(self, split: str) -> Pass:
        return next(each for each in self._passes if each.split == split)

    def _stacked(self, steps_per_epoch: int, every: int) -> int:
        """How many batches to stack: an even share of the steps between two checkpoints; 1 if the suffix has blocks."""
        if self._network.boundary in self._network.blocks:
            return 1
        between = min(every, steps_per_epoch) if every else steps_per_epoch
        return stacked(between, batch_bytes=self._config.batch_size * self.parts.row_bytes)

    def _batches_of(self, each: Pass) -> Callable[..., Batches]:
        """`batches_of` this pass; still to be given are the records and their number in a batch."""
        labels = self.splits[each.split].labels
        return functools.partial(batches_of, self._readers[each], self.parts, labels=labels, mesh=self._mesh)
