"""Images on which an exported file is compared with jaxcat: the run's validation images, else generated ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from PIL import Image

from jaxcat.data.records import Split
from jaxcat.errors import DataError, JaxcatError
from jaxcat.inference.classifier import Classifier
from jaxcat.inference.evaluation import open_split
from jaxcat.inference.own_records import listed_records

FEW, ENOUGH = 32, 64  # images whose probabilities are compared: at least, at most
MOST = 1000  # validation images whose answers are compared
TOGETHER = 32  # images in memory at once
SEED = 0


@dataclasses.dataclass(frozen=True)
class Examples:
    """Prepared images, uint8 (S, S, 3).

    Attributes:
        few: (n, S, S, 3), at least `FEW` and at most `ENOUGH`.
        generated: how many of them are generated, the last ones.
        validation: records of validation, evenly spread; None if they cannot be found or read.
    """

    few: np.ndarray
    generated: int
    validation: Split | None
    classifier: Classifier

    def many(self) -> Iterator[np.ndarray]:
        """Yields all validation images that can be read, a few at a time."""
        if self.validation is not None:
            yield from batches(self.classifier, self.validation)


def examples_of(classifier: Classifier, *, most: int = MOST) -> Examples:
    """Finds the images, of validation at most so many. Reads those of `few`."""
    validation, size = _validation(classifier), classifier.config.data.image_size
    few = np.zeros((0, size, size, 3), np.uint8)
    if validation is not None:
        few = np.concatenate([few, *batches(classifier, _spread(validation, ENOUGH))])
        validation = validation if len(few) else None
    lacking = max(0, FEW - len(few)) if len(few) else ENOUGH
    made = [few, generated(lacking, size)] if lacking else [few]
    return Examples(np.concatenate(made), lacking, validation and _spread(validation, most), classifier)


def generated(count: int, size: int) -> np.ndarray:
    """Images that differ in colours, structure and contrast, uint8 (count, size, size, 3); always the same ones."""
    generator = np.random.default_rng(SEED)
    made = np.empty((count, size, size, 3), np.uint8)
    for image in made:
        cells = int(generator.integers(1, 17))
        coarse = generator.integers(0, 256, (cells, cells, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC), np.float64)
        noise = generator.normal(0, generator.uniform(0, 40), image.shape)
        image[:] = (generator.uniform(0.2, 1) * smooth + noise).clip(0, 255)
    return made


def batches(classifier: Classifier, split: Split) -> Iterator[np.ndarray]:
    """Yields the images of a split that can be read, `TOGETHER` at a time."""
    ready: list[np.ndarray] = []
    for index in range(len(split)):
        try:
            ready.append(classifier.prepare(split.stored(index), split.files[index]))
        except DataError:  # evaluation reports it
            continue
        if len(ready) == TOGETHER:
            yield np.stack(ready)
            ready = []
    if ready:
        yield np.stack(ready)


def _validation(classifier: Classifier) -> Split | None:
    try:
        listed = listed_records(classifier.workdir, classifier.meta) if classifier.workdir else None
        return open_split(classifier, split="validation", listed=listed)
    except (JaxcatError, OSError):  # moved or removed, or the run has none
        return None


def _spread(split: Split, most: int) -> Split:
    """At most so many records, evenly spread over the split, whose classes may come one after the other."""
    return split.take(np.linspace(0, len(split) - 1, min(most, len(split))).round().astype(int))
