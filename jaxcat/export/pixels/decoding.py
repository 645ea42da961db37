"""Encoded JPEG and PNG → pixels as TensorFlow operations: jaxcat's levels, or an error in the graph.

JPEGs of colours or grey, in any EXIF orientation, and PNGs of 8 bits a channel or a palette give jaxcat's levels.
Everything else is an error: CMYK, 16 bits, transparency, colour profiles, animations, and all other formats.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from jaxcat.export.pixels import jpeg, png

JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
CMYK = 4
# For the EXIF orientations 1 to 8, what makes the image upright: swap rows and columns, then reverse rows, columns.
UPRIGHT = (
    (False, False, False),
    (False, False, True),
    (False, True, True),
    (False, True, False),
    (True, False, False),
    (True, False, True),
    (True, True, True),
    (True, True, False),
)


def decoded(encoded: Any, *, max_pixels: int) -> Any:
    """A scalar string → uint8 (H, W, 3), RGB; an InvalidArgumentError when the graph runs says why that cannot be."""
    is_jpeg = tf.strings.substr(encoded, 0, len(JPEG_START)) == JPEG_START
    is_png = tf.strings.substr(encoded, 0, len(PNG_START)) == PNG_START
    _check(tf.where(is_jpeg | is_png, "", "neither JPEG nor PNG"))
    return tf.cond(is_jpeg, lambda: _jpeg(encoded, max_pixels), lambda: _png(encoded, max_pixels))


def _jpeg(encoded: Any, max_pixels: int) -> Any:
    header = jpeg.header_of(encoded)
    checks = (
        _check(header.reason),
        _check(tf.where(header.channels == CMYK, "CMYK colours: save the image as RGB", "")),
        _check_size(header.pixels, max_pixels),
    )
    with tf.control_dependencies(checks):  # else TensorFlow may decode first, and its own error hides the reason
        # The method that Pillow uses; TensorFlow's default is up to 17 levels off.
        image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    place = tf.where((header.orientation >= 1) & (header.orientation <= len(UPRIGHT)), header.orientation - 1, 0)
    return tf.switch_case(place, [functools.partial(_turned, image, *moves) for moves in UPRIGHT])


def _turned(image: Any, swapped: bool, rows: bool, columns: bool) -> Any:
    turned = tf.transpose(image, [1, 0, 2]) if swapped else image
    return tf.reverse(turned, [axis for axis, wanted in enumerate((rows, columns)) if wanted])


def _png(encoded: Any, max_pixels: int) -> Any:
    pixels, reason = png.pixels_and_reason(encoded)
    with tf.control_dependencies((_check(reason), _check_size(pixels, max_pixels))):
        return tf.io.decode_png(encoded, channels=3)


def _check(reason: Any) -> Any:
    """Adds the operation that ends the graph's run if there is a reason, and returns it."""
    return tf.debugging.Assert(reason == "", [tf.strings.join(["jaxcat cannot answer for ", reason])])


def _check_size(pixels: Any, most: int) -> Any:
    return _check(tf.where((pixels > 0) & (pixels <= most), "", f"an image of no pixels, or of more than {most:,}"))
