"""Views by JAX, on the devices, as part of the program that uses them.

Whole numbers do the arithmetic on pixels, so a view has the same bits on every platform, in every batch and however
its program was compiled. Floating-point numbers are only added, to find a position: `for_device` multiplies before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcat.data.augmentation.draws import Parameters
from jaxcat.data.augmentation.pixels import ERASED, LUMA, SHARPNESS, SMOOTH_CENTRE, SMOOTH_SUM, tables

# Binary places after the point, chosen so that every product fits 32 bits: of the weights of neighbouring pixels, of
# grey levels, of the factors of colours, and of those of sharpness.
WEIGHT, LEVEL, FACTOR, SHARP = 11, 6, 12, 18

# Arrays of a batch that `views` uses besides "image".
#   across, down: (B, 3, size) float32: what column x and row y of a view add to three numbers, numerators of the
#       position in the image (x, then y) and their denominator.
#   mixing: (B, 4, 3) int32: factors of each colour on each colour, then those of the mean colour on all.
#   operations: (B, 2) int32, as in `Parameters`, but a factor of sharpness f is (f - 1) / SMOOTH_SUM.
#   erased: as in `Parameters`.
NAMES = ("across", "down", "mixing", "operations", "erased")


def for_device(drawn: Parameters, *, size: int) -> dict[str, np.ndarray]:
    """The `Parameters` of a batch → the arrays that `views` uses; see `NAMES`."""
    arrays = {}
    if "matrices" in drawn:
        rows = drawn["matrices"].astype(np.float64)
        last = np.concatenate([rows[:, 6:], np.ones((len(rows), 1))], axis=1)
        maps = np.stack([rows[:, :3], rows[:, 3:6], last], axis=1)  # (B, 3, 3)
        place = np.arange(size)
        arrays["across"] = (maps[:, :, :1] * place + maps[:, :, 2:]).astype(np.float32)
        arrays["down"] = (maps[:, :, 1:2] * place).astype(np.float32)
    if "colours" in drawn:
        brightness, contrast, saturation = (drawn["colours"].astype(np.float64)[:, i, None, None] for i in range(3))
        to_grey = np.tile(LUMA.astype(np.float64)[:, None], (1, 3))
        of_colour = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * to_grey)
        of_mean = brightness * (1 - contrast) * LUMA[None, None]
        arrays["mixing"] = np.rint(np.concatenate([of_colour, of_mean], axis=1) * 2**FACTOR).astype(np.int32)
    if "operations" in drawn:
        operation, strength = drawn["operations"].astype(np.float64).T
        factor = np.rint((strength - 1) / SMOOTH_SUM * 2**SHARP)
        strength = np.where(operation == SHARPNESS, factor, strength)
        arrays["operations"] = np.stack([operation, strength], axis=1).astype(np.int32)
    if "erased" in drawn:
        arrays["erased"] = drawn["erased"]
    return arrays


def views(batch: Mapping[str, Array]) -> Array:
    """Makes the views of a batch, at least 2×2 pixels; differs from `host.apply` by at most one grey level.

    Args:
        batch: "image" uint8 (B, S, S, 3), and the arrays of `for_device`; others are not used.

    Returns:
        uint8 (B, size, size, 3); the images themselves if the batch has no such arrays.
    """
    arrays = inputs(batch)
    if len(arrays) == 1:
        return arrays["image"]
    if not arrays.keys() & {"mixing", "operations", "erased"}:
        return _each(lambda record: _pixels(_levels(record)), arrays)
    # Two passes: in one, a compiler would find the levels anew for each use of them, at twice the time.
    levels = _each(lambda record: _levels(record).astype(jnp.int16), arrays)
    return _each(_finished, arrays | {"levels": levels})


def with_views(batch: dict[str, Array]) -> dict[str, Array]:
    """A batch with the views in place of the images they are made of, and without what `views` needs besides."""
    arrays = inputs(batch)
    if len(arrays) <= 1:
        return batch
    return {name: array for name, array in batch.items() if name not in arrays} | {"image": views(batch)}


def _each(function: Callable[[dict[str, Array]], Array], records: dict[str, Array]) -> Array:
    """The function's result for each record of a batch."""
    if jax.default_backend() == "cpu" and jax.device_count() == 1:
        return jax.lax.map(function, records)  # one image fits the processor's cache: at 299 px twice as fast
    return jax.vmap(function)(records)


