"""Computes bottlenecks: runs images through the frozen prefix and adds the outputs to the cache in blocks of rows."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from rich.console import Console

from jaxcat.bottlenecks.rows import Rows, cannot_write
from jaxcat.data.batches import batches
from jaxcat.data.store import Store
from jaxcat.system.console import progress_of
from jaxcat.system.locks import locked
from jaxcat.wording import counted

# Images in a batch for each device; larger batches are no faster on a CPU.
IMAGES_PER_DEVICE = {"cpu": 32}
IMAGES_PER_ACCELERATOR = 256


class Request(NamedTuple):
    """Rows to compute for one pass of a split.

    Attributes:
        store: the split's images, of the size that `augment` needs.
        records: (n,) numbers of the records to compute.
        identities: the identities (see `rows`) of all records of the pass, by record number.
        augment, view: the augmentation and the number of the view to compute.
    """

    store: Store
    records: np.ndarray
    identities: Sequence[bytes]
    augment: str
    view: int


def extract(
    rows: Rows,
    requests: Sequence[Request],
    *,
    prefix: Callable[[Array], Array],
    size: int,
    seed: int,
    mesh: Mesh,
    console: Console,
    stop: Callable[[], int],
) -> int:
    """Adds the requested rows to the cache. If the process is killed, the complete blocks that it has written stay.

    Args:
        prefix: takes uint8 (P, size, size, 3), split over the mesh; gives (P, …), the same in every process.
        size: side of the images that the network sees.
        seed: the seed of the augmentation.
        stop: called after every block; the work ends if it does not return 0.

    Returns:
        0, or what `stop` returned if that is not 0.

    Raises:
        CacheError: the cache cannot be written, or its dtype cannot hold the values.
    """
    began, total = time.perf_counter(), sum(len(request.records) for request in requests)
    with progress_of("bottlenecks", total=total, console=console) as report:
        for request in requests:
            added = 0
            outputs = _outputs(request, prefix, size=size, seed=seed, mesh=mesh, report=report)
            for block in regroup(outputs, rows.block_rows):
                records = request.records[added : added + len(block)]
                rows.add([request.identities[record] for record in records], block)
                added += len(block)
                if status := stop():
                    return status
    seconds = time.perf_counter() - began
    console.print(f"bottlenecks: {counted(total, 'row')} in {seconds:.1f} s, {total / seconds:.3g} images/s")
    return 0


def _outputs(
    request: Request,
    prefix: Callable[[Array], Array],
    *,
    size: int,
    seed: int,
    mesh: Mesh,
    report: Callable[[int], None],
) -> Iterator[np.ndarray]:
    """Yields the prefix's output for the records in order, batch by batch; the devices compute one batch ahead.

    If the devices have no memory for a batch, it is tried again at half the size, but only in a run of one process.
    `report` is called with the number of images of each batch.
    """
    per_device, done = IMAGES_PER_DEVICE.get(jax.default_backend(), IMAGES_PER_ACCELERATOR), 0
    while done < len(request.records):
        left = request._replace(records=request.records[done:])
        try:
            for output in _pass(left, prefix, batch_size=per_device * mesh.size, size=size, seed=seed, mesh=mesh):
                done += len(output)
                report(len(output))
                yield output
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or per_device == 1 or jax.process_count() > 1:
                raise
            per_device //= 2
            logging.warning("out of memory on the device: going on with %s at a time", counted(per_device, "image"))


def _pass(
    request: Request, prefix: Callable[[Array], Array], *, batch_size: int, size: int, seed: int, mesh: Mesh
) -> Iterator[np.ndarray]:
    """Yields the same as `_outputs`, all with one batch size."""
    images = batches(
        request.store,
        request.store.split.labels,
        request.records,
        batch_size=batch_size,
        size=size,
        mesh=mesh,
        augment=request.augment,
        seed=seed,
        view=request.view,
    )
    left, ahead = len(request.records), None
    for batch in itertools.chain(images, [None]):
        following = None if batch is None else prefix(batch["image"])
        if ahead is not None:
            output = np.asarray(ahead)[: min(batch_size, left)]
            left -= len(output)
            yield output
        ahead = following


def regroup(arrays: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yields the rows of `arrays` in the same order, `size` at a time; the last array has the rest."""
    held: list[np.ndarray] = []
    for array in arrays:
        held.append(array)
        while sum(map(len, held)) >= size:
            joined = np.concatenate(held)
            yield joined[:size]
            held = [joined[size:]]
    if sum(map(len, held)):
        yield np.concatenate(held)


@contextlib.contextmanager
def alone(rows: Rows, console: Console, *, stop: Callable[[], int]) -> Iterator[int]:
    """Holds a lock on this key, and first waits while another run holds it. A run of several processes takes no lock.

    Yields 0, or what `stop` returned during the wait if that is not 0; then the lock is not held, so add no rows.

    Raises:
        CacheError: the lock cannot be made, for example in the cache of another user.
    """
    if jax.process_count() > 1:
        yield 0
        return
    with contextlib.ExitStack() as stack:

        def waiting(holder: str) -> None:
            console.print(f"waiting for another run that computes the same bottlenecks: {holder}")

        try:
            status = stack.enter_context(locked(rows.folder / ".lock", waiting=waiting, stop=stop))
        except OSError as error:
            raise cannot_write(rows.folder, error) from error
        yield status
