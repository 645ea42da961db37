"""Pillow's resize as TensorFlow operations, to the last level; and every mode of data/images/resizing.py.

Pillow resizes rows and columns one after the other. Each pass is a weighted sum of neighbouring levels with weights
that are whole numbers of 2 ** -22, rounded to a level: src/libImaging/Resample.c, the functions precompute_coeffs,
normalize_coeffs_8bpc and ImagingResampleHorizontal_8bpc.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

PRECISION = 22  # PRECISION_BITS in Resample.c: 32 - 8 - 2


class Filter(NamedTuple):
    """A filter of Pillow: `weight` of distances, float64, is 0 beyond `support`."""

    support: float
    weight: Callable[[Any], Any]


def _triangle(x: Any) -> Any:
    return tf.maximum(1 - tf.abs(x), 0)


def _cubic(x: Any) -> Any:
    """bicubic_filter in Resample.c, with a = -0.5."""
    x, a = tf.abs(x), -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return tf.where(x < 1, near, tf.where(x < 2, far, tf.zeros_like(x)))


BILINEAR, BICUBIC = Filter(1.0, _triangle), Filter(2.0, _cubic)


def resized(image: Any, size: int, *, mode: str) -> Any:
    """uint8 (H, W, 3) of any size → uint8 (size, size, 3); `mode` is a name in `data.images.resizing.RESIZES`."""
    image = _MODES[mode](tf.convert_to_tensor(image), size)
    return tf.ensure_shape(image, (size, size, 3))


def _squash(image: Any, size: int) -> Any:
    tall, wide = _sides(image)
    return _scaled(image, (size, size), BILINEAR, rows=(0.0, _real(tall)), columns=(0.0, _real(wide)))


def _center_crop(image: Any, size: int) -> Any:
    tall, wide = _sides(image)
    side = _real(tf.minimum(tall, wide))
    top, left = (_real(tall) - side) / 2, (_real(wide) - side) / 2
    return _scaled(image, (size, size), BILINEAR, rows=(top, top + side), columns=(left, left + side))


def _timm(image: Any, size: int) -> Any:
    return _resize_middle(image, size, shorter=math.floor(size / 0.875), kernel=BICUBIC)


def _torchvision(image: Any, size: int) -> Any:
    return _resize_middle(image, size, shorter=round(size * 342 / 299), kernel=BILINEAR)


def _resize_middle(image: Any, size: int, *, shorter: int, kernel: Filter) -> Any:
    tall, wide = _sides(image)
    least = tf.minimum(tall, wide)
    top, left = tf.maximum(0, (tall - 8 * least) // 2), tf.maximum(0, (wide - 8 * least) // 2)
    image = image[top : tall - top, left : wide - left]
    tall, wide = _sides(image)
    sides = [tf.cast(_real(shorter * each) / _real(tf.minimum(tall, wide)), tf.int32) for each in (tall, wide)]
    image = _scaled(image, (sides[0], sides[1]), kernel, rows=(0.0, _real(tall)), columns=(0.0, _real(wide)))
    top, left = (tf.cast(tf.round(_real(each - size) / 2), tf.int32) for each in sides)  # a half to the even one
    return image[top : top + size, left : left + size]


_MODES = {"squash": _squash, "center_crop": _center_crop, "timm": _timm, "torchvision": _torchvision}


def _scaled(image: Any, size: tuple[Any, Any], kernel: Filter, *, rows: Any, columns: Any) -> Any:
    """The part of an image between rows and columns → `size` (height, width), in the order of jaxcat's `_scaled`."""
    (height, width), (tall, wide) = size, _sides(image)

    def along_rows(x: Any) -> Any:
        return _one_way(x, width, kernel, *columns)

    def along_columns(x: Any) -> Any:
        return tf.transpose(_one_way(tf.transpose(x, [1, 0, 2]), height, kernel, *rows), [1, 0, 2])

    columns_first = (tall > height) & (tall - height > 2 * (wide - width))
    return tf.cond(columns_first, lambda: along_rows(along_columns(image)), lambda: along_columns(along_rows(image)))


def _one_way(image: Any, size: Any, kernel: Filter, start: Any, end: Any) -> Any:
    """uint8 (H, W, 3) → uint8 (H, size, 3), of the columns between `start` and `end`."""
    length = tf.shape(image)[1]
    first, weights = _weights(length, size, kernel, _real(start), _real(end))
    flat = tf.transpose(image, [1, 0, 2])  # (W, H, 3): one gather of whole columns for each weight

    def add(step: Any, total: Any) -> Any:
        taken = tf.gather(flat, tf.minimum(first + step, length - 1))
        return step + 1, total + tf.cast(taken, tf.int32) * weights[:, step, None, None]

    rows = tf.shape(image)[0]
    half = tf.fill(tf.stack([tf.cast(size, tf.int32), rows, 3]), 1 << (PRECISION - 1))
    _, total = tf.while_loop(
        lambda step, total: step < tf.shape(weights)[1],
        add,
        (tf.constant(0), half),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None, 3])),
    )
    levels = tf.clip_by_value(tf.bitwise.right_shift(total, PRECISION), 0, 255)
    return tf.transpose(tf.cast(levels, tf.uint8), [1, 0, 2])


def _weights(length: Any, size: Any, kernel: Filter, start: Any, end: Any) -> tuple[Any, Any]:
    """For each of `size` results, the first level that counts, and int32 (size, n) weights from there on."""
    scale = (end - start) / _real(size)
    wide = tf.maximum(scale, 1)
    support = kernel.support * wide
    centre = start + (_real(tf.range(size)) + 0.5) * scale
    first = tf.maximum(tf.cast(centre - support + 0.5, tf.int32), 0)
    last = tf.minimum(tf.cast(centre + support + 0.5, tf.int32), length)
    steps = tf.range(2 * tf.cast(tf.math.ceil(support), tf.int32) + 1)
    places = first[:, None] + steps
    weight = kernel.weight((_real(places) - centre[:, None] + 0.5) * (1 / wide))
    weight = tf.where(places < last[:, None], weight, tf.zeros_like(weight))
    weight /= tf.reduce_sum(weight, axis=1, keepdims=True)
    whole = weight * (1 << PRECISION)
    return first, tf.cast(whole + tf.where(whole < 0, _real(-0.5), _real(0.5)), tf.int32)  # towards 0, as in C


def _sides(image: Any) -> tuple[Any, Any]:
    shape = tf.shape(image)
    return shape[0], shape[1]


def _real(value: Any) -> Any:
    return tf.cast(value, tf.float64)
