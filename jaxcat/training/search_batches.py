"""The batches of train that a search for a learning rate uses: which are trained on, and which are held out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxcat.data.streaming import Source
from jaxcat.models.network import Network, Tree
from jaxcat.training.steps import Batch, boundary_input, steps_in

MOST_BATCHES = 64  # of train that a sweep uses
MOST_BYTES = 2**28  # of these batches


def held_out(batches: int) -> int:
    """How many of a number of batches are held out: a fifth."""
    return max(1, batches // 5)


def batches_of_fold(batches: int, fold: int, *, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The batches that a copy is trained on, one for each step, and those that it is measured on.

    The others are repeated as often as needed, each time in another order, which is the same for all rates of a fold.
    """
    held = (fold * held_out(batches) + np.arange(held_out(batches))) % batches
    others = np.setdiff1d(np.arange(batches), held)
    generator = np.random.default_rng(fold)
    rounds = [generator.permutation(others) for _ in range(-(-steps // len(others)))]
    return np.concatenate(rounds)[:steps], held


def first_batches(source: Source, prepared: Callable[[Batch], Batch] | None) -> list[Batch]:
    """The first batches of the first epoch, up to `MOST_BATCHES` and `MOST_BYTES`, unstacked.

    Args:
        source: prepared.
        prepared: what is done with each; None: nothing.
    """
    found: list[Batch] = []
    size = 0
    for stacked in source.train(0, first=0):
        count = steps_in(stacked)
        each = [{name: array[i] for name, array in stacked.items()} for i in range(count)] if count > 1 else [stacked]
        for batch in each:
            batch = prepared(batch) if prepared else batch
            size += sum(array.nbytes for array in batch.values())
            if len(found) >= 2 and (len(found) == MOST_BATCHES or size > MOST_BYTES):
                return found
            found.append(batch)
    return found


def as_bottlenecks(network: Network, frozen: Tree, batch: Batch) -> Batch:
    """The batch with what the suffix reads in place of images, so that the prefix runs once for all copies."""
    return {"bottleneck": boundary_input(network, frozen, batch), "label": batch["label"], "mask": batch["mask"]}
