"""A folder of explained images: for each prediction the image with its heat map, and a table that says which is which.

`predict --explain DIR` writes it. DIR/explanations.csv has a row for each image: file, label, probability, explanation.
The last is the name of a PNG in DIR: the number of the row, and the characters of the image's name that any system
allows in one.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jaxcat.errors import ConfigError, DataError, JaxcatError
from jaxcat.escaping import for_cell
from jaxcat.inference.classifier import Classifier
from jaxcat.inference.explanation import normalized, overlay, placed
from jaxcat.inference.prediction import Prediction
from jaxcat.system.files import replacing, write_errors_as
from jaxcat.wording import printable

TABLE = "explanations.csv"
LONGEST_SIDE = 1024  # pixels of an explained image; a photograph of 12 megapixels would be a PNG of 20 MB
_KEPT = 40  # characters of the image's name


def check_folder(folder: Path, searched: Sequence[Path]) -> None:
    """Checks that explanations can be written to `folder`, as far as that can be told without writing.

    Args:
        searched: the images and directories to classify.

    Raises:
        ConfigError: names the flag and what is wrong.
    """
    parent, reason = folder.absolute().parent, ""
    if os.path.lexists(folder) and not os.path.isdir(folder):
        reason = "is no directory; give a new or an empty one"
    elif os.path.isdir(folder) and os.listdir(folder):
        reason = "is not empty; give a new or an empty directory, so that all in it belongs together"
    elif not os.path.isdir(parent):
        reason = f"there is no directory {parent}; make it"
    elif not os.access(folder if os.path.isdir(folder) else parent, os.W_OK | os.X_OK):
        reason = "cannot be written; give a directory elsewhere"
    else:
        inside = (path for path in searched if _is_inside(folder, path))
        if around := next(inside, None):
            reason = f"lies in {printable(str(around))}, which is searched for images; give a directory elsewhere"
    if reason:
        raise ConfigError(f"--explain {printable(str(folder))}: {reason}")


def _is_inside(folder: Path, path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):  # of paths that no file can have
        return os.path.isdir(path) and Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(path))
    return False


def explained(
    classifier: Classifier, results: Iterable[Prediction | DataError], *, block: str
) -> Iterator[Prediction | DataError]:
    """The same results, each prediction with its raw map, computed a batch at a time."""
    results, again = itertools.tee(results)
    of_pixels, of_labels = itertools.tee(result for result in again if isinstance(result, Prediction))
    maps = classifier.xla.raw_maps(
        (prediction.prepared.seen for prediction in of_pixels),
        (int(prediction.probabilities.argmax()) for prediction in of_labels),
        block=block,
    )
    for result in results:
        yield result._replace(raw_map=next(maps)) if isinstance(result, Prediction) else result


@contextlib.contextmanager
def explanations_folder(folder: Path, classifier: Classifier) -> Iterator[Callable[[Prediction], None]]:
    """Yields a function that adds an image, from its prediction with a copy of the image and a raw map.

    Rows are written one by one, each after its image, so after an interruption every row has its image.

    Raises:
        JaxcatError: the folder cannot be written.
    """
    with _reported(folder):
        folder.mkdir(exist_ok=True)
        # "x": nothing is overwritten, and a link that someone planted is not followed
        with open(folder / TABLE, "x", encoding="utf-8", errors="surrogateescape", newline="", buffering=1) as file:
            table = csv.writer(file)
            table.writerow(["file", "label", "probability", "explanation"])
            numbers = itertools.count(1)

            def add(prediction: Prediction) -> None:
                label = int(prediction.probabilities.argmax())
                name = _name(next(numbers), prediction.path)
                with _reported(folder), replacing(folder / name) as aside:
                    Image.fromarray(_drawn(classifier, prediction)).save(aside, format="PNG")
                shown = f"{prediction.probabilities[label]:.6f}"
                with _reported(folder):
                    row = [for_cell(str(prediction.path)), for_cell(classifier.classes[label]), shown, name]
                    table.writerow(row)

            yield add


def _drawn(classifier: Classifier, prediction: Prediction) -> np.ndarray:
    """The copy of the image with its heat map, uint8 (h, w, 3)."""
    data, prepared, raw = classifier.config.data, prediction.prepared, prediction.raw_map
    assert prepared.copy is not None
    assert raw is not None
    height, width = prepared.copy.shape[:2]
    heat = placed(normalized(raw), shape=prepared.shape, size=data.image_size, mode=data.resize, output=(height, width))
    return overlay(prepared.copy, heat)


def _name(number: int, path: Path) -> str:
    """A name in the folder that no other image has: letters, digits, `-`, `_` and `.` only."""
    readable = re.sub(r"[^\w.-]+", "_", path.stem)[:_KEPT]
    return f"{number:05}-{readable}.png"


def _reported(folder: Path) -> contextlib.AbstractContextManager[None]:
    where = f"--explain {printable(str(folder))}"
    return write_errors_as(JaxcatError, where, "; free space or give another directory")
