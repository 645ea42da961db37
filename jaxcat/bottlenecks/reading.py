"""Batches of bottlenecks that are on disk or in memory: how many at a time, and the rows of each batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from jaxcat.bottlenecks.parts import Parts, Reader
from jaxcat.data.batches import Batches, at_most, share_of
from jaxcat.system.devices import aligned

MOST_STEPS = 64  # in one compiled loop
MOST_BYTES = 2**26  # bytes of rows in one transfer
EVALUATED_TOGETHER = 256  # rows


def batches_of(
    reader: Reader,
    parts: Parts,
    *,
    labels: np.ndarray,
    indices: np.ndarray,
    batch_size: int,
    mesh: Mesh,
    sizes: Sequence[int] | None = None,
) -> Batches:
    """The batches of one pass over `indices`, in that order, on the devices.

    Args:
        reader: reads the bottlenecks by record number.
        parts: of these bottlenecks; they say shape and dtype.
        labels: (number of records,) integers, by record number.
        indices: (count,) record numbers in the order wanted.
        batch_size: records in a batch, over all processes.
        mesh: the mesh of all devices.
        sizes: how many batches are stacked in each item; see `Batches`.

    Returns:
        An iterator of `{"bottleneck": (P, *shape), "label": int32 (P,), "mask": bool (P,)}`; see `Batches`.
    """

    def read(records: np.ndarray) -> dict[str, np.ndarray]:
        bottleneck = aligned((*records.shape, *parts.shape), parts.dtype)
        reader(records.reshape(-1), bottleneck.reshape(-1, *parts.shape))
        bottleneck[records < 0] = 0  # for padding (-1) the reader has read the last row
        return {"bottleneck": bottleneck}

    share = share_of(indices, batch_size=at_most(len(labels), batch_size), mesh=mesh)
    return Batches(read, share, labels=labels, mesh=mesh, sizes=sizes)


def evaluated_together(records: int, *, row_bytes: int) -> int:
    """How many of a number of bottlenecks an evaluation reads at a time, over all processes."""
    return max(1, min(records, EVALUATED_TOGETHER, MOST_BYTES // row_bytes))


def stacked(steps: int, *, batch_bytes: int) -> int:
    """How many batches to stack: an equal share of `steps`, within both limits."""
    most = max(1, min(MOST_STEPS, MOST_BYTES // batch_bytes))
    return steps // -(-steps // most)


def chunks(begin: int, end: int, *, every: int, most: int) -> list[int]:
    """Divides the steps from `begin` to `end` into chunks of `most` or 1, none across a multiple of `every`."""
    sizes = []
    while begin < end:
        boundary = min(end, (begin // every + 1) * every) if every else end
        size = most if boundary - begin >= most else 1
        sizes.append(size)
        begin += size
    return sizes