def inputs(batch: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays of a batch that `views` uses."""
    return {name: batch[name] for name in ("image", *NAMES) if name in batch}


def _levels(record: Mapping[str, Array]) -> Array:
    """The grey levels of one image where the view needs them, int32 (size, size, 3) with `LEVEL` binary places."""
    if "across" in record:
        return _warped(record["image"], record["across"], record["down"])
    return record["image"].astype(jnp.int32) << LEVEL


def _finished(record: Mapping[str, Array]) -> Array:
    """The view of one image, uint8 (size, size, 3), from its "levels": recoloured, operated on, a rectangle erased."""
    levels = record["levels"].astype(jnp.int32)
    pixels = _pixels(_recoloured(levels, record["mixing"]) if "mixing" in record else levels)
    if "operations" in record:
        pixels = _operated(pixels, *record["operations"])
    if "erased" not in record:
        return pixels
    left, top, right, bottom = record["erased"].astype(jnp.int32)
    y, x = (jnp.arange(count) for count in pixels.shape[:2])
    inside = ((top <= y) & (y < bottom))[:, None] & ((left <= x) & (x < right))
    return jnp.where(inside[..., None], ERASED, pixels)


def _pixels(levels: Array) -> Array:
    """Grey levels, int32 with `LEVEL` binary places → uint8."""
    return jnp.clip(_shifted(levels, LEVEL), 0, 255).astype(jnp.uint8)


def _warped(image: Array, across: Array, down: Array) -> Array:
    """Bilinear grey levels at the positions of the view, int32 with `LEVEL` binary places.

    Outside the image they are those of the nearest edge pixel, and 0 where a position has no denominator.
    """
    side = image.shape[0]
    x, y, denominator = across[:, None, :] + down[:, :, None]
    nowhere = denominator == 0
    denominator = jnp.where(nowhere, 1, denominator)
    (column, right), (row, lower) = (_neighbours(axis / denominator, side) for axis in (x, y))
    upper = jnp.where(nowhere, 0, 2**WEIGHT - lower)  # by the weights: choosing pixels in the end takes twice as long
    lower = jnp.where(nowhere, 0, lower)
    pixels, first = image.reshape(side * side, 3), row * side + column

    def at(offset: int) -> Array:
        """The grey levels at `offset` from the first of the four pixels around each position."""
        return pixels.at[first + offset].get(mode="promise_in_bounds").astype(jnp.int32)

    def between(offset: int) -> Array:
        left = at(offset)
        return (left << WEIGHT) + right[..., None] * (at(offset + 1) - left)

    levels = upper[..., None] * between(0) + lower[..., None] * between(side)
    return _shifted(levels, 2 * WEIGHT - LEVEL)


def _neighbours(position: Array, side: int) -> tuple[Array, Array]:
    """Positions along an axis → the pixel before each, at most the last but one, and the weight of the one after it."""
    inside = jnp.clip(position, 0, side - 1)
    before = jnp.minimum(jnp.floor(inside), side - 2)
    return before.astype(jnp.int32), jnp.round((inside - before) * 2**WEIGHT).astype(jnp.int32)


def _shifted(numbers: Array, places: int) -> Array:
    """Integers without their last binary places, rounded to the nearest, halves up."""
    return (numbers + (1 << places - 1)) >> places


def _recoloured(levels: Array, mixing: Array) -> Array:
    """Grey levels (size, size, 3) with other brightness, contrast and saturation, see `host`."""
    size = levels.shape[0]
    mean = (levels.sum(axis=1) // size).sum(axis=0) // size  # a sum over the whole image could exceed 32 bits
    if jax.default_backend() == "cpu":
        mixed = jax.lax.dot_general(levels, mixing[:3], (((2,), (0,)), ((), ())))
    else:  # the same sums; not every device multiplies matrices of whole numbers
        red, green, blue = (levels[..., i, None] * mixing[i] for i in range(3))
        mixed = red + green + blue
    return _shifted(mixed + (mean * mixing[3]).sum(), FACTOR)


def _operated(pixels: Array, operation: Array, strength: Array) -> Array:
    """One image, uint8 (size, size, 3), after one of `OPERATIONS`; only a loop over images computes that one alone."""

    def sharpened() -> Array:
        return _sharpened(pixels.astype(jnp.int32), strength).astype(jnp.uint8)

    def looked_up() -> Array:
        channel = jnp.arange(3)
        histogram = jnp.zeros((3, 256), jnp.int32).at[channel, pixels].add(1)
        table = tables(jnp, histogram, operation=operation[None], strength=strength[None]).astype(jnp.uint8)
        return table.at[channel, pixels].get(mode="promise_in_bounds")

    return jax.lax.switch(jnp.minimum(operation, SHARPNESS + 1), [lambda: pixels, sharpened, looked_up])


def _sharpened(pixels: Array, factor: Array) -> Array:
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    around = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    rougher = factor * ((SMOOTH_SUM + 1 - SMOOTH_CENTRE) * pixels[1:-1, 1:-1] - around)
    return jnp.clip(pixels + jnp.pad(_shifted(rougher, SHARP), ((1, 1), (1, 1), (0, 0))), 0, 255)
