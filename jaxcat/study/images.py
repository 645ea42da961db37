"""Which single images to look at: labels that look wrong, images that are nearly the same, and unusual ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from jaxcat.data.records import Split
from jaxcat.objectives.exact.parts import Part
from jaxcat.objectives.label_errors import Suspects, suspects
from jaxcat.objectives.near_duplicates import pairs_alike, whiten

FALSE_PAIRS = 1.0  # pairs of different images that are expected among those listed
OUTLIERS = 20  # images listed
HARDEST = 10  # pairs of classes listed


class Image(NamedTuple):
    """An image by its split and number."""

    split: str
    number: int


class Alike(NamedTuple):
    """Two images that are nearly the same.

    Attributes:
        cosine: of their whitened features.
        across: whether they lie in two splits.
        labels: whether their labels differ.
        known: whether they have the same pixels or are of one group, so that they are left out together anyway.
    """

    first: Image
    second: Image
    cosine: float
    across: bool
    labels: bool
    known: bool


class Copies(NamedTuple):
    """What `near_duplicates` found.

    Attributes:
        pairs: those across splits first, then those of two labels, then by cosine.
        threshold: cosine above which pairs are listed.
        compared: number of pairs of images.
        unusual: images farthest from the others, with their distance: about 1 for a usual image.
    """

    pairs: tuple[Alike, ...]
    threshold: float
    compared: int
    unusual: tuple[tuple[Image, float], ...]


class Hard(NamedTuple):
    """Two classes that are taken for each other.

    Attributes:
        wrong: how many images of either are answered with the other one, each left out.
        share: of the images of both.
    """

    first: str
    second: str
    wrong: int
    share: float


def probabilities_of(logits: np.ndarray) -> np.ndarray:
    """(N, classes) from logits (N, outputs); one logit is that of the second class."""
    return softmax(logits if logits.shape[1] > 1 else np.hstack([np.zeros_like(logits), logits]), axis=1)


def labels_that_look_wrong(logits: np.ndarray, labels: np.ndarray, *, learned: bool) -> Suspects:
    """Ranks labels by the logits of heads that did not see them; lists none as wrong if nothing was `learned`."""
    found = suspects(probabilities_of(logits), labels)
    return found if learned else found._replace(confident=np.zeros(len(labels), bool))


def hardest(predicted: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> list[Hard]:
    """The pairs of classes that are most often taken for each other, at least once."""
    count = len(classes)
    confusion = np.zeros((count, count), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    both, sizes = confusion + confusion.T, np.bincount(labels, minlength=count)
    pairs = [(int(both[i, j]), i, j) for i in range(count) for j in range(i + 1, count) if both[i, j]]
    pairs.sort(key=lambda pair: (-pair[0] / (sizes[pair[1]] + sizes[pair[2]]), pair[1:]))
    return [Hard(classes[i], classes[j], wrong, wrong / float(sizes[i] + sizes[j])) for wrong, i, j in pairs[:HARDEST]]


def block_for_copies(parts: Sequence[Part]) -> str:
    """The block two fifths of the way through those that were computed: earlier and later ones find fewer copies."""
    blocks = list(dict.fromkeys(part.block for part in parts))
    return blocks[2 * (len(blocks) - 1) // 5]


def near_duplicates(
    splits: Mapping[str, Split],
    groups: Mapping[str, np.ndarray],
    parts: Mapping[str, Sequence[Part]],
    *,
    progress: Callable[[str], None],
) -> Copies:
    """Pairs of images of all splits that are nearly the same, and the most unusual images.

    By the statistics of one block; see `block_for_copies`.

    Args:
        splits: records by name.
        groups: for each split int (N,): records that belong together, or have the same pixels, share a number.
        parts: for each split the statistics of the same blocks.
        progress: called often.
    """
    names = list(splits)
    block = block_for_copies(parts[names[0]])
    of_block: list[list[Part]] = [[part for part in parts[name] if part.block == block] for name in names]
    counts = [len(splits[name]) for name in names]
    progress("whitening features")
    whitened = whiten(of_block, counts)
    found = pairs_alike(whitened.directions, false_pairs=FALSE_PAIRS, progress=progress)
    images = [Image(name, number) for name, count in zip(names, counts, strict=True) for number in range(count)]

    def alike(first: Image, second: Image, cosine: float) -> Alike:
        one, other = splits[first.split], splits[second.split]
        across = first.split != second.split
        known = not across and groups[first.split][first.number] == groups[first.split][second.number]
        labels = bool(one.labels[first.number] != other.labels[second.number])
        return Alike(first, second, float(cosine), across, labels, bool(known))

    pairs = [
        alike(images[i], images[j], cosine)
        for i, j, cosine in zip(found.first, found.second, found.cosines, strict=True)
    ]
    pairs.sort(key=lambda pair: (not pair.across, not pair.labels, -pair.cosine))
    farthest = np.argsort(-whitened.distances, kind="stable")[:OUTLIERS]
    unusual = tuple((images[i], float(whitened.distances[i])) for i in farthest if whitened.distances[i] > 0)
    return Copies(tuple(pairs), found.threshold, found.all, unusual)
