"""What the header of a JPEG says, as TensorFlow operations: size, channels, orientation, and whether it has a profile.

Segments: ITU-T T.81, annex B. Orientation: EXIF 2.3, section 4.6.2, which is TIFF 6.0 inside a segment APP1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

EXIF, PROFILE = b"Exif\0\0", b"ICC_PROFILE\0"
ORIENTATION_TAG, SHORT = 0x0112, 3  # the tag, and TIFF's number of its type
NO_EXIF = -1


class Header(NamedTuple):
    """What a header says; scalars of TensorFlow.

    Attributes:
        pixels: width times height, float64.
        channels: of the colours; 4 is CMYK.
        orientation: 1 to 8, else another number that means upright.
        reason: why the image is refused; "" if it need not be.
    """

    pixels: Any
    channels: Any
    orientation: Any
    reason: Any


def header_of(encoded: Any) -> Header:
    """Reads the segments before the first scan."""
    data = tf.io.decode_raw(encoded, tf.uint8)
    size = tf.size(data)

    def byte(place: Any) -> Any:
        return tf.cast(tf.gather(data, tf.clip_by_value(place, 0, size - 1)), tf.int32)

    def word(place: Any) -> Any:
        return 256 * byte(place) + byte(place + 1)

    def starts(place: Any, text: bytes) -> Any:
        return tf.strings.substr(encoded, tf.minimum(place, size), len(text)) == text

    def step(place, frame, exif, several, profile, ended):
        marker = byte(place + 1)
        padding, alone = marker == 0xFF, (marker == 0x01) | ((marker >= 0xD0) & (marker <= 0xD8))
        length = word(place + 2)
        sizes = (marker >= 0xC0) & (marker <= 0xCF) & (marker != 0xC4) & (marker != 0xC8) & (marker != 0xCC)
        has_exif = (marker == 0xE1) & starts(place + 4, EXIF)
        return (
            place + tf.where(padding, 1, tf.where(alone, 2, length + 2)),
            tf.where(sizes, place, frame),
            tf.where(has_exif, place, exif),
            several | (has_exif & (exif != NO_EXIF)),
            profile | ((marker == 0xE2) & starts(place + 4, PROFILE)),
            (marker == 0xDA) | (marker == 0xD9),
        )

    def more(place, frame, exif, several, profile, ended):
        return ~ended & (place < size - 1) & (byte(place) == 0xFF)

    none, no = tf.constant(NO_EXIF), tf.constant(False)
    _, frame, exif, several, profile, ended = tf.while_loop(more, step, (tf.constant(2), none, none, no, no, no))
    orientation, understood = _orientation(byte, exif)
    reason = tf.where(
        ~ended | (frame < 0),
        "a damaged JPEG",
        tf.where(
            profile,
            "a colour profile: export the image in sRGB, without a profile",
            tf.where(several | ~understood, "EXIF data that cannot be read: remove them", ""),
        ),
    )
    height, width = word(frame + 5), word(frame + 7)
    pixels = tf.cast(height, tf.float64) * tf.cast(width, tf.float64)
    return Header(pixels, byte(frame + 9), orientation, reason)


def _orientation(byte: Any, segment: Any) -> tuple[Any, Any]:
    """The orientation of the EXIF segment at a place, 1 if there is none, and whether the segment is understood."""
    start = segment + 4 + len(EXIF)
    end = segment + 2 + 256 * byte(segment + 2) + byte(segment + 3)
    big = byte(start) == ord("M")

    def word(place: Any) -> Any:
        one, two = byte(place), byte(place + 1)
        return tf.where(big, 256 * one + two, 256 * two + one)

    def double_word(place: Any) -> Any:
        one, two = word(place), word(place + 2)
        return tf.where(big, 65536 * one + two, 65536 * two + one)

    marked = (byte(start) == byte(start + 1)) & (big | (byte(start) == ord("I"))) & (word(start + 2) == 42)
    offset = double_word(start + 4)
    directory = start + tf.clip_by_value(offset, 0, 65535)
    count = word(directory)
    inside = (offset >= 8) & (offset < 65536) & (directory + 2 + 12 * count <= end)
    entries = directory + 2 + 12 * tf.range(tf.where(inside, count, 0))
    found = entries[tf.map_fn(word, entries) == ORIENTATION_TAG]
    entry = tf.concat([found, [0]], axis=0)[0]
    plain = (word(entry + 2) == SHORT) & (double_word(entry + 4) == 1)
    none, absent = tf.size(found) == 0, segment < 0
    understood = absent | (marked & inside & (none | ((tf.size(found) == 1) & plain)))
    return tf.where(absent | none, 1, word(entry + 8)), understood
