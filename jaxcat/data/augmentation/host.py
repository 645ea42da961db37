"""Views by TensorFlow, on the processor, while the devices compute. TensorFlow is imported on first use."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

from jaxcat.data.augmentation.pixels import ERASED, LUMA, SHARPNESS, SMOOTH_CENTRE, SMOOTH_SUM, tables
from jaxcat.system.console import without_lines
from jaxcat.system.tensorflow_import import import_tensorflow


@functools.cache
def tensorflow() -> Any:
    """The tensorflow module, imported on first use and kept off the accelerators, which belong to JAX."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hides start-up notices, which do not help a user of jaxcat
    # One notice comes at every level. Only turning oneDNN off would stop it, and makes `inception` 1.4 times as slow.
    with without_lines("oneDNN custom operations are on", "before absl::InitializeLog() is called"):
        tf = import_tensorflow()
    if tf.config.get_visible_devices("GPU"):
        tf.config.set_visible_devices([], "GPU")
    return tf


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
    if "operations" in drawn:
        views = _operated(views, drawn["operations"])
    views = tf.cast(tf.round(views), tf.uint8)
    return _erase(views, drawn["erased"], size=size) if "erased" in drawn else views


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


def _operated(views: Any, operations: Any) -> Any:
    """Changes each image by its operation; operations that no image of the batch has are not computed."""
    tf = tensorflow()
    operation, strength = operations[:, 0], operations[:, 1]
    sharpened = tf.equal(operation, float(SHARPNESS))
    factors = tf.where(sharpened, strength, 1.0)
    views = tf.cond(tf.reduce_any(sharpened), lambda: _sharpened(views, factors), lambda: views)
    by_table = tf.reduce_any(operation > SHARPNESS)
    return tf.cond(by_table, lambda: _looked_up(tf.round(views), operations), lambda: views)


def _sharpened(views: Any, factors: Any) -> Any:
    """Blends each image with itself smoothed, but for its outermost pixels; a factor of 1 changes nothing."""
    tf = tensorflow()
    rows = views[:, :-2] + views[:, 1:-1] + views[:, 2:]
    around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = views[:, 1:-1, 1:-1]
    rougher = (factors[:, None, None, None] - 1) / SMOOTH_SUM * ((SMOOTH_SUM + 1 - SMOOTH_CENTRE) * inner - around)
    return tf.clip_by_value(views + tf.pad(rougher, [[0, 0], [1, 1], [1, 1], [0, 0]]), 0.0, 255.0)


def _looked_up(views: Any, operations: Any) -> Any:
    """Replaces grey levels, whole numbers, by those of `tables`, which each channel of an image has for itself."""
    tf = tensorflow()
    shape = tf.shape(views)
    levels = tf.reshape(tf.transpose(tf.cast(views, tf.int32), [0, 3, 1, 2]), [3 * shape[0], -1])
    histogram = tf.math.bincount(levels, minlength=256, maxlength=256, axis=-1, dtype=tf.int64)
    of_channels = tf.repeat(tf.cast(operations, tf.int64), 3, axis=0)
    table = tables(tf.experimental.numpy, histogram, operation=of_channels[:, 0], strength=of_channels[:, 1])
    found = tf.gather(table, levels, batch_dims=1)
    found = tf.transpose(tf.reshape(found, [shape[0], 3, shape[1], shape[2]]), [0, 2, 3, 1])
    return tf.cast(found, tf.float32)


def _erase(views: Any, erased: Any, *, size: int) -> Any:
    """Sets the pixels of each rectangle to `ERASED`."""
    tf = tensorflow()
    place = tf.range(size, dtype=tf.float32)
    left, top, right, bottom = (tf.cast(erased, tf.float32)[:, i, None] for i in range(4))
    across, down = (left <= place) & (place < right), (top <= place) & (place < bottom)
    return tf.where((down[:, :, None] & across[:, None, :])[..., None], ERASED, views)
