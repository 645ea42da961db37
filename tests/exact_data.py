"""Made-up pooled features for the exact solver, and the same least squares written plainly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxcat.objectives.exact.parts import Part, Processes


def parts_of(features: dict[str, np.ndarray], statistic: str = "average") -> list[Part]:
    """One part for each block name, of float32 features (N, width)."""

    def part(block: str, rows: np.ndarray) -> Part:
        rows = np.asarray(rows, np.float32)
        return Part(block, statistic, rows.shape[1], lambda start, stop: rows[start:stop])

    return [part(block, rows) for block, rows in features.items()]


def planted(
    records: int,
    widths: dict[str, int],
    *,
    classes: int = 2,
    signal: Sequence[str] = (),
    size: float = 1.0,
    seed: int = 0,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Normal features with different means and sizes; in the blocks `signal` the classes differ. And labels."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(records) % classes)
    features = {}
    for number, (block, width) in enumerate(widths.items()):
        rows = random.standard_normal((records, width))
        if block in signal:
            rows += size * random.standard_normal((classes, width))[labels]
        features[block] = (rows * (number + 1) + 3 * number).astype(np.float32)
    return features, labels


def signs_of(labels: np.ndarray, classes: int) -> np.ndarray:
    if classes == 2:
        return np.where(labels == 1, 1.0, -1.0)[:, None]
    return np.stack([np.where(labels == c, 1.0, -1.0) for c in range(classes)], axis=1)


def scaled_plainly(features: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """The scaled parts side by side."""
    scaled = []
    for rows in features:
        centred = rows.astype(np.float64) - np.average(rows.astype(np.float64), axis=0, weights=weights)
        scaled.append(centred / np.sqrt(np.average((centred**2).sum(axis=1), weights=weights)))
    return np.hstack(scaled)


def fitted_plainly(rows: np.ndarray, targets: np.ndarray, weights: np.ndarray, penalty: float):
    """Coefficients (D, outputs) and intercepts (outputs,) from the normal equations with a column of ones."""
    ones = np.column_stack([rows, np.ones(len(rows))])
    ridge = penalty * np.diag([*np.ones(rows.shape[1]), 0.0])
    found = np.linalg.solve(ones.T @ (weights[:, None] * ones) + ridge, ones.T @ (weights[:, None] * targets))
    return found[:-1], found[-1]


def left_out_plainly(
    rows: np.ndarray, targets: np.ndarray, weights: np.ndarray, penalty: float, groups: np.ndarray
) -> np.ndarray:
    """Scores of each record from a new fit without its group."""
    scores = np.empty_like(targets)
    for group in np.unique(groups):
        out = groups == group
        coefficients, intercept = fitted_plainly(rows[~out], targets[~out], weights[~out], penalty)
        scores[out] = rows[out] @ coefficients + intercept
    return scores


def together(count: int, work: Callable[[Processes], object]) -> list:
    """What `work` returns in each of `count` threads that sum arrays as processes do, equally often."""
    barrier, given = threading.Barrier(count, timeout=60), {}
    calls = [0] * count

    def one(index: int):
        def total(array: np.ndarray) -> np.ndarray:
            assert array.dtype == np.float64
            given[index] = array
            barrier.wait()
            summed = sum(given[other] for other in range(count))
            barrier.wait()
            calls[index] += 1
            return summed

        try:
            return work(Processes(index, count, total))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(count) as threads:
        results = list(threads.map(one, range(count)))
    assert len(set(calls)) == 1
    return results
