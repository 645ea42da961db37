"""Turns record numbers into batches on the devices: fetch → augment → pad and mask → one global array per name.

Views are made here if the host makes them; else a batch has the arrays from which `augmentation.device.views` makes
them.

The caller gives the order of the records. A run resumes by leaving out the records of finished steps, so no state of
tf.data has to be saved. Every process makes its own rows of every global batch, and losses do not depend on the number
of processes.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcat.data.augmentation.device import for_device
from jaxcat.data.augmentation.host import apply, tensorflow
from jaxcat.data.augmentation.table import DEVICE, UNCHANGED, Views, parameters, store_size
from jaxcat.data.fetching import ahead
from jaxcat.errors import DataError
from jaxcat.system.devices import padded_batch_size, to_global

# Most batches fetched at the same time, however many cores there are: 16 × 64 images of 299 px take 275 MB.
MOST_THREADS = 16


class Images(Protocol):
    """Random access to images of one size, such as a `Store`."""

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """(n,) record numbers → (n, S, S, 3) uint8. May be called from several threads at once."""


class Share(NamedTuple):
    """The records of one process in each global batch: an equal, contiguous part of the padded rows.

    Attributes:
        indices: (count,) record numbers of all the batches, in order.
        batch_size: records in a global batch; the last one may have fewer.
        padded: rows of a global batch, a multiple of `processes` and at least `batch_size`.
        process: number of the process, from 0.
        processes: how many processes there are.
    """

    indices: np.ndarray
    batch_size: int
    padded: int
    process: int
    processes: int

    @property
    def steps(self) -> int:
        """How many batches there are."""
        return -(-len(self.indices) // self.batch_size)

    @property
    def rows(self) -> int:
        """Rows of this process in every batch, padding included."""
        return self.padded // self.processes

    def numbers(self, step: int, count: int) -> np.ndarray:
        """This process's record numbers in `count` batches from `step` on: (count, `rows`), in which -1 is padding."""
        batches = np.full((count, self.batch_size), -1)
        records = self.indices[step * self.batch_size : (step + count) * self.batch_size]
        batches.reshape(-1)[: len(records)] = records
        table = np.full((count, self.padded), -1)
        table[:, : self.batch_size] = batches
        return table[:, self.process * self.rows : (self.process + 1) * self.rows]

    def records(self, step: int) -> np.ndarray:
        """This process's record numbers in batch `step`: (n,), n ≤ `rows`, without padding."""
        numbers = self.numbers(step, 1)[0]
        return numbers[numbers >= 0]


def at_most(records: int, batch_size: int) -> int:
    """The batch size, but at most the number of records in the split: a larger batch would only take memory.

    `records` counts the whole split, not what is left of an epoch, so that all steps of a resumed run have one shape.
    """
    return max(1, min(batch_size, records))


def share_of(indices: np.ndarray, *, batch_size: int, mesh: Mesh) -> Share:
    """The share of this process in the batches over `indices`."""
    return Share(
        indices=np.asarray(indices),
        batch_size=batch_size,
        padded=padded_batch_size(batch_size, mesh),
        process=jax.process_index(),
        processes=jax.process_count(),
    )


