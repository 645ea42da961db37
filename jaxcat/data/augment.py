"""Stateless augmentation: view v of record i depends on (seed, v, i) and on nothing else.

NumPy draws the random numbers and turns them into at most one projective matrix and three colour factors per image.
TensorFlow then interpolates each image once. Batch size, order of records and number of threads do not change a view.

To add an augmentation, add a row to `AUGMENTATIONS` and a function that draws its parameters. TensorFlow is imported
on first use.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxcat.system.console import without_lines

# Raise this version if the pixels of a view change. It is part of every bottleneck's key and stored with every run;
# tests/test_golden.py fails if the pixels change and the version does not.
AUGMENT_VERSION = 1

# Number of uniform random numbers drawn for each record; an augmentation uses the columns that it needs.
DRAWS = 10

# Random resized crop as in Szegedy et al. 2015, "Going Deeper with Convolutions", section 6 (aspect 3/4 to 4/3), with
# at least 0.3 of the area instead of 0.08: transfer learning has few images, and an object should stay in most crops.
CROP_AREA = (0.3, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)
# A crop of 0.3 of the area keeps 0.55 of each side, so a store 1.5 times as large leaves most crops at full resolution.
CROP_STORE = 1.5
# Brightness, contrast and saturation after Howard 2013, "Some Improvements on Deep Convolutional Neural Network Based
# Image Classification". The blends, and a range given as 1 ± 0.2, are those of torchvision's ColorJitter.
COLOUR_RANGE = 0.2
# ITU-R BT.601 luma, which Pillow and torchvision use as grey.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

# What is done to each image of a batch: arrays by name. An array that an augmentation does not need is left out.
#   matrices: (B, 8) float32, output (x, y) → input (x, y) in pixels, rows as ImageProjectiveTransformV3 reads them.
#   colours: (B, 3) float32, factors of brightness, contrast and saturation; 1 changes nothing.
Parameters = dict[str, np.ndarray]


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


class Affine(NamedTuple):
    """Ranges for uniform random affine maps: ± degrees, ± a fraction of the side for shift, 1 ± zoom."""

    rotation: float
    shift: float
    shear: float
    zoom: float
    flip: bool


@functools.cache
def tensorflow() -> Any:
    """The tensorflow module, imported on first use and kept off the accelerators, which belong to JAX."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hides start-up notices, which do not help a user of jaxcat
    # One notice comes at every level. Only turning oneDNN off would stop it, and makes `inception` 1.4 times as slow.
    with without_lines("oneDNN custom operations are on", "before absl::InitializeLog() is called"):
        import tensorflow as tf

    if tf.config.get_visible_devices("GPU"):
        tf.config.set_visible_devices([], "GPU")
    return tf


def store_size(name: str, image_size: int) -> int:
    """The side in pixels of the square images that augmentation `name` needs to make views of `image_size` pixels."""
    return math.ceil(_named(name).store_scale * image_size)


def parameters(name: str, *, seed: int, view: int, indices: np.ndarray, size: int) -> Parameters:
    """Draws view `view` of each record.

    Args:
        name: a name in `AUGMENTATIONS`.
        seed: the seed of the run, 0 to 2**64 - 1.
        view: number of the view, from 0.
        indices: (B,) record numbers; equal numbers get equal parameters.
        size: side of the view in pixels.

    Returns:
        The `Parameters` of the batch, for images of `store_size(name, size)` pixels; empty if nothing is drawn.

    Raises:
        ValueError: `name` is not in `AUGMENTATIONS`.
    """
    draw = _named(name).draw
    return draw(_uniform(seed=seed, view=view, indices=indices), size) if draw else {}


