"""What is drawn for each view: uniform random numbers, turned into matrices, colour factors and rectangles.

Stateless: the numbers of view v of record i depend on (seed, v, i) and on nothing else, so batch size, order of records
and number of threads do not change a view. NumPy alone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from jaxcat.data.augmentation.pixels import OPERATIONS

# Number of uniform random numbers drawn for each record; an augmentation uses the columns that it needs. Adding
# columns at the end leaves the numbers of the others as they are.
DRAWS = 15

# Random resized crop as in Szegedy et al. 2015, "Going Deeper with Convolutions", section 6 (aspect 3/4 to 4/3), with
# at least 0.3 of the area instead of 0.08: transfer learning has few images, and an object should stay in most crops.
CROP_AREA = (0.3, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)
# A crop of 0.3 of the area keeps 0.55 of each side, so a store 1.5 times as large leaves most crops at full resolution.
CROP_STORE = 1.5
# Random erasing, Zhong et al. 2017 (arXiv:1708.04896), section 3.1 and table 1: share of the area, and height divided
# by width.
ERASED_AREA = (0.02, 0.4)
ERASED_ASPECT = (0.3, 1 / 0.3)
# TrivialAugment Wide, Müller and Hutter 2021 (arXiv:2103.10158): the operations, and the greatest strength of each
# (shear, pixels, degrees, 1 ± factor, bits that posterizing takes away). The order, and what a strength means, are
# those of torchvision's TrivialAugmentWide.
TRIVIAL = (
    *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "saturation", "contrast"),
    *OPERATIONS,
)
TRIVIAL_SHEAR, TRIVIAL_SHIFT, TRIVIAL_ROTATION, TRIVIAL_FACTOR, TRIVIAL_BITS = 0.99, 32.0, 135.0, 0.99, 6
TRIVIAL_STEPS = 30  # from no strength to the greatest

# What is done to each image of a batch: arrays by name. An array that an augmentation does not need is left out.
#   matrices: (B, 8) float32, output (x, y) → input (x, y) in pixels, rows as ImageProjectiveTransformV3 reads them.
#   colours: (B, 3) float32, factors of brightness, contrast and saturation; 1 changes nothing.
#   operations: (B, 2) float32: 0, or one of `pixels.OPERATIONS`, counted from 1; and its strength: the factor of
#       sharpness, how many grey levels posterizing makes one, the first level that solarizing inverts.
#   erased: (B, 4) float32, whole numbers: the rectangle from (left, top) up to, without, (right, bottom) in pixels of
#       the view; left = right if nothing is erased.
Parameters = dict[str, np.ndarray]


class Affine(NamedTuple):
    """Ranges for uniform random affine maps: ± degrees, ± a fraction of the side for shift, 1 ± zoom."""

    rotation: float
    shift: float
    shear: float
    zoom: float
    flip: bool


def uniform(*, seed: int, view: int, indices: np.ndarray) -> np.ndarray:
    """Draws (B, DRAWS) float64 in [0, 1), from a Philox stream of its own for each (seed, view, record)."""
    key = np.array([seed, view], np.uint64)
    streams = (np.random.Philox(key=key, counter=[0, 0, 0, int(index)]) for index in indices)
    drawn = [np.random.Generator(stream).random(DRAWS) for stream in streams]
    return np.array(drawn).reshape(len(indices), DRAWS)


def affine(ranges: Affine, drawn: np.ndarray, size: int) -> Parameters:
    """The "matrices" of a random affine map; columns 0 to 6 of the (B, DRAWS) numbers."""
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


def crops(drawn: np.ndarray, size: int) -> Parameters:
    """The "matrices" of random crops of images of `CROP_STORE` times the side, mirrored half the time.

    Draws the aspect log-uniformly, then the area uniformly up to the largest that fits: every draw gives a crop.
    Columns 0 to 3 and 6 of the (B, DRAWS) numbers.
    """
    store = math.ceil(CROP_STORE * size)
    aspect, area = _aspect_and_area(drawn[:, :2], aspects=CROP_ASPECT, areas=CROP_AREA)
    width, height = store * np.sqrt(area * aspect), store * np.sqrt(area / aspect)
    left, top = (store - width) * drawn[:, 2], (store - height) * drawn[:, 3]
    across, down = width / size, height / size
    # Pixel centres lie at half integers of the image's extent.
    crop = _matrices([[across, 0, left + across / 2 - 0.5], [0, down, top + down / 2 - 0.5]])
    return {"matrices": _rows(crop @ _flips(drawn[:, 6] < 0.5, size=size))}


def colours(ranges: float, drawn: np.ndarray) -> Parameters:
    """The "colours" of 1 ± `ranges`; columns 7 to 9 of the (B, DRAWS) numbers."""
    return {"colours": (1 + ranges * (2 * drawn[:, 7:10] - 1)).astype(np.float32)}


def trivial(drawn: np.ndarray, size: int) -> Parameters:
    """One operation of `TRIVIAL` for each image; columns 0 to 2 of the (B, DRAWS) numbers.

    All operations are equally likely, and so are all strengths, and both signs if a strength has one. Nothing is
    mirrored, but images are turned so far that a 6 is nearly a 9. As in torchvision, shears are about the upper left
    corner, and shifts are the same number of pixels at every size. Unlike there, views are bilinear, with the nearest
    edge pixel outside the image, as in all augmentations here.

    Returns:
        "matrices", "colours" and "operations", of which at most one changes an image.
    """
    number, step = np.floor(len(TRIVIAL) * drawn[:, 0]), np.floor((TRIVIAL_STEPS + 1) * drawn[:, 1])
    strength = step / TRIVIAL_STEPS
    signed = np.where(drawn[:, 2] < 0.5, -strength, strength)

    def of(name: str, values: np.ndarray) -> np.ndarray:
        return np.where(number == TRIVIAL.index(name), values, 0)

    lean_x, lean_y = (of(name, TRIVIAL_SHEAR * signed) for name in ("shear_x", "shear_y"))
    tx, ty = (of(name, np.trunc(TRIVIAL_SHIFT * signed)) for name in ("translate_x", "translate_y"))
    angle, centre = np.deg2rad(of("rotate", TRIVIAL_ROTATION * signed)), size / 2 - 0.5
    cos, sin = np.cos(angle), np.sin(angle)
    turned = _matrices([[cos, -sin, centre * (1 - cos + sin)], [sin, cos, centre * (1 - cos - sin)]])
    # The corner lies half a pixel from the centre of the first pixel.
    moved = _matrices([[1, lean_x, lean_x / 2 - tx], [lean_y, 1, lean_y / 2 - ty]])
    factors = [1 + of(name, TRIVIAL_FACTOR * signed) for name in ("brightness", "contrast", "saturation")]
    operation = np.maximum(number + 1 + len(OPERATIONS) - len(TRIVIAL), 0)
    strengths = of("sharpness", 1 + TRIVIAL_FACTOR * signed)
    strengths += of("posterize", 2 ** np.rint(TRIVIAL_BITS * strength))
    strengths += of("solarize", np.ceil(255 - 255 / TRIVIAL_STEPS * step))
    return {
        "matrices": _rows(turned @ moved),
        "colours": np.stack(factors, axis=1).astype(np.float32),
        "operations": np.stack([operation, strengths], axis=1).astype(np.float32),
    }


def erasures(probability: float, drawn: np.ndarray, size: int) -> Parameters:
    """The "erased" rectangles, in that share of the views; columns 10 to 14 of the (B, DRAWS) numbers.

    The paper draws again until a rectangle fits. Here the aspect comes first, log-uniform, then an area that fits.
    """
    aspect, area = _aspect_and_area(drawn[:, 11:13], aspects=ERASED_ASPECT, areas=ERASED_AREA)
    width, height = (np.ceil(size * np.sqrt(share)) for share in (area / aspect, area * aspect))
    width, height = np.minimum(width, size), np.minimum(height, size)
    left = np.floor((size - width + 1) * drawn[:, 13])
    top = np.floor((size - height + 1) * drawn[:, 14])
    erased = np.stack([left, top, left + width, top + height], axis=1)
    return {"erased": np.where(drawn[:, 10, None] < probability, erased, 0).astype(np.float32)}


def _aspect_and_area(
    drawn: np.ndarray, *, aspects: tuple[float, float], areas: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """(B, 2) uniform numbers → (B,) aspects, log-uniform, and (B,) areas that fit, as shares of the whole."""
    low, high = np.log(aspects)
    aspect = np.exp(low + (high - low) * drawn[:, 0])
    largest = np.minimum(areas[1], np.minimum(aspect, 1 / aspect))
    return aspect, areas[0] + (largest - areas[0]) * drawn[:, 1]


def _flips(flip: np.ndarray, *, size: int) -> np.ndarray:
    return _matrices([[np.where(flip, -1, 1), 0, np.where(flip, size - 1, 0)], [0, 1, 0]])


def _matrices(rows: list[list[Any]]) -> np.ndarray:
    """Adds the row 0 0 1 to two rows of numbers or (B,) arrays: (B, 3, 3), or (1, 3, 3) if all are numbers."""
    entries = np.broadcast_arrays(*(np.atleast_1d(entry) for row in [*rows, [0, 0, 1]] for entry in row))
    return np.stack(entries, axis=-1).astype(np.float64).reshape(-1, 3, 3)


def _rows(matrices: np.ndarray) -> np.ndarray:
    return matrices.reshape(-1, 9)[:, :8].astype(np.float32)
