"""Answers averaged over several views of each image (test-time augmentation): the table `AVERAGES`. No framework.

Probabilities are averaged, not logits, as Krizhevsky et al. 2012 ("ImageNet classification with deep convolutional
neural networks", section 4.1) averaged those of ten crops, and Simonyan and Zisserman (arXiv:1409.1556, section 3.2)
those of an image and its mirror image. Each view costs a pass through the whole network.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxcat.errors import ConfigError
from jaxcat.wording import counted, not_one_of

if TYPE_CHECKING:
    from jaxcat.data.store import Store

ORIGINAL = "original"


class View(NamedTuple):
    """A square part of a square image.

    Attributes:
        top, left: where it lies: 0 at the beginning, 1 at the end, 0.5 in the middle.
        mirrored: whether left and right are exchanged.
    """

    top: float = 0.0
    left: float = 0.0
    mirrored: bool = False


class Average(NamedTuple):
    """One row of `AVERAGES`.

    Attributes:
        meaning: one line for `--help`.
        views: those of each image.
        enlarged: side of the resized image that they are parts of, divided by the side that the network sees.
    """

    meaning: str
    views: tuple[View, ...]
    enlarged: float = 1.0

    @property
    def passes(self) -> int:
        """Passes through the network for each image."""
        return len(self.views)

    @property
    def unchanged(self) -> bool:
        """Whether the image as it is is the only view."""
        return self.views == (View(),) and self.enlarged == 1

    @property
    def cost(self) -> str:
        """What it costs, in words."""
        passes = counted(self.passes, "pass", "passes")
        return f"{counted(self.passes, 'view')} of each image, {passes} through the network"

    def side(self, size: int) -> int:
        """Side in pixels to which an image is resized, for a network that sees `size` pixels."""
        return round(self.enlarged * size)

    def of(self, image: np.ndarray, size: int) -> list[np.ndarray]:
        """The views, uint8 (size, size, 3) each, of an image resized to `side(size)`. They share its memory."""
        assert len(image) == self.side(size), "prepared for another average"
        found = []
        for view in self.views:
            top, left = (round(place * (len(image) - size)) for place in (view.top, view.left))
            part = image[top : top + size, left : left + size]
            found.append(part[:, ::-1] if view.mirrored else part)
        return found

    def means(self, rows: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
        """Probabilities of all views of all images, in order → their means, float32 (b, classes).

        Args:
            rows: arrays float32 (n, classes), of any n.
            count: images in each array of means; the last may have fewer.
        """
        single = itertools.chain.from_iterable(rows)
        while several := list(itertools.islice(single, count * self.passes)):
            by_image = np.stack(several).reshape(-1, self.passes, several[0].size)
            yield by_image.mean(axis=1, dtype=np.float64).astype(np.float32)

    def log_means(self, log_probabilities: np.ndarray) -> np.ndarray:
        """Log-probabilities float64 (N · views, classes) → the logarithms (N, classes) of the mean probabilities."""
        by_image = log_probabilities.reshape(-1, self.passes, log_probabilities.shape[1])
        return np.logaddexp.reduce(by_image, axis=1) - np.log(self.passes)


class StoreOfViews:
    """All views of the images of a store: those of its first record, then those of the second, and so on.

    Attributes:
        split: the records of the store, each as often as it has views.
    """

    def __init__(self, store: Store, average: Average, *, size: int):
        """Takes a store of images of `average.side(size)` pixels."""
        self.split = store.split.take(np.repeat(np.arange(len(store)), average.passes))
        self._store, self._average, self._size = store, average, size

    def __len__(self) -> int:
        return len(self.split)

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """These views: uint8 (len(indices), size, size, 3), a new array. An image is decoded once for all of them."""
        records, positions = np.unique(indices // self._average.passes, return_inverse=True)
        views = [self._average.of(image, self._size) for image in self._store.gather(records)]
        gathered = np.empty((len(indices), self._size, self._size, 3), np.uint8)
        for row, (position, number) in enumerate(zip(positions, indices % self._average.passes, strict=True)):
            gathered[row] = views[position][number]
        return gathered


def average_of(name: str) -> Average:
    """The row of this name. Raises ConfigError if there is none."""
    if problem := not_one_of(str(name), AVERAGES):  # a program may pass None
        raise ConfigError(f"average_over={name}: {problem}")
    return AVERAGES[name]


def add_average_flag(parser: argparse.ArgumentParser) -> None:
    """Adds the flag --average-over."""
    choices = "; ".join(f"{name}: {row.meaning}, {row.passes}" for name, row in AVERAGES.items())
    parser.add_argument(
        "--average-over",
        default=ORIGINAL,
        choices=tuple(AVERAGES),
        help=f"views of each image whose probabilities are averaged, with their number of passes through the network: "
        f"{choices}. A mirrored hand, letter or arrow may be another class: then take none that are mirrored",
    )


_MIRRORED = View(mirrored=True)
_FIVE = (View(0, 0), View(0, 1), View(1, 0), View(1, 1), View(0.5, 0.5))
# As in Krizhevsky et al. 2012, where crops of 224 pixels are taken from 256. For 299 pixels, that is 342.
_CROPPED = 256 / 224

AVERAGES: dict[str, Average] = {
    ORIGINAL: Average("the image as it is (default)", (View(),)),
    "mirrored": Average("the image and its mirror image", (View(), _MIRRORED)),
    "five_crops": Average("corners and middle of the image at 8/7 of the size", _FIVE, _CROPPED),
    "ten_crops": Average(
        "these and their mirror images", (*_FIVE, *(view._replace(mirrored=True) for view in _FIVE)), _CROPPED
    ),
}