class Batches(Iterator[dict[str, jax.Array]]):
    """Batches on the devices. A batch is transferred during the step before it, unless the caller waits for that step.

    A batch is `{"image" or "bottleneck": (P, …), "label": int32 (P,), "mask": bool (P,)}`, and, if the devices make the
    views, the arrays that they need. P is the batch size padded for the devices; its rows are split over them. Rows
    whose mask is false are zero and have label 0.

    Attributes:
        wait_seconds: how long the consumer has waited for data so far.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], dict[str, np.ndarray]],
        share: Share,
        *,
        labels: np.ndarray,
        mesh: Mesh,
        sizes: Sequence[int] | None = None,
    ) -> None:
        """Reads nothing yet.

        Args:
            read: takes this process's record numbers in K batches, (K, rows) with -1 for padding, and gives their
                content by name, (K, rows, …) with zeros for padding. Called for the batches in order.
            share: the share of this process.
            labels: (number of records,) integers, by record number.
            mesh: the mesh of all devices.
            sizes: number of batches K in each item. If K > 1, they are stacked and K is the first dimension; by
                default every item is one batch without that dimension.
        """
        self.wait_seconds = 0.0
        self._read, self._share, self._mesh = read, share, mesh
        self._labels = np.asarray(labels, np.int32)
        self._sizes, self._step = iter([1] * share.steps if sizes is None else sizes), 0

    def __next__(self) -> dict[str, jax.Array]:
        count = next(self._sizes)
        began = time.perf_counter()
        records = self._share.numbers(self._step, count)
        mask = records >= 0
        label = np.where(mask, self._labels[records], 0)
        batch = {**self._read(records), "label": label, "mask": mask}
        if count == 1:
            batch = {name: array[0] for name, array in batch.items()}
        self._step += count
        self.wait_seconds += time.perf_counter() - began
        return to_global(self._mesh, batch, stacked=count > 1)


def batches(
    store: Images,
    labels: np.ndarray,
    indices: np.ndarray,
    *,
    batch_size: int,
    size: int,
    mesh: Mesh,
    augment: Views = UNCHANGED,
    seed: int = 0,
    view: int = 0,
    prefetch: int = 2,
    threads: int | None = None,
) -> Batches:
    """The batches of one pass over `indices`, in that order, on the devices.

    Args:
        store: gives images of `store_size(augment.name, size)` pixels.
        labels: (number of records,) integers, by record number.
        indices: (count,) record numbers in the order wanted, without those of finished steps.
        batch_size: records in a batch, over all processes.
        size: side of the images in pixels.
        mesh: from `devices.make_mesh`.
        augment: how the views are made.
        seed: the seed of the run.
        view: number of the augmented view of every record.
        prefetch: batches kept ready in memory.
        threads: how many batches are fetched, and how many images the host augments, at the same time; by default one
            per core, 16 at most. It changes only the speed.

    Returns:
        An iterator of `{"image": uint8 (P, size, size, 3), "label": int32 (P,), "mask": bool (P,)}`; see `Batches`. If
        the device makes the views, the images are those of the store, and the arrays of `for_device` are in the batch.

    Raises:
        ValueError: `augment` is unknown; while iterating: the store's images have another size.
        Exception: while iterating: the error of `store.gather`, or DataError if it does not occur again.
    """
    share = share_of(indices, batch_size=batch_size, mesh=mesh)
    fetched = _Fetched(store, share, augment=augment, seed=seed, view=view, size=size)
    threads = threads or min(os.cpu_count() or 1, MOST_THREADS)
    if augment.changed and augment.on != DEVICE:
        read = _by_host(fetched, prefetch=prefetch, threads=threads)
    else:
        found = ahead(fetched, share.steps, threads=threads, ready=prefetch)

        def read(records: np.ndarray) -> dict[str, np.ndarray]:
            return {name: array[None] for name, array in next(found).items()}

    return Batches(read, share, labels=labels, mesh=mesh)


def _by_host(fetched: _Fetched, *, prefetch: int, threads: int) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """What `Batches` reads if the host makes the views."""
    iterator = _dataset(fetched, prefetch=prefetch, threads=threads).as_numpy_iterator()

    def read(records: np.ndarray) -> dict[str, np.ndarray]:
        try:
            return {"image": next(iterator)[None]}
        except tensorflow().errors.OpError as error:
            # TensorFlow replaces the store's error by its own. Fetching again without TensorFlow raises the store's.
            fetched.arrays(records[records >= 0])
            raise DataError(
                f"a batch could not be read, but at the next attempt it could ({type(error).__name__}): if the data "
                "lie on another machine, check the network; run the same command again"
            ) from error

    return read


class _Fetched:
    """The NumPy part of a batch: this process's images and what is drawn for their views, as arrays by name."""

    def __init__(self, store: Images, share: Share, *, augment: Views, seed: int, view: int, size: int) -> None:
        self.share, self.size = share, size
        self._store, self._side = store, store_size(augment.name, size)
        self._draw = functools.partial(parameters, augment.name, seed=seed, view=view, size=size, erase=augment.erase)
        self._on_device = augment.on == DEVICE
        self.empty = self.arrays(np.array([], int))

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """The arrays of batch `step`, padded."""
        found = self.arrays(self.share.records(step))
        return {name: padded(array, self.share.rows) for name, array in found.items()}

    def arrays(self, records: np.ndarray) -> dict[str, np.ndarray]:
        """(n,) record numbers → "image" uint8 (n, S, S, 3), and their `Parameters` or, for a device, `for_device`."""
        shape = (len(records), self._side, self._side, 3)
        images = self._store.gather(records) if len(records) else np.zeros(shape, np.uint8)
        if images.shape != shape or images.dtype != np.uint8:
            raise ValueError(f"the store gave {images.dtype} {images.shape}, expected uint8 {shape}")
        drawn = self._draw(indices=records)
        return {"image": images, **(for_device(drawn, size=self.size) if self._on_device else drawn)}


def _dataset(fetched: _Fetched, *, prefetch: int, threads: int) -> Any:
    """A tf.data.Dataset of (rows, size, size, 3) uint8 batches in order of step."""
    tf = tensorflow()
    rows, names = fetched.share.rows, list(fetched.empty)
    dtypes = [array.dtype for array in fetched.empty.values()]
    shapes = {name: [rows, *array.shape[1:]] for name, array in fetched.empty.items()}

    def in_order(step: np.ndarray) -> list[np.ndarray]:
        found = fetched(int(step))
        return [found[name] for name in names]

    def fetch(step: Any) -> Any:
        found = dict(zip(names, tf.numpy_function(in_order, [step], dtypes), strict=True))
        return {name: tf.ensure_shape(array, shapes[name]) for name, array in found.items()}

    def augment_one(record: dict[str, Any]) -> Any:
        drawn = {name: array[None] for name, array in record.items() if name != "image"}
        return apply(record["image"][None], drawn, size=fetched.size)[0]

    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1  # whole images run in parallel, not parts of one
    dataset = tf.data.Dataset.range(fetched.share.steps).map(fetch, num_parallel_calls=threads)
    # One image fits the processor's cache, so this is about twice as fast as the op on a whole float32 batch.
    dataset = dataset.unbatch().map(augment_one, num_parallel_calls=threads).batch(rows)
    return dataset.prefetch(prefetch).with_options(options)


def padded(array: np.ndarray, rows: int) -> np.ndarray:
    """Pads (n, ...) with zeros to (rows, ...); gives the array itself if n = rows."""
    if len(array) == rows:
        return array
    return np.concatenate([array, np.zeros((rows - len(array), *array.shape[1:]), array.dtype)])
