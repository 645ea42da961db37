"""Computes bottlenecks: runs images through the frozen prefix and adds the outputs to the cache in blocks of rows."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

logger = logging.getLogger(__name__)

# Images in a batch for each device; larger batches are no faster on a CPU.
IMAGES_PER_DEVICE = {"cpu": 32}
IMAGES_PER_ACCELERATOR = 256

# Takes uint8 (P, size, size, 3), split over the mesh; gives (P, …) for each part, the same in every process.
Prefix = Callable[[Array], tuple[Array, ...]]
Output = tuple[np.ndarray, ...]  # for a batch, the rows of each part


class Request(NamedTuple):
    """Rows to compute for one pass of a split.

    Attributes:
        store: the split's images, of the size that `augment` needs.
        records: (n,) numbers of the records of which a part lacks its row.
        lacking: number of a part → bool (n,), of which of these records it lacks the row; of parts that lack some.
        identities: the identities (see `rows`) of all records of the pass, by record number.
        augment, view: the augmentation and the number of the view to compute.
    """

    store: Store
    records: np.ndarray
    lacking: Mapping[int, np.ndarray]
    identities: Sequence[bytes]
    augment: str
    view: int


def request_of(store: Store, missing: np.ndarray, *, identities: Sequence[bytes], augment: str, view: int) -> Request:
    """The request for all rows that are missing, bool (parts, records)."""
    records = np.flatnonzero(missing.any(axis=0))
    lacking = {part: lacks[records] for part, lacks in enumerate(missing) if lacks.any()}
    return Request(store, records=records, lacking=lacking, identities=identities, augment=augment, view=view)


def extract(
    parts: Sequence[Rows],
    requests: Sequence[Request],
    *,
    prefix: Callable[[tuple[int, ...]], Prefix],
    size: int,
    seed: int,
    mesh: Mesh,
    console: Console,
    stop: Callable[[], int],
) -> int:
    """Adds the requested rows to the cache. If the process is killed, the complete blocks that it has written stay.

    Args:
        parts: the rows of every part of a bottleneck.
        prefix: takes numbers of parts in ascending order, gives the function that computes them.
        size: side of the images that the network sees.
        seed: the seed of the augmentation.
        stop: called after each batch that completed blocks; the work ends if it does not return 0.

    Returns:
        0, or what `stop` returned if that is not 0.

    Raises:
        CacheError: the cache cannot be written, or its dtype cannot hold the values.
    """
    began, total = time.perf_counter(), sum(len(request.records) for request in requests)
    with progress_of("bottlenecks", total=total, console=console) as report:
        for request in requests:
            outputs = _outputs(request, prefix(tuple(request.lacking)), size=size, seed=seed, mesh=mesh, report=report)
            if status := _write(parts, request, outputs, stop=stop):
                return status
    seconds = time.perf_counter() - began
    console.print(f"bottlenecks: {counted(total, 'row')} in {seconds:.1f} s, {total / seconds:.3g} images/s")
    return 0


def _write(parts: Sequence[Rows], request: Request, outputs: Iterable[Output], *, stop: Callable[[], int]) -> int:
    """Adds to each part the rows that it lacks, in blocks. Gives 0, or what `stop` returned if that is not 0."""
    waiting = {
        part: Blocks(parts[part], [request.identities[record] for record in request.records[lacks]])
        for part, lacks in request.lacking.items()
    }
    done = 0
    for output in outputs:
        count = len(output[0])
        added = False
        for (part, lacks), values in zip(request.lacking.items(), output, strict=True):
            added |= waiting[part].add(values[lacks[done : done + count]])
        done += count
        if added and (status := stop()):
            return status
    for blocks in waiting.values():
        blocks.finish()
    return stop()


class Blocks:
    """Adds rows to one part in whole blocks, and holds back those of a block that is not full."""

    def __init__(self, rows: Rows, identities: Sequence[bytes]):
        """Takes the identities of all rows that will come, in their order."""
        self._rows, self._identities = rows, identities
        self._held: list[np.ndarray] = []
        self._written = 0

    def add(self, values: np.ndarray) -> bool:
        """Takes the next rows (n, *shape). Whether they completed a block."""
        before, size = self._written, self._rows.block_rows
        self._held.append(values)
        while sum(map(len, self._held)) >= size:
            joined = np.concatenate(self._held)
            self._held = [joined[size:]]
            self._block(joined[:size])
        return self._written > before

    def finish(self) -> None:
        """Writes the rest."""
        if sum(map(len, self._held)):
            self._block(np.concatenate(self._held))
            self._held = []

    def _block(self, values: np.ndarray) -> None:
        self._rows.add(self._identities[self._written : self._written + len(values)], values)
        self._written += len(values)


def _outputs(
    request: Request,
    prefix: Prefix,
    *,
    size: int,
    seed: int,
    mesh: Mesh,
    report: Callable[[int], None],
) -> Iterator[Output]:
    """Yields the prefix's output for the records in order, batch by batch; the devices compute one batch ahead.

    If the devices have no memory for a batch, it is tried again at half the size, but only in a run of one process.
    `report` is called with the number of images of each batch.
    """
    per_device, done = IMAGES_PER_DEVICE.get(jax.default_backend(), IMAGES_PER_ACCELERATOR), 0
    while done < len(request.records):
        left = request._replace(records=request.records[done:])
        try:
            for output in _pass(left, prefix, batch_size=per_device * mesh.size, size=size, seed=seed, mesh=mesh):
                done += len(output[0])
                report(len(output[0]))
                yield output
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or per_device == 1 or jax.process_count() > 1:
                raise
            per_device //= 2
            logger.warning("out of memory on the device: going on with %s at a time", counted(per_device, "image"))


def _pass(request: Request, prefix: Prefix, *, batch_size: int, size: int, seed: int, mesh: Mesh) -> Iterator[Output]:
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
            count = min(batch_size, left)
            yield tuple(np.asarray(values)[:count] for values in ahead)
            left -= count
        ahead = following


@contextlib.contextmanager
def alone(parts: Sequence[Rows], console: Console, *, stop: Callable[[], int]) -> Iterator[int]:
    """Holds a lock on each part, and first waits while other runs hold one. A run of several processes takes none.

    Every run takes its locks in the same order, so that two runs never wait for each other.

    Yields 0, or what `stop` returned during the wait if that is not 0; then no lock is held, so add no rows.

    Raises:
        CacheError: a lock cannot be made, for example in the cache of another user.
    """
    if jax.process_count() > 1:
        yield 0
        return
    told: list[str] = []

    def waiting(holder: str) -> None:
        if not told:
            console.print(f"waiting for another run that computes the same bottlenecks: {holder}")
        told.append(holder)

    with contextlib.ExitStack() as stack:
        for rows in sorted(parts, key=lambda rows: rows.folder):
            try:
                status = stack.enter_context(locked(rows.folder / ".lock", waiting=waiting, stop=stop))
            except OSError as error:
                raise cannot_write(rows.folder, error) from error
            if status:
                stack.close()
                yield status
                return
        yield 0
