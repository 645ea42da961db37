"""Record numbers in, batches on the devices out: fetch → augment → pad and mask → one global array per name.

The caller hands over the order of the records, so a run resumes by leaving out the first ones: tf.data keeps no state
worth saving. Every process makes its own rows of every global batch, and losses do not depend on how many there are.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcat.augment import Augmentation, apply, parameters, store_size, tensorflow
from jaxcat.sharding import padded_batch_size, to_global

# Batches fetched at the same time: a core each, but memory is the limit on a large machine (16 × 64 at 299 px: 275 MB).
MOST_THREADS = 16


class Store(Protocol):
    """Random access to the pictures of a source."""

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
    """A batch larger than its split has the split's size, so that a large number costs no memory.

    Of the split, not of what is left of it: a run that continues within an epoch takes steps of the same shape.
    """
    return max(1, min(batch_size, records))


def share_of(indices: np.ndarray, *, batch_size: int, mesh: Mesh) -> Share:
    """What this process has of the batches over `indices`."""
    return Share(
        indices=np.asarray(indices),
        batch_size=batch_size,
        padded=padded_batch_size(batch_size, mesh),
        process=jax.process_index(),
        processes=jax.process_count(),
    )


def batches(
    store: Store,
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
        store: gives pictures of `store_size(augment, size)` pixels.
        labels: (number of records,) integers, by record number.
        indices: (count,) record numbers in the order wanted, those of finished steps left out.
        batch_size: records in a batch, over all processes.
        size: side of the pictures in pixels.
        mesh: from `sharding.make_mesh`.
        augment: one of `augment.NAMES`.
        seed: of the run.
        view: which augmented view of every record.
        prefetch: batches kept ready in memory.
        threads: batches fetched, and pictures augmented, at the same time [a core each, 16 at most]; changes only the
            speed.

    Returns:
        An iterator of `{"image": uint8 (P, size, size, 3), "label": int32 (P,), "mask": bool (P,)}`, P the
        batch size padded for the devices, split over them by rows. Rows with a false mask are black, with label 0.

    Raises:
        ValueError: `augment` is unknown; while iterating: the store's pictures have another size.
        Exception: while iterating, whatever `store.gather` raised, as it was raised.
    """
    share = share_of(indices, batch_size=batch_size, mesh=mesh)
    failures: dict[int, Exception] = {}
    views = _Views(store, share, augment=augment, seed=seed, view=view, size=size, failures=failures)
    images = _dataset(views, prefetch=prefetch, threads=threads or min(os.cpu_count() or 1, MOST_THREADS))
    return Batches(images.as_numpy_iterator(), share, labels=labels, failures=failures, mesh=mesh)


class Batches(Iterator[dict[str, jax.Array]]):
    """The iterator `batches` returns. A transfer runs beside the step before it, if the reader has not waited for that.

    Attributes:
        wait_seconds: how long the consumer has waited for pictures so far.
    """

    def __init__(
        self,
        images: Iterator[np.ndarray],
        share: Share,
        *,
        labels: np.ndarray,
        failures: dict[int, Exception],
        mesh: Mesh,
    ) -> None:
        self.wait_seconds = 0.0
        self._images = images
        self._share = share
        self._labels = np.asarray(labels, np.int32)
        self._failures = failures
        self._mesh = mesh
        self._step = 0

    def __next__(self) -> dict[str, jax.Array]:
        if self._step == self._share.steps:
            raise StopIteration
        begun = time.perf_counter()
        image = next(self._images)
        self.wait_seconds += time.perf_counter() - begun
        if self._step in self._failures:
            raise self._failures[self._step]
        records = self._share.records(self._step)
        mask = np.arange(self._share.rows) < len(records)
        self._step += 1
        label = padded(self._labels[records], self._share.rows)
        return to_global(self._mesh, {"image": image, "label": label, "mask": mask})


class _Views:
    """This process's pictures of a batch and what is to be done to them, by step: the NumPy part of the pipeline."""

    def __init__(
        self,
        store: Store,
        share: Share,
        *,
        augment: str,
        seed: int,
        view: int,
        size: int,
        failures: dict[int, Exception],
    ) -> None:
        self.share = share
        self.size = size
        self._store = store
        self._side = store_size(augment, size)
        self._draw = functools.partial(parameters, augment, seed=seed, view=view, size=size)
        self._failures = failures
        # How many arrays come beside the pictures: fixed by the name of the augmentation.
        self.parameter_count = len(self._parameters(np.array([], int)))

    def __call__(self, step: np.ndarray) -> list[np.ndarray]:
        """Batch `step`: images (rows, S, S, 3) uint8 and the arrays of `Augmentation` that are not None.

        An error is kept by its step for the consumer to raise, because TensorFlow would make it one of its own.
        """
        records = self.share.records(int(step))
        try:
            images = self._gather(records)
        except Exception as error:
            self._failures[int(step)] = error
            records = records[:0]
            images = self._gather(records)
        return [padded(array, self.share.rows) for array in (images, *self._parameters(records))]

    def _gather(self, records: np.ndarray) -> np.ndarray:
        shape = (len(records), self._side, self._side, 3)
        if len(records) == 0:
            return np.zeros(shape, np.uint8)
        images = self._store.gather(records)
        if images.shape != shape or images.dtype != np.uint8:
            raise ValueError(f"the store gave {images.dtype} {images.shape}, expected uint8 {shape}")
        return images

    def _parameters(self, records: np.ndarray) -> list[np.ndarray]:
        return [array for array in self._draw(indices=records) if array is not None]


def _dataset(views: _Views, *, prefetch: int, threads: int) -> Any:
    """A tf.data.Dataset of (rows, size, size, 3) uint8 batches in order of step."""
    tf = tensorflow()
    dtypes = [tf.uint8] + [tf.float32] * views.parameter_count

    def fetch(step: Any) -> Any:
        images, *arrays = tf.numpy_function(views, [step], dtypes)
        rows = views.share.rows
        images = tf.ensure_shape(images, [rows, None, None, 3])
        return (images, *(tf.ensure_shape(array, [rows, None]) for array in arrays)) if arrays else images

    def augment_one(image: Any, *arrays: Any) -> Any:
        return apply(image[None], Augmentation(*(array[None] for array in arrays)), size=views.size)[0]

    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1  # the parallel work is whole pictures, not parts of one
    dataset = tf.data.Dataset.range(views.share.steps).map(fetch, num_parallel_calls=threads)
    if views.parameter_count:
        # One picture at a time fits the processor's cache: about twice as fast as the op on a whole float32 batch.
        dataset = dataset.unbatch().map(augment_one, num_parallel_calls=threads).batch(views.share.rows)
    return dataset.prefetch(prefetch).with_options(options)


def padded(array: np.ndarray, rows: int) -> np.ndarray:
    """(n, ...) → (rows, ...) by zeros; the array itself when it is full."""
    if len(array) == rows:
        return array
    return np.concatenate([array, np.zeros((rows - len(array), *array.shape[1:]), array.dtype)])
