"""Images that are nearly the same, and images unlike all others, by whitened features.

Features are centred, reduced to their main directions, and scaled so that each direction varies equally (whitening).
Two images are alike if the cosine of their features is above a threshold. Above the threshold, a stated number of pairs
of different images is expected. For this, the upper tail of the cosines of all pairs, as their inverse hyperbolic
tangent (Fisher's z), is assumed to fall exponentially, at the rate between the two quantiles `TAIL`. Photographs that
share a background, such as a fence, exceed that tail, so more of them are listed than stated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh

from jaxcat.objectives.exact.parts import Part

MOST_DIRECTIONS, RECORDS_PER_DIRECTION = 256, 8
TAIL = (1e-3, 1e-4)  # shares of pairs with a larger cosine: near the threshold, but more pairs than copies
LEAST_IMAGES = 64  # with fewer, there are fewer than 8 directions, and unlike images seem alike
LEAST_PAIRS = 20  # beyond the second quantile, at least; with few pairs, both quantiles move to larger shares
BINS = 20_000  # of the histogram of cosines, from -1 to 1
TOGETHER = 1024  # records at a time
MOST_LISTED = 10_000  # pairs: those with the largest cosines


class Whitened(NamedTuple):
    """Features in main directions.

    Attributes:
        directions: float64 (N, r), of length 1; rows of 0 for records that are exactly the mean.
        distances: (N,), root mean square of the whitened coordinates: about 1 for a usual record.
    """

    directions: np.ndarray
    distances: np.ndarray


class Pairs(NamedTuple):
    """Pairs of records that are alike.

    Attributes:
        first, second: int (P,), numbers of the records, first < second; the most alike pairs first.
        cosines: (P,).
        threshold: cosine above which pairs are listed.
        all: how many pairs there are in all.
    """

    first: np.ndarray
    second: np.ndarray
    cosines: np.ndarray
    threshold: float
    all: int


def whiten(parts: Sequence[Sequence[Part]], counts: Sequence[int]) -> Whitened:
    """Whitened features of the records of several splits, one after the other.

    Args:
        parts: for each split the same parts, put side by side, each on a scale of its own.
        counts: the number of records of each split, all together N.
    """
    total = sum(counts)

    def batches() -> Iterator[np.ndarray]:
        for of_split, count in zip(parts, counts, strict=True):
            for start in range(0, count, TOGETHER):
                stop = min(start + TOGETHER, count)
                yield np.hstack([np.asarray(part.read(start, stop), np.float64) for part in of_split])

    edges = np.cumsum([0, *(part.width for part in parts[0])])
    mean = sum((rows.sum(axis=0) for rows in batches()), np.zeros(edges[-1])) / total
    covariance = np.zeros((edges[-1], edges[-1]))
    for rows in batches():
        rows -= mean
        covariance += rows.T @ rows / total
    variances = np.diag(covariance)
    scales = np.ones(edges[-1])
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        scales[start:stop] = np.sqrt(variances[start:stop].sum()) or 1.0
    covariance /= np.outer(scales, scales)
    wanted = max(1, min(MOST_DIRECTIONS, total // RECORDS_PER_DIRECTION, edges[-1]))
    values, vectors = eigh(covariance, subset_by_index=[edges[-1] - wanted, edges[-1] - 1], check_finite=False)
    usable = values > max(values.max() * 1e-10, 1e-30)
    if not usable.any():
        return Whitened(np.zeros((total, 1)), np.zeros(total))
    mapping = vectors[:, usable] / np.sqrt(values[usable]) / scales[:, None]
    rows = np.concatenate([(some - mean) @ mapping for some in batches()])
    lengths = np.linalg.norm(rows, axis=1)
    rows /= np.where(lengths > 0, lengths, 1.0)[:, None]
    return Whitened(rows, lengths / np.sqrt(usable.sum()))


def pairs_alike(
    directions: np.ndarray, *, false_pairs: float = 1.0, progress: Callable[[str], None] = lambda words: None
) -> Pairs:
    """The pairs whose cosine is above the threshold at which `false_pairs` pairs of different images are expected.

    Fewer than `LEAST_IMAGES` images have no pairs.

    Args:
        directions: (N, r), of length 1.
        progress: called often.
    """
    count = len(directions)
    total = count * (count - 1) // 2
    nothing = np.zeros(0, np.int64)
    if count < LEAST_IMAGES:
        return Pairs(nothing, nothing, np.zeros(0), 1.0, total)
    histogram = np.zeros(BINS, np.int64)
    for _, cosines, later in _products(directions, progress):
        places = np.clip((cosines[later] + 1) * (BINS / 2), 0, BINS - 1).astype(np.int64)
        histogram += np.bincount(places, minlength=BINS)
    threshold = _threshold(histogram, total, false_pairs)
    first, second, found = [], [], []
    for start, cosines, later in _products(directions, progress):
        rows, columns = np.nonzero((cosines > threshold) & later)
        first.append(rows + start)
        second.append(columns)
        found.append(cosines[rows, columns])
    alike = np.concatenate(found)
    order = np.argsort(-alike, kind="stable")[:MOST_LISTED]
    return Pairs(np.concatenate(first)[order], np.concatenate(second)[order], alike[order], threshold, total)


def _products(directions: np.ndarray, progress: Callable[[str], None]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields the first record, cosines (n, N) of some records with all, and which of them are with later records."""
    count = len(directions)
    for start in range(0, count, TOGETHER):
        progress(f"comparing images: {start:,} of {count:,}")
        some = directions[start : start + TOGETHER]
        later = np.arange(count)[None] > np.arange(start, start + len(some))[:, None]
        yield start, some @ directions.T, later


def _threshold(histogram: np.ndarray, total: int, false_pairs: float) -> float:
    """The cosine above which the exponential tail of the histogram has `false_pairs` pairs."""
    above = np.cumsum(histogram[::-1])[::-1]  # above[i]: pairs in bin i or a later one
    least = max(TAIL[1], LEAST_PAIRS / total)
    shares = (max(TAIL[0], 10 * least), least)
    ends = [np.arctanh(_cosine(above, share * total)) for share in shares]
    decades = np.log(shares[0] / shares[1])
    rate = max(ends[1] - ends[0], 1e-6) / decades
    return float(min(np.tanh(ends[1] + rate * np.log(shares[1] * total / false_pairs)), 1 - 1e-6))


def _cosine(above: np.ndarray, pairs: float) -> float:
    """The cosine that so many pairs reach."""
    place = int(np.flatnonzero(above >= pairs)[-1])
    return min(max((place + 0.5) / BINS * 2 - 1, -0.999), 0.999)
