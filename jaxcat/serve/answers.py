"""From the bytes of an image to the answer that is sent: within limits, by jaxcat's own decoder."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from jaxcat.data.images.decoding import decode, decoding_of
from jaxcat.data.images.formats import open_image
from jaxcat.errors import DataError
from jaxcat.inference.explanation import colours, normalized, placed
from jaxcat.serve.refused import Refused

if TYPE_CHECKING:
    from jaxcat.inference.classifier import Classifier

MOST_BYTES = 32 * 2**20  # of an image as it is sent
MOST_PIXELS = 64_000_000  # a pixel takes 7 to 14 bytes of memory while it is decoded
VIEW = 448  # pixels of the longer side of an image as answers contain it
HEAT = 160  # the same of a heat map, which has no details
TOP = 5  # classes of an answer


class Limits(NamedTuple):
    """What is read.

    Attributes:
        most_bytes: of an image as it is sent.
        most_pixels: of a decoded image.
        seconds: in which the body of a request must have come.
    """

    most_bytes: int = MOST_BYTES
    most_pixels: int = MOST_PIXELS
    seconds: float = 30.0


class Received(NamedTuple):
    """An image that was sent.

    Attributes:
        content: its bytes.
        form: its format, as Pillow calls it.
        pixels: uint8 (H, W, 3), decoded as in training.
    """

    content: bytes
    form: str
    pixels: np.ndarray


def received(content: bytes, *, config: Any, limits: Limits) -> Received:
    """Decodes an image within the limits.

    Args:
        config: of the run, which says how images are decoded.

    Raises:
        Refused: it is no image, is damaged, or has too many pixels.
    """
    form, pixels = _form_and_pixels(content)
    if pixels > limits.most_pixels:
        raise Refused(413, f"{pixels:,} pixels are more than the {limits.most_pixels:,} that are read here")
    how = decoding_of(config)
    try:
        decoded = decode(content, "image", how._replace(max_pixels=min(how.max_pixels, limits.most_pixels)))
    except DataError as error:
        reason = str(error).removeprefix("image: ")
        status = 413 if "pixels are more than" in reason else 422
        raise Refused(status, f"no answer: {reason.partition('; if the image is meant')[0]}") from error
    return Received(content, form, decoded)


def _form_and_pixels(content: bytes) -> tuple[str, int]:
    """The format and the number of pixels that a file claims to have; ("", 0) if it cannot be opened."""
    try:
        with open_image(content) as image:
            return image.format or "", image.width * image.height
    except Exception:  # decoding says what is wrong
        return "", 0


def answer(
    classifier: Classifier, pixels: np.ndarray, *, top: int = TOP, view: bool = False, heat: bool = False
) -> dict[str, Any]:
    """The answer for a decoded image uint8 (H, W, 3): what `jaxcat.predict` prints for it, without the file.

    Args:
        top: how many classes to name.
        view: whether "view" has a small copy of the image, as the address of a JPEG.
        heat: whether "heat" is where the network looked, as the address of a PNG that covers it.
    """
    prepared = classifier.prepare(pixels)
    (probabilities,) = next(classifier.predict_pixels([prepared], batch_size=1))
    best = np.argsort(-probabilities, kind="stable")[: max(1, min(top, len(classifier.classes)))]
    named = [[classifier.classes[place], round(float(probabilities[place]), 6)] for place in best.tolist()]
    found: dict[str, Any] = {"label": named[0][0], "probability": named[0][1], "top": named}
    height, width = pixels.shape[:2]
    found["size"] = [width, height]
    if view:
        found["view"] = _address(Image.fromarray(pixels).resize(_small(width, height, VIEW)), "JPEG", quality=85)
    if heat:
        (raw,) = classifier.xla.raw_maps([prepared], [int(best[0])])
        data, (across, down) = classifier.config.data, _small(width, height, HEAT)
        where = placed(
            normalized(raw), shape=(height, width), size=data.image_size, mode=data.resize, output=(down, across)
        )
        found["heat"] = _address(Image.fromarray(colours(where)), "PNG")
    return found


def _small(width: int, height: int, longer: int) -> tuple[int, int]:
    """The size, (width, height), of an image whose longer side has at most so many pixels."""
    scale = min(1.0, longer / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _address(image: Image.Image, form: str, **options: Any) -> str:
    """An image as an address that contains it."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
