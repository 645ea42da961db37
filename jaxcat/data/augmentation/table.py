"""The table of augmentations, and how a run's views are made. Imports no framework.

To add an augmentation, add a row to `AUGMENTATIONS` and a function that draws its parameters. `host` computes views
with TensorFlow, `device` with JAX; both take the same parameters.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxcat.data.augmentation.draws import (
    CROP_STORE,
    Affine,
    Parameters,
    affine,
    colours,
    crops,
    erasures,
    trivial,
    uniform,
)

# Raise this version if the pixels of a view change, on the host or on the device. It is part of every bottleneck's key
# and stored with every run; tests/test_golden.py fails if the pixels change and the version does not.
AUGMENT_VERSION = 1

# Where views are computed. Their pixels may differ by one grey level.
AUTO, HOST, DEVICE = "auto", "host", "device"

# Brightness, contrast and saturation after Howard 2013, "Some Improvements on Deep Convolutional Neural Network Based
# Image Classification". The blends, and a range given as 1 ± 0.2, are those of torchvision's ColorJitter.
COLOUR_RANGE = 0.2


class Augmentation(NamedTuple):
    """One row of `AUGMENTATIONS`.

    Attributes:
        meaning: one line for `--help`.
        draw: (uniform numbers (B, DRAWS) in [0, 1), side of the view in pixels) → `Parameters`; None if nothing is
            drawn.
        store_scale: side of the stored images divided by the side of the view.
    """

    meaning: str
    draw: Callable[[np.ndarray, int], Parameters] | None
    store_scale: float = 1.0


class Views(NamedTuple):
    """How the views of a run's training images are made.

    Attributes:
        name: a name in `AUGMENTATIONS`.
        erase: probability that a rectangle of a view is erased.
        on: `HOST` or `DEVICE`.
    """

    name: str = "none"
    erase: float = 0.0
    on: str = HOST

    @property
    def changed(self) -> bool:
        """Whether a view differs from its image."""
        return self.name != "none" or self.erase > 0


UNCHANGED = Views()


def views_of(config: ConfigDict) -> Views:
    """How the config of a run makes the views of its training images."""
    return Views(config.data.augment, erase=config.data.erase, on=config.data.augment_on)


def store_size(name: str, image_size: int) -> int:
    """The side in pixels of the square images that augmentation `name` needs to make views of `image_size` pixels."""
    return math.ceil(_named(name).store_scale * image_size)


def parameters(name: str, *, seed: int, view: int, indices: np.ndarray, size: int, erase: float = 0.0) -> Parameters:
    """Draws view `view` of each record.

    Args:
        name: a name in `AUGMENTATIONS`.
        seed: the seed of the run, 0 to 2**64 - 1.
        view: number of the view, from 0.
        indices: (B,) record numbers; equal numbers get equal parameters.
        size: side of the view in pixels.
        erase: probability that a rectangle of a view is erased.

    Returns:
        The `Parameters` of the batch, for images of `store_size(name, size)` pixels; empty if nothing is drawn.

    Raises:
        ValueError: `name` is not in `AUGMENTATIONS`.
    """
    draw = _named(name).draw
    if not (draw or erase):
        return {}
    drawn = uniform(seed=seed, view=view, indices=indices)
    return (draw(drawn, size) if draw else {}) | (erasures(erase, drawn, size) if erase else {})


def _named(name: str) -> Augmentation:
    if name not in AUGMENTATIONS:
        raise ValueError(f"unknown augmentation {name!r}: one of {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[name]


def _mild(ranges: Affine, drawn: np.ndarray, size: int) -> Parameters:
    return affine(ranges, drawn, size) | colours(_MILD_COLOUR_RANGE, drawn)


def _inception(drawn: np.ndarray, size: int) -> Parameters:
    return crops(drawn, size) | colours(COLOUR_RANGE, drawn)


# ImageDataGenerator's settings in the article. Keras takes shear in degrees, so 0.2 changes next to nothing.
_ARTICLE = Affine(rotation=40.0, shift=0.2, shear=0.2, zoom=0.2, flip=True)
# Little enough that an object stays recognisable and in view: of use where the article's is too strong.
_MILD = Affine(rotation=10.0, shift=0.1, shear=0.0, zoom=0.1, flip=True)
_MILD_COLOUR_RANGE = 0.1
# For small digits: the variation of handwriting, without mirroring.
_DIGITS = Affine(rotation=12.0, shift=0.1, shear=0.0, zoom=0.15, flip=False)

AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation("images as they are", None),
    "article": Augmentation(
        "the article's: rotation ± 40°, shift ± 0.2 of the side, zoom ± 0.2, shear, mirrored half the time",
        functools.partial(affine, _ARTICLE),
    ),
    "mild": Augmentation(
        "rotation ± 10°, shift ± 0.1 of the side, zoom ± 0.1, colours ± 0.1, mirrored half the time",
        functools.partial(_mild, _MILD),
    ),
    "mild_unmirrored": Augmentation(
        "the same, never mirrored: for letters, signs and what else has a left and a right",
        functools.partial(_mild, _MILD._replace(flip=False)),
    ),
    "digits": Augmentation(
        "for small figures: rotation ± 12°, shift ± 0.1 of the side, zoom ± 0.15; never mirrored",
        functools.partial(affine, _DIGITS),
    ),
    "inception": Augmentation(
        "as Inception was trained: crops of 0.3 to all of the area, colours ± 0.2, mirrored half the time",
        _inception,
        store_scale=CROP_STORE,
    ),
    "trivial_augment": Augmentation(
        "TrivialAugment Wide: one of 14 operations: rotation ± 135°, shift ± 32 px, shear, contrast …; never mirrored",
        trivial,
    ),
}
