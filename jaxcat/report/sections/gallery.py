"""Images to look at: highest losses, least sure, most sure and wrong or right, each with where the network looked."""

from __future__ import annotations

import base64
import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxcat.inference.explanation import colours, normalized, placed
from jaxcat.report.context import Context
from jaxcat.report.section import Section

SIDE = 224  # pixels of the longer side of an image
HEAT_SIDE = 96  # of its map, which has a few cells and is drawn smoothly
READING = (
    "Colours show where the network found what speaks for its answer (Grad-CAM), red most; they say where, not why. "
    "An image without colours has an empty map: nothing in this block speaks for the answer more than against it."
)


class Chosen(NamedTuple):
    """A list of the gallery.

    Attributes:
        identifier: of its element.
        title: its heading.
        what: one sentence.
        numbers: of the records, the first to look at first.
    """

    identifier: str
    title: str
    what: str
    numbers: list[int]


def section_of(context: Context) -> Section:
    """Four lists of `context.top` images."""
    lists = [each for each in chosen(context) if each.numbers]
    numbers = sorted({number for each in lists for number in each.numbers})
    maps = heat_maps(context, numbers)
    images = {str(number): [context.pictures.shown(number, side=SIDE), maps[number]] for number in numbers}
    values: dict[str, Any] = {
        "lists": lists,
        "images": images,
        "records": {number: record(context, number) for number in numbers},
        "block": context.block,
        "first": 12,
    }
    return Section("gallery", "Images to look at", READING, "gallery.html", values)


class Record(NamedTuple):
    """What stands below an image; names are printable."""

    file: str
    label: str
    answer: str
    sure: float
    of_label: float
    right: bool


def record(context: Context, number: int) -> Record:
    """What the page says of one record."""
    label, answer = int(context.labels[number]), int(context.predicted[number])
    chances = context.probabilities[number]
    names = context.files[number], context.classes[label], context.classes[answer]
    return Record(*names, float(chances[answer]), float(chances[label]), label == answer)


def chosen(context: Context) -> list[Chosen]:
    """The lists; an image can be in several."""
    sure, right, top = context.confidence, context.correct, context.top
    margin = _margins(context.probabilities)

    def first(keys: np.ndarray, which: np.ndarray | None = None) -> list[int]:
        places = np.arange(len(keys)) if which is None else np.flatnonzero(which)
        return [int(number) for number in places[np.argsort(keys[places], kind="stable")][:top]]

    return [
        Chosen(
            "losses",
            "Highest losses",
            "The label has the lowest probability: a mistake of the classifier, or a wrong label.",
            first(-context.losses),
        ),
        Chosen("unsure", "Least sure", "The two most probable classes are closest to each other.", first(margin)),
        Chosen(
            "wrong",
            "Most sure and wrong",
            "The answer is not the label, and its probability is high.",
            first(-sure, ~right),
        ),
        Chosen("right", "Most sure and right", "What the classifier finds easy.", first(-sure, right)),
    ]


def _margins(probabilities: np.ndarray) -> np.ndarray:
    """float64 (N,): the difference between the two highest probabilities."""
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return two[:, 1] - two[:, 0]


def heat_maps(context: Context, numbers: list[int]) -> dict[int, str]:
    """Where the network looked for its answer to each of these images, as data URIs that lie on `pictures.shown`."""
    classifier, data = context.classifier, context.classifier.config.data
    pixels = (classifier.prepare(context.split.stored(number), context.files[number]) for number in numbers)
    labels = [int(context.predicted[number]) for number in numbers]
    found = {}
    for number, raw in zip(numbers, classifier.xla.raw_maps(pixels, labels, block=context.block), strict=True):
        seen = context.pictures.seen(number)
        scale = HEAT_SIDE / max(seen.height, seen.width)
        output = max(1, round(seen.height * scale)), max(1, round(seen.width * scale))
        heat = placed(
            normalized(raw),
            shape=(seen.height, seen.width),
            size=data.image_size,
            mode=data.resize,
            output=output,
        )
        found[number] = _webp(colours(heat))
    return found


def _webp(image: np.ndarray) -> str:
    """A WebP file of uint8 (H, W, 4) as a data URI: a tenth of a PNG file of such smooth colours."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="WEBP", quality=70, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
