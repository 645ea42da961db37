"""Record numbers in, batches on the devices out: fetch → augment → pad and mask → one global array per name.

The caller hands over the order of the records, so a run resumes by leaving out the first ones: tf.data keeps no state
worth saving. Every process makes its own rows of every global batch, and losses do not depend on how many there are.
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

from jaxcat.data.augment import apply, parameters, store_size, tensorflow
from jaxcat.errors import DataError
from jaxcat.system.devices import padded_batch_size, to_global

# Batches fetched at the same time: a core each, but memory is the limit on a large machine (16 × 64 at 299 px: 275 MB).
MOST_THREADS = 16


class Images(Protocol):
    """Random access to images of one size; a `Store` is one."""

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """(n,) record numbers → (n, S, S, 3) uint8. May be called from several threads at once."""


class Share(NamedTuple):
    """Which records one process has in each global batch: its equal, contiguous part of the padded rows.

    Attributes:
        indices: (count,) record numbers of all the batches, in order.
        batch_size: records in a global batch; the last one may have fewer.
        padded: rows of a global batch, a multiple of `processes` and at least `batch_size`.
        process: which process, from 0.
        processes: how many there are.
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
        """(count, `rows`) the record numbers of this process in `count` batches from `step` on; -1 is padding."""
        batches = np.full((count, self.batch_size), -1)
        records = self.indices[step * self.batch_size : (step + count) * self.batch_size]
        batches.reshape(-1)[: len(records)] = records
        table = np.full((count, self.padded), -1)
        table[:, : self.batch_size] = batches
        return table[:, self.process * self.rows : (self.process + 1) * self.rows]

    def records(self, step: int) -> np.ndarray:
        """(n,) the record numbers of this process in batch `step`; n ≤ `rows`, the rest is padding."""
        numbers = self.numbers(step, 1)[0]
        return numbers[numbers >= 0]


def at_most(records: int, batch_size: int) -> int:
    """The batch size, but no more than the split has `records`: a larger one would only take memory.

    It counts the whole split, not what is left of it: a run that continues within an epoch takes steps of one shape.
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
    """Batches on the devices. One is transferred beside the step before it, unless the consumer waits for that step.

    A batch is `{"image" or "bottleneck": (P, …), "label": int32 (P,), "mask": bool (P,)}`, P the batch size padded for
    the devices, split over them by rows. Rows with a false mask are zero, with label 0.

    Attributes:
        wait_seconds: how long the consumer has waited for data so far.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[np.ndarray], np.ndarray],
        share: Share,
        *,
        labels: np.ndarray,
        mesh: Mesh,
        sizes: Sequence[int] | None = None,
    ) -> None:
        """Reads nothing yet.

        Args:
            name: of what is read: "image" or "bottleneck".
            read: record numbers of this process in K batches (K, rows), -1 for padding → their content (K, rows, …),
                padding zero. Called for each batch in order.
            share: of this process.
            labels: (number of records,) integers, by record number.
            mesh: of all devices.
            sizes: how many batches come at a time, K > 1 of them stacked with K as the first dimension; by default
                each comes alone.
        """
        self.wait_seconds = 0.0
        self._name, self._read, self._share, self._mesh = name, read, share, mesh
        self._labels = np.asarray(labels, np.int32)
        self._sizes, self._step = iter([1] * share.steps if sizes is None else sizes), 0

    def __next__(self) -> dict[str, jax.Array]:
        count = next(self._sizes)
        began = time.perf_counter()
        records = self._share.numbers(self._step, count)
        mask = records >= 0
        label = np.where(mask, self._labels[records], 0)
        batch = {self._name: self._read(records), "label": label, "mask": mask}
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
    augment: str = "none",
    seed: int = 0,
    view: int = 0,
    prefetch: int = 2,
    threads: int | None = None,
) -> Batches:
    """The batches of one pass over `indices`, in that order, on the devices.

    Args:
        store: gives images of `store_size(augment, size)` pixels.
        labels: (number of records,) integers, by record number.
        indices: (count,) record numbers in the order wanted, those of finished steps left out.
        batch_size: records in a batch, over all processes.
        size: side of the images in pixels.
        mesh: from `devices.make_mesh`.
        augment: a name in `augment.AUGMENTATIONS`.
        seed: of the run.
        view: which augmented view of every record.
        prefetch: batches kept ready in memory.
        threads: batches fetched, and images augmented, at the same time [a core each, 16 at most]; changes only the
            speed.

    Returns:
        An iterator of `{"image": uint8 (P, size, size, 3), "label": int32 (P,), "mask": bool (P,)}`; see `Batches`.

    Raises:
        ValueError: `augment` is unknown; while iterating: the store's images have another size.
        Exception: while iterating, whatever `store.gather` raised, as it was raised.
    """
    share = share_of(indices, batch_size=batch_size, mesh=mesh)
    views = _Views(store, share, augment=augment, seed=seed, view=view, size=size)
    made = _dataset(views, prefetch=prefetch, threads=threads or min(os.cpu_count() or 1, MOST_THREADS))
    iterator = made.as_numpy_iterator()

    def read(records: np.ndarray) -> np.ndarray:
        try:
            return next(iterator)[None]
        except tensorflow().errors.OpError as error:
            # TensorFlow made the store's error one of its own: fetch again without it, which raises the store's.
            views.arrays(records[records >= 0])
            raise DataError(
                f"a batch could not be read, and at the next attempt it could ({type(error).__name__}): if the data "
                "lie on another machine, look at the network; run the same command again"
            ) from error

    return Batches("image", read, share, labels=labels, mesh=mesh)