def apply(images: Any, drawn: Mapping[str, Any], *, size: int) -> Any:
    """Makes the views, as TensorFlow ops.

    Args:
        images: (B, S, S, 3) uint8 tensor, S the `store_size`.
        drawn: the result of `parameters`, as arrays or as tensors.
        size: side of the views in pixels.

    Returns:
        (B, size, size, 3) uint8 tensor; `images` itself if there is nothing to do. Positions outside the
        image get the nearest edge pixel; positions between pixels are bilinear, rounded to the nearest integer.
    """
    if not drawn:
        return images
    tf = tensorflow()
    views = tf.cast(images, tf.float32)  # on integers the op truncates: on average half a grey level too dark
    if "matrices" in drawn:
        views = tf.raw_ops.ImageProjectiveTransformV3(
            images=views,
            transforms=drawn["matrices"],
            output_shape=[size, size],
            fill_value=0.0,
            fill_mode="NEAREST",
            interpolation="BILINEAR",
        )
    if "colours" in drawn:
        views = _recolour(views, drawn["colours"])
    return tf.cast(tf.round(views), tf.uint8)


def affine_matrices(
    theta: np.ndarray,
    *,
    tx: np.ndarray,
    ty: np.ndarray,
    shear: np.ndarray,
    zx: np.ndarray,
    zy: np.ndarray,
    flip: np.ndarray,
    size: int,
) -> np.ndarray:
    """The map of Keras's ImageDataGenerator: rotation · shift · shear · zoom about the centre, then the flip.

    Args:
        theta: (B,) degrees.
        tx: (B,) pixels along x, although Keras draws its `tx` from `height_shift_range`.
        ty: (B,) pixels along y.
        shear: (B,) degrees.
        zx: (B,) factor along x; above 1 shows more of the image.
        zy: (B,) factor along y.
        flip: (B,) bool, left to right.
        size: side in pixels of the images and of the views.

    Returns:
        (B, 8) float32, the "matrices" of `Parameters`.
    """
    angle, lean = np.deg2rad(theta), np.deg2rad(shear)
    rotation = _matrices([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
    shift = _matrices([[1, 0, tx], [0, 1, ty]])
    shearing = _matrices([[1, -np.sin(lean), 0], [0, np.cos(lean), 0]])
    zoom = _matrices([[zx, 0, 0], [0, zy, 0]])
    centre = size / 2 - 0.5
    there, back = (_matrices([[1, 0, offset], [0, 1, offset]]) for offset in (centre, -centre))
    return _rows(there @ rotation @ shift @ shearing @ zoom @ back @ _flips(flip, size=size))


def _named(name: str) -> Augmentation:
    if name not in AUGMENTATIONS:
        raise ValueError(f"unknown augmentation {name!r}: one of {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[name]


def _uniform(*, seed: int, view: int, indices: np.ndarray) -> np.ndarray:
    """Draws (B, DRAWS) float64 in [0, 1), from a Philox stream of its own for each (seed, view, record)."""
    key = np.array([seed, view], np.uint64)
    streams = (np.random.Philox(key=key, counter=[0, 0, 0, int(index)]) for index in indices)
    drawn = [np.random.Generator(stream).random(DRAWS) for stream in streams]
    return np.array(drawn).reshape(len(indices), DRAWS)


def _draw_affine(ranges: Affine, drawn: np.ndarray, size: int) -> Parameters:
    signed = 2 * drawn - 1
    matrices = affine_matrices(
        ranges.rotation * signed[:, 0],
        tx=ranges.shift * size * signed[:, 1],
        ty=ranges.shift * size * signed[:, 2],
        shear=ranges.shear * signed[:, 3],
        zx=1 + ranges.zoom * signed[:, 4],
        zy=1 + ranges.zoom * signed[:, 5],
        flip=(drawn[:, 6] < 0.5) & ranges.flip,
        size=size,
    )
    return {"matrices": matrices}


def _draw_inception(drawn: np.ndarray, size: int) -> Parameters:
    return {"matrices": _crops(drawn, size=size), "colours": _colours(drawn)}


def _crops(drawn: np.ndarray, *, size: int) -> np.ndarray:
    """Draws the aspect log-uniformly, then the area uniformly up to the largest that fits: every draw gives a crop."""
    store = math.ceil(CROP_STORE * size)
    low, high = np.log(CROP_ASPECT)
    aspect = np.exp(low + (high - low) * drawn[:, 0])
    largest = np.minimum(CROP_AREA[1], np.minimum(aspect, 1 / aspect))
    area = CROP_AREA[0] + (largest - CROP_AREA[0]) * drawn[:, 1]
    width, height = store * np.sqrt(area * aspect), store * np.sqrt(area / aspect)
    left, top = (store - width) * drawn[:, 2], (store - height) * drawn[:, 3]
    across, down = width / size, height / size
    # Pixel centres lie at half integers of the image's extent.
    crop = _matrices([[across, 0, left + across / 2 - 0.5], [0, down, top + down / 2 - 0.5]])
    return _rows(crop @ _flips(drawn[:, 6] < 0.5, size=size))


def _colours(drawn: np.ndarray) -> np.ndarray:
    return (1 + COLOUR_RANGE * (2 * drawn[:, 7:10] - 1)).astype(np.float32)


def _recolour(images: Any, colours: Any) -> Any:
    """Changes brightness, contrast (about the mean grey) and saturation (about each pixel's grey) in one linear map."""
    tf = tensorflow()
    brightness, contrast, saturation = (colours[:, i, None, None] for i in range(3))
    to_grey = tf.tile(LUMA[:, None], [1, 3])[None]  # colours (1, 3) @ to_grey = grey in all three channels
    mixing = brightness * contrast * (saturation * tf.eye(3)[None] + (1 - saturation) * to_grey)
    pixels = tf.reshape(images, [tf.shape(images)[0], -1, 3])
    mean_grey = tf.reduce_mean(pixels, axis=1, keepdims=True) @ to_grey
    recoloured = tf.matmul(pixels, mixing) + brightness * (1 - contrast) * mean_grey
    return tf.clip_by_value(tf.reshape(recoloured, tf.shape(images)), 0.0, 255.0)


def _flips(flip: np.ndarray, *, size: int) -> np.ndarray:
    return _matrices([[np.where(flip, -1, 1), 0, np.where(flip, size - 1, 0)], [0, 1, 0]])


def _matrices(rows: list[list[Any]]) -> np.ndarray:
    """Adds the row 0 0 1 to two rows of numbers or (B,) arrays: (B, 3, 3), or (1, 3, 3) if all are numbers."""
    entries = np.broadcast_arrays(*(np.atleast_1d(entry) for row in [*rows, [0, 0, 1]] for entry in row))
    return np.stack(entries, axis=-1).astype(np.float64).reshape(-1, 3, 3)


def _rows(matrices: np.ndarray) -> np.ndarray:
    return matrices.reshape(-1, 9)[:, :8].astype(np.float32)


# ImageDataGenerator's settings in the article. Keras takes shear in degrees, so 0.2 changes next to nothing.
_ARTICLE = Affine(rotation=40.0, shift=0.2, shear=0.2, zoom=0.2, flip=True)
# For small digits: the variation of handwriting, without mirroring.
_DIGITS = Affine(rotation=12.0, shift=0.1, shear=0.0, zoom=0.15, flip=False)

AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation("images as they are", None),
    "article": Augmentation(
        "the article's: rotation ± 40°, shift ± 0.2 of the side, zoom ± 0.2, shear, mirrored half the time",
        functools.partial(_draw_affine, _ARTICLE),
    ),
    "digits": Augmentation(
        "for small figures: rotation ± 12°, shift ± 0.1 of the side, zoom ± 0.15; never mirrored",
        functools.partial(_draw_affine, _DIGITS),
    ),
    "inception": Augmentation(
        "as Inception was trained: crops of 0.3 to all of the area, colours ± 0.2, mirrored half the time",
        _draw_inception,
        store_scale=CROP_STORE,
    ),
}
