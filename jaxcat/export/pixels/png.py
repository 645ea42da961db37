"""What the chunks of a PNG say, as TensorFlow operations: its size, and why jaxcat's pixels may be others.

Chunks: W3C, Portable Network Graphics, third edition, sections 5 and 11.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

GREY, RGB, PALETTE = 0, 2, 3  # colour types without alpha
SRGB_GAMMA, SIMILAR = 45455, 0.05  # gamma that stands for sRGB; see data/images/profiles.py
END = b"IEND"
REFUSED = {  # chunk → why its image is refused
    b"tRNS": "transparency: lay the image over white",
    b"iCCP": "a colour profile: export the image in sRGB, without a profile",
    b"cICP": "colours that are not sRGB's: export the image in sRGB",
    b"eXIf": "EXIF data in a PNG: remove them",
    b"acTL": "an animation: save one image of it",
}
COLOURS = "colours that are not sRGB's: export the image in sRGB"


def pixels_and_reason(encoded: Any) -> tuple[Any, Any]:
    """Width times height, float64, and why the image is refused; "" if it need not be."""
    data = tf.io.decode_raw(encoded, tf.uint8)
    size = tf.size(data, out_type=tf.int64)

    def byte(place: Any) -> Any:
        return tf.cast(data[tf.clip_by_value(tf.cast(place, tf.int64), 0, size - 1)], tf.int64)

    def number(place: Any) -> Any:
        return tf.reduce_sum(tf.stack([byte(place + i) * 256 ** (3 - i) for i in range(4)]))

    def step(place, kind, reason, gamma, primaries, srgb):
        kind = tf.strings.substr(encoded, place + 4, 4)
        for name, why in REFUSED.items():
            reason = tf.where((reason == "") & (kind == name), why, reason)
        return (
            place + 12 + number(place),
            kind,
            reason,
            tf.where(kind == b"gAMA", number(place + 8), gamma),
            primaries | (kind == b"cHRM"),
            srgb | (kind == b"sRGB"),
        )

    def more(place, kind, reason, gamma, primaries, srgb):
        return (kind != END) & (place + 12 <= size)

    no, zero = tf.constant(False), tf.constant(0, tf.int64)
    start = (tf.constant(8, tf.int64), tf.constant(""), tf.constant(""), zero, no, no)
    _, kind, reason, gamma, primaries, srgb = tf.while_loop(more, step, start)
    other_gamma = (gamma != 0) & (tf.abs(tf.cast(gamma, tf.float64) / SRGB_GAMMA - 1) >= SIMILAR)
    depth, colours = byte(24), byte(25)
    plain = (colours == GREY) | (colours == RGB) | (colours == PALETTE)
    for wrong, why in (
        (kind != END, "a damaged PNG"),
        (~plain, "transparency: lay the image over white"),
        (depth > 8, "16 bits a channel: save the image with 8"),
        ((depth < 8) & (colours != PALETTE), "fewer than 8 bits a channel: save the image with 8"),
        (~srgb & (primaries | other_gamma), COLOURS),
    ):
        reason = tf.where((reason == "") & wrong, why, reason)
    return tf.cast(number(16), tf.float64) * tf.cast(number(20), tf.float64), reason