class _Views:
    """This process's images of a batch and the parameters of their views, by name: the NumPy part of the batch path."""

    def __init__(self, store: Images, share: Share, *, augment: str, seed: int, view: int, size: int) -> None:
        self.share, self.size = share, size
        self._store, self._side = store, store_size(augment, size)
        self._draw = functools.partial(parameters, augment, seed=seed, view=view, size=size)
        self.empty = self.arrays(np.array([], int))

    def __call__(self, step: np.ndarray) -> list[np.ndarray]:
        """The arrays of batch `step`, padded, in the order of `empty`."""
        found = self.arrays(self.share.records(int(step)))
        return [padded(found[name], self.share.rows) for name in self.empty]

    def arrays(self, records: np.ndarray) -> dict[str, np.ndarray]:
        """(n,) record numbers → "image" uint8 (n, S, S, 3), and the `Parameters` of their views."""
        shape = (len(records), self._side, self._side, 3)
        images = self._store.gather(records) if len(records) else np.zeros(shape, np.uint8)
        if images.shape != shape or images.dtype != np.uint8:
            raise ValueError(f"the store gave {images.dtype} {images.shape}, expected uint8 {shape}")
        return {"image": images, **self._draw(indices=records)}


def _dataset(views: _Views, *, prefetch: int, threads: int) -> Any:
    """A tf.data.Dataset of (rows, size, size, 3) uint8 batches in order of step."""
    tf = tensorflow()
    rows, names = views.share.rows, list(views.empty)
    dtypes = [array.dtype for array in views.empty.values()]
    shapes = {name: [rows, *array.shape[1:]] for name, array in views.empty.items()}

    def fetch(step: Any) -> Any:
        found = dict(zip(names, tf.numpy_function(views, [step], dtypes), strict=True))
        found = {name: tf.ensure_shape(array, shapes[name]) for name, array in found.items()}
        return found if len(names) > 1 else found["image"]

    def augment_one(record: dict[str, Any]) -> Any:
        drawn = {name: array[None] for name, array in record.items() if name != "image"}
        return apply(record["image"][None], drawn, size=views.size)[0]

    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1  # the parallel work is whole images, not parts of one
    dataset = tf.data.Dataset.range(views.share.steps).map(fetch, num_parallel_calls=threads)
    if len(names) > 1:
        # One image at a time fits the processor's cache: about twice as fast as the op on a whole float32 batch.
        dataset = dataset.unbatch().map(augment_one, num_parallel_calls=threads).batch(rows)
    return dataset.prefetch(prefetch).with_options(options)


def padded(array: np.ndarray, rows: int) -> np.ndarray:
    """(n, ...) → (rows, ...) by zeros; the array itself if it is full."""
    if len(array) == rows:
        return array
    return np.concatenate([array, np.zeros((rows - len(array), *array.shape[1:]), array.dtype)])
