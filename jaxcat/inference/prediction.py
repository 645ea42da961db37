"""Prediction for image files, a batch at a time: probabilities or an error for each image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from jaxcat.data.archives import archives
from jaxcat.data.images.resizing import resize
from jaxcat.data.indexing.skipped import Skipped
from jaxcat.data.indexing.walking import walk
from jaxcat.errors import DataError
from jaxcat.inference.averaged import ORIGINAL, Average, average_of
from jaxcat.inference.classifier import Classifier

Found: TypeAlias = Path | DataError  # an image, or why there is none


def find(paths: Sequence[Path], skipped: Skipped | None = None) -> Iterator[Path | DataError]:
    """The images in `paths`, with those in directories; yields an error in place of a directory without images.

    Other files in directories are added to `skipped`.
    """
    for path in paths:
        try:
            archives.open_archive(path)
        except DataError as error:
            yield error
            continue
        if not archives.isdir(path):  # Path.is_dir raises for some invalid names
            yield path
            continue
        found = False
        for image in walk(path, skipped):
            found = True
            yield image
        if not found:
            yield DataError(f"{path}: no images in this directory")


class Prepared(NamedTuple):
    """The pixels of one image.

    Attributes:
        seen: what the network sees, uint8 (S, S, 3), or what its views are parts of.
        shape: height and width of the decoded, upright image.
        copy: of that image, uint8 (h, w, 3), with the longest side that was asked for or less; None if none was.
    """

    seen: np.ndarray
    shape: tuple[int, int]
    copy: np.ndarray | None


class Prediction(NamedTuple):
    """The result for one image.

    Attributes:
        path: of the image.
        prepared: its pixels.
        probabilities: float32 (classes,).
        features: float32 (features,), what the head sees; None if they were not asked for.
        raw_map: Grad-CAM of the most probable class, see `XLAComputation.raw_maps`; None unless it was asked for.
    """

    path: Path
    prepared: Prepared
    probabilities: np.ndarray
    features: np.ndarray | None
    raw_map: np.ndarray | None = None


def predict(
    classifier: Classifier,
    images: Iterable[Found],
    *,
    batch_size: int = 32,
    average_over: str = ORIGINAL,
    features: bool = False,
    copies: int = 0,
) -> Iterator[Prediction | DataError]:
    """A prediction or an error for each of `images`, which `find` gives, in order, a batch at a time.

    Args:
        average_over: a name in `averaged.AVERAGES`; another than "original" gives no features.
        features: whether to give what the head sees.
        copies: the longest side in pixels of the copies to give of the decoded images; 0 gives none.
    """

    average = average_of(average_over)
    assert not features or average.unchanged, "features are those of the unchanged image"

    def prepare(item: Found) -> Prepared | DataError:
        if isinstance(item, DataError):
            return item
        try:
            return _prepared(classifier, item, average, copies)
        except DataError as error:
            return error

    def outputs(pixels: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        if features:
            for rows, seen in classifier.outputs_of_pixels(pixels, batch_size=batch_size):
                yield from zip(rows, seen, strict=True)
        else:
            for rows in classifier.predict_pixels(pixels, batch_size=batch_size, average=average):
                yield from ((row, None) for row in rows)

    remaining = iter(images)
    with ThreadPoolExecutor() as threads:
        following = _begun(remaining, batch_size, prepare, threads)
        while following:
            chunk = [(item, future.result()) for item, future in following]
            following = _begun(remaining, batch_size, prepare, threads)  # decoded while this batch is computed
            computed = outputs(result.seen for _, result in chunk if not isinstance(result, DataError))
            for item, result in chunk:
                if isinstance(result, DataError):
                    yield result
                elif isinstance(item, Path):
                    yield Prediction(item, result, *next(computed))


def _prepared(classifier: Classifier, path: Path, average: Average, copies: int) -> Prepared:
    image, data = classifier.decode(path), classifier.config.data
    height, width = image.shape[:2]
    seen = resize(image, average.side(data.image_size), mode=data.resize)
    return Prepared(seen, (height, width), smaller(image, copies) if copies else None)


def smaller(image: np.ndarray, most: int) -> np.ndarray:
    """A copy of an image, uint8 (H, W, 3), whose longest side has at most so many pixels."""
    copy = Image.fromarray(image)
    copy.thumbnail((most, most))
    return np.array(copy)


def _begun(
    images: Iterator[Found], count: int, prepare: Callable[[Found], Prepared | DataError], threads: ThreadPoolExecutor
) -> list[tuple[Found, Future[Prepared | DataError]]]:
    """The next `count` images, each with its preparation, which has begun."""
    return [(item, threads.submit(prepare, item)) for item in islice(images, count)]
