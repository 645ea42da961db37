"""Training on bottlenecks: the frozen prefix's outputs, computed once for every view, then read from disk (few: once).

Where the suffix has no convolution, many steps come stacked and run in one compiled loop. Convolution gradients inside
a loop are 12 to 25 times slower on a CPU, so a suffix with blocks gets its batches one by one.
"""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxcat.bottleneck import Reader, Rows, identities
from jaxcat.compilation import jit
from jaxcat.console import Console
from jaxcat.data import Data, Split, Store, order
from jaxcat.errors import CacheError, DataError
from jaxcat.extraction import Request, alone, extract
from jaxcat.network import HEAD, Network, Tree
from jaxcat.pipeline import Share, at_most, share_of
from jaxcat.sharding import aligned, replicated, to_global, values_of_processes
from jaxcat.sources import TimedBatches, counts, never, open_pictures

MOST_STEPS = 64  # in one compiled loop
MOST_BYTES = 2**26  # of rows in one transfer
IN_MEMORY = 2**28  # bytes; rows of all passes together that take no more are read once, others through memory maps
EVALUATED_TOGETHER = 256  # rows


class Pass(NamedTuple):
    """One pass of a split through the prefix; `view` is None where nothing is augmented."""

    split: str
    view: int | None


class Cached:
    """Rows of the prefix's output: `bottleneck.views` views of every training picture, validation as it is.

    See `sources.Source`. Pictures are opened, and so checked, only where a row is missing.

    Args:
        frozen: parameters and statistics of the prefix, on the devices.
        key: from `bottleneck.key_of`.
    """

    def __init__(
        self, config: ConfigDict, data: Data, *, network: Network, frozen: Tree, key: dict[str, Any], mesh: Mesh
    ):
        self._config, self._network, self._frozen, self._mesh = config, network, frozen, mesh
        size = config.data.image_size
        picture = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
        self._rows = Rows(key, shape=jax.eval_shape(network.prefix, frozen, picture).shape[1:])
        augmented = config.data.augment != "none"
        self.views = min(config.bottleneck.views, config.epochs) if augmented else 1  # no more than are read
        self._passes = [Pass("validation", None)]
        self._passes += [Pass("train", view if augmented else None) for view in range(self.views)]
        self._stores: dict[str, Store] = {}
        self._readers: dict[Pass, Reader] = {}
        self._identify({name: data.splits[name] for name in ("train", "validation")})
        self.to_compute = self._count_missing()
        if self.to_compute:
            if not config.data.skip_bad:  # else it is not known yet how many rows there are to be
                self._check_space()
            self._stores = open_pictures(config, self.splits)
            left_out = any(store.unreadable for store in self._stores.values())
            if any(values_of_processes(left_out or self._undigested)):
                self._identify({name: store.split for name, store in self._stores.items()})
                self.to_compute = self._count_missing()
            if any(values_of_processes(self._undigested)):
                raise DataError("a picture could be decoded and not be read again: is the data being copied? Run again")
            self._check_space()

    def _identify(self, splits: dict[str, Split]) -> None:
        def digest(split: Split, record: int) -> bytes:
            try:
                return split.digest(record)
            except DataError:
                return b""  # found nowhere, so the pictures are opened, which names or leaves out all such files

        self.splits = splits
        with ThreadPoolExecutor() as threads:
            digests = {
                name: list(threads.map(functools.partial(digest, split), range(len(split))))
                for name, split in splits.items()
            }
        self._undigested = any(b"" in found for found in digests.values())
        self._identities = {each: identities(digests[each.split], view=each.view) for each in self._passes}

    def _missing(self) -> dict[Pass, np.ndarray]:
        """bool (records,) for each pass: what this process lacks, or any process of the run."""
        missing = {each: self._rows.missing(wanted) for each, wanted in self._identities.items()}
        if jax.process_count() > 1:
            missing = {each: multihost_utils.process_allgather(lacks).any(axis=0) for each, lacks in missing.items()}
        return missing

    def _count_missing(self) -> int:
        return sum(int(lacks.sum()) for lacks in self._missing().values())

    def _check_space(self) -> None:
        needed, free = self.to_compute * self._rows.row_bytes, shutil.disk_usage(self._rows.folder).free
        if any(values_of_processes(needed > free)):
            elsewhere = "" if needed > free else ", enough, but not where another process of this run writes"
            raise CacheError(
                f"the bottlenecks need {gigabytes(needed)}, {self._rows.folder} has {gigabytes(free)} free{elsewhere}: "
                "take fewer --config.bottleneck.views, --config.bottleneck.dtype=float16, another JAXCAT_CACHE, or "
                "--config.bottleneck.views=0 to do without"
            )

    def _bytes(self) -> int:
        return sum(map(len, self._identities.values())) * self._rows.row_bytes

    def describe(self) -> str:
        rows = sum(map(len, self._identities.values()))
        shape, size = "×".join(map(str, self._rows.shape)), gigabytes(self._bytes())
        found = f"{self.to_compute} of {rows} to compute" if self.to_compute else f"all {rows} found"
        views = "1 view" if self.views == 1 else f"{self.views} views"
        return f"{counts(self.splits)} bottlenecks, {views}, {shape} {self._rows.dtype}, {size}, {found}"

    def prepare(self, console: Console, *, stop: Callable[[], int] = never) -> int:
        """Compute the missing rows. Ended in the middle, the next start goes on after the last whole block."""
        if self.to_compute:
            with alone(self._rows, console, stop=stop) as status:
                if not status:
                    self._rows.refresh()
                    status = self._compute_missing(console, stop)
                if status:
                    return status
        self._stores = {}
        in_memory = self._bytes() <= IN_MEMORY
        self._readers = {
            each: self._rows.reader(wanted, in_memory=in_memory) for each, wanted in self._identities.items()
        }
        return 0

    def _compute_missing(self, console: Console, stop: Callable[[], int]) -> int:
        config = self._config
        requests = [
            Request(
                self._stores[each.split],
                records=np.flatnonzero(lacks),
                identities=self._identities[each],
                augment="none" if each.view is None else config.data.augment,
                view=each.view or 0,
            )
            for each, lacks in self._missing().items()
        ]
        prefix = jit(self._network.prefix, out_shardings=replicated(self._mesh))
        return extract(
            self._rows,
            [request for request in requests if len(request.records)],
            prefix=functools.partial(prefix, self._frozen),
            size=config.data.image_size,
            seed=config.seed,
            mesh=self._mesh,
            console=console,
            stop=stop,
        )

    def train(self, epoch: int, *, first: int) -> TimedBatches:
        config, split = self._config, self.splits["train"]
        indices = order(len(split), seed=config.seed, epoch=epoch)[first * config.batch_size :]
        steps_per_epoch = -(-len(split) // config.batch_size)
        begin = epoch * steps_per_epoch + first
        most = self._stacked(steps_per_epoch, config.checkpoint.every_steps)
        sizes = chunks(begin, (epoch + 1) * steps_per_epoch, every=config.checkpoint.every_steps, most=most)
        each = self._passes[1 + epoch % self.views]
        return self._batches(each, indices, batch_size=config.batch_size, sizes=sizes)

    def validation(self) -> TimedBatches:
        total = len(self.splits["validation"])
        batch_size = max(1, min(total, EVALUATED_TOGETHER, MOST_BYTES // self._rows.row_bytes))
        return self._batches(
            self._passes[0], np.arange(total), batch_size=batch_size, sizes=[1] * -(-total // batch_size)
        )

    def _stacked(self, steps_per_epoch: int, every: int) -> int:
        """How many batches to stack: about equal parts of what lies between two checkpoints, or 1."""
        if self._network.boundary not in HEAD:
            return 1
        between = min(every, steps_per_epoch) if every else steps_per_epoch
        most = max(1, min(MOST_STEPS, MOST_BYTES // (self._config.batch_size * self._rows.row_bytes)))
        return between // -(-between // most)

    def _batches(self, each: Pass, indices: np.ndarray, *, batch_size: int, sizes: Sequence[int]) -> RowBatches:
        labels = self.splits[each.split].labels
        share = share_of(indices, batch_size=at_most(len(labels), batch_size), mesh=self._mesh)
        return RowBatches(self._rows, self._readers[each], share, labels=labels, sizes=sizes, mesh=self._mesh)


class RowBatches(Iterator[dict[str, Array]]):
    """Batches of rows on the devices, read while the devices are at the steps before, if the reader has not waited.

    A batch is `{"bottleneck": (P, …), "label": int32 (P,), "mask": bool (P,)}`; where `sizes` says K > 1, K of them
    come stacked, with K as the first dimension.

    Attributes:
        wait_seconds: spent on reading rows so far; on a device that computes meanwhile this is no loss.
    """

    def __init__(self, rows: Rows, read: Reader, share: Share, *, labels: np.ndarray, sizes: Sequence[int], mesh: Mesh):
        self.wait_seconds = 0.0
        self._rows, self._read, self._share, self._mesh = rows, read, share, mesh
        self._labels = np.asarray(labels, np.int32)
        self._sizes, self._step = iter(sizes), 0

    def __next__(self) -> dict[str, Array]:
        count = next(self._sizes)
        began = time.perf_counter()
        records = self._share.numbers(self._step, count)
        self._step += count
        mask = records >= 0
        bottleneck = aligned((*records.shape, *self._rows.shape), self._rows.dtype)
        self._read(records.reshape(-1), bottleneck.reshape(-1, *self._rows.shape))
        bottleneck[~mask] = 0  # padding has read the last record
        rows = {"bottleneck": bottleneck, "label": np.where(mask, self._labels[records], 0), "mask": mask}
        if count == 1:
            rows = {name: array[0] for name, array in rows.items()}
        self.wait_seconds += time.perf_counter() - began
        return to_global(self._mesh, rows, stacked=count > 1)


def chunks(begin: int, end: int, *, every: int, most: int) -> list[int]:
    """Numbers of steps that lead from step `begin` to `end`, each `most` or 1, none across a multiple of `every`."""
    sizes = []
    while begin < end:
        boundary = min(end, (begin // every + 1) * every) if every else end
        size = most if boundary - begin >= most else 1
        sizes.append(size)
        begin += size
    return sizes


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
