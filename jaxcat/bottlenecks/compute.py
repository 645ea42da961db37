"""Has an engine run images through the frozen prefix, and adds the bottlenecks to the cache in blocks of rows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import jax
import numpy as np
from rich.console import Console

from jaxcat.bottlenecks.rows import Rows, writing_to
from jaxcat.data.augmentation.table import Views
from jaxcat.data.store import Store
from jaxcat.system.console import progress_of
from jaxcat.system.locks import locked
from jaxcat.wording import counted

Output = tuple[np.ndarray, ...]  # for a batch, the rows of each part


class Request(NamedTuple):
    """Rows to compute for one pass of a split.

    Attributes:
        store: the split's images, of the size that `augment` needs.
        records: (n,) numbers of the records of which a part lacks its row.
        lacking: number of a part → bool (n,), whether the part lacks the row of each record; only of parts that lack
            some.
        identities: the identities (see `rows`) of all records of the pass, by record number.
        augment, view: how the views are made, and the number of the view to compute.
    """

    store: Store
    records: np.ndarray
    lacking: Mapping[int, np.ndarray]
    identities: Sequence[bytes]
    augment: Views
    view: int


class Engine(Protocol):
    """What computes the rows of requests; see engines/.

    Attributes:
        asks_often: whether work can end after every output, not only after those that complete a block.
    """

    asks_often: bool

    def begin(self) -> None:
        """Begins what can go on beside other work, such as decoding; called as soon as rows are missing."""

    def ready(self, console: Console, *, stop: Callable[[], int]) -> int:
        """Waits until `outputs` can be called. Gives 0, or what `stop` returned if that is not 0."""

    def outputs(self, request: Request, *, report: Callable[[int], None]) -> Iterator[Output]:
        """Yields the rows of the parts in `request.lacking`, for the records in order, some at a time.

        `report` is called with the number of records of each output.
        """

    def close(self) -> None:
        """Ends what `begin` began, and gives memory back."""


def request_of(store: Store, missing: np.ndarray, *, identities: Sequence[bytes], augment: Views, view: int) -> Request:
    """The request for all rows that are missing, bool (parts, records)."""
    records = np.flatnonzero(missing.any(axis=0))
    lacking = {part: lacks[records] for part, lacks in enumerate(missing) if lacks.any()}
    return Request(store, records=records, lacking=lacking, identities=identities, augment=augment, view=view)


def extract(
    parts: Sequence[Rows],
    requests: Sequence[Request],
    *,
    engine: Engine,
    console: Console,
    stop: Callable[[], int],
) -> int:
    """Adds the requested rows to the cache. If the process is killed, the complete blocks that it has written stay.

    Args:
        parts: the rows of every part of a bottleneck.
        engine: computes them; it is ready.
        stop: called after each output that completed blocks, or after every one if `engine.asks_often`; the work ends
            if it does not return 0.

    Returns:
        0, or what `stop` returned if that is not 0.

    Raises:
        CacheError: the cache cannot be written, or its dtype cannot hold the values.
    """
    began, total = time.perf_counter(), sum(len(request.records) for request in requests)
    with progress_of("bottlenecks", total=total, console=console) as report:
        for request in requests:
            outputs = engine.outputs(request, report=report)
            if status := _write(parts, request, outputs, asks_often=engine.asks_often, stop=stop):
                return status
    seconds = time.perf_counter() - began
    console.print(f"bottlenecks: {counted(total, 'row')} in {seconds:.1f} s, {total / seconds:.3g} images/s")
    return 0


def _write(
    parts: Sequence[Rows], request: Request, outputs: Iterable[Output], *, asks_often: bool, stop: Callable[[], int]
) -> int:
    """Adds to each part the rows that it lacks, in blocks. Gives 0, or what `stop` returned if that is not 0."""
    waiting = {
        part: Blocks(parts[part], [request.identities[record] for record in request.records[lacks]])
        for part, lacks in request.lacking.items()
    }
    done = 0
    for output in outputs:
        count = len(output[0])
        added = asks_often
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
        """Takes the next rows (n, *shape); says whether they completed a block."""
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
            with writing_to(rows.folder):
                status = stack.enter_context(locked(rows.folder / ".lock", waiting=waiting, stop=stop))
            if status:
                stack.close()
                yield status
                return
        yield 0
