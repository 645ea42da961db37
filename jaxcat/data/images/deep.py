"""Images of more than 8 bits a channel → 8-bit levels, by one scale for all images of a run (`data.grey_bits`).

Cameras and scanners often store 10, 12 or 14 bits in 16 without scaling them up, and nothing in the file says so. Read
as 16 bits, such images are nearly black. If each is scaled by its own largest value, equal things get unequal levels.
So a run looks at its training images once, and keeps the smallest scale that covers them.
"""

from __future__ import annotations

import logging
import math
import sys
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from jaxcat.data.images.formats import open_image

logger = logging.getLogger(__name__)

SCALES = (8, 10, 12, 14, 16)
_MAX_SAMPLE_VALUE, _WHITE_IS_ZERO = 281, 0  # of TIFF
_PHOTOMETRIC, _BITS, _PLANAR, _SAMPLE_FORMAT, _SIGNED = 262, 258, 284, 339, 2
# Pillow keeps one byte of a value of two. What reads the other one:
_FOREIGN = "B" if sys.byteorder == "little" else "L"
_OTHER_BYTE = {"B": "L", "L": "B", "N": _FOREIGN}
_DARK = 12  # bits; 16-bit images with such values only are nearly black
_warned: set[str] = set()
_warned_of_dark: set[str] = set()


def levels(values: np.ndarray, bits: int, name: str, *, of_alpha: bool = False) -> np.ndarray:
    """Values of 16 bits → uint8 levels of the same shape: min(value >> (bits - 8), 255).

    Warns, once for each name, if a value needs more than `bits`; and once for all images that are nearly black as 16
    bits.
    """
    largest = int(values.max()) if values.size else 0
    if bits == 16 and 0 < largest < 2**_DARK and not of_alpha and not _warned_of_dark:
        _warned_of_dark.add(name)
        logger.warning(
            "%s: its values use %d bits, so it is nearly black on this run's scale of 16 bits, as others may be: "
            "scale the values up, or train with --config.data.grey_bits=%d",
            *(name, largest.bit_length(), max(largest.bit_length(), 8)),
        )
    if bits < 16 and largest >> bits and name not in _warned:
        _warned.add(name)
        logger.warning(
            "%s: values up to %d need more than the %d bits of this run (--config.data.grey_bits): they become white",
            *(name, largest, bits),
        )
    return np.minimum(values >> (bits - 8), 255).astype(np.uint8)


def scale_of(bits: int) -> int:
    """The smallest of `SCALES` that covers so many bits."""
    return next(scale for scale in SCALES if scale >= bits)


def may_be_deep(beginning: bytes) -> bool:
    """Whether a file may have more than 8 bits a channel, by its first 32 bytes: true of every TIFF, for example."""
    if beginning.startswith(b"\x89PNG"):
        return beginning[24:25] == b"\x10"
    return beginning.startswith(
        (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"P2", b"P3", b"P5", b"P6")
    )


def is_deep(image: Image.Image) -> bool:
    """Whether an opened image has more than 8 bits a channel; also one that is not of a file."""
    if image.format == "JPEG2000" and not is_deep_grey(image):
        return image.info.get("significant_bits") == 16  # Pillow scales fewer
    bits = tag(image, _BITS) or (0,)
    return is_deep_grey(image) or ";16" in raw_mode(image) or is_netpbm(image) or max(bits) > 8


def is_netpbm(image: Image.Image) -> bool:
    """Whether it is a deep PGM or PPM."""
    return _netpbm_maximum(image) > 255


def is_deep_grey(image: Image.Image) -> bool:
    return image.mode == "I" or image.mode.startswith("I;16")


def raw_mode(image: Image.Image) -> str:
    """How the pixels of an opened image are stored, in Pillow's words, such as "RGB;16B"; "" if they are loaded."""
    for tile in getattr(image, "tile", ()):
        arguments = tile[3]
        return str(arguments[0] if isinstance(arguments, tuple) else arguments)
    return ""


def check_kind(image: ImageFile.ImageFile, encoded: bytes) -> None:
    """Raises ValueError if a deep image of a file, not loaded yet, is of a kind that Pillow reads wrongly."""
    kind = ""
    if "a;16" in raw_mode(image):
        kind = "with premultiplied alpha"
    elif tag(image, _PLANAR) == 2 and not is_deep_grey(image):
        kind = "with its channels one after the other"
    elif image.format == "JPEG2000" and not is_deep_grey(image):
        kind = "in JPEG 2000"
    elif encoded.startswith(b"P3") and is_netpbm(image):
        kind = "as text"
    if kind:
        raise ValueError(f"colours of 16 bits a channel {kind} are not read: save the image as a PNG of 16 bits")


def check_sign(image: Image.Image) -> None:
    """Raises ValueError if a TIFF of 8 bits has negative values, which Pillow takes for bright ones."""
    if tag(image, _BITS) == (8,) and _SIGNED in (tag(image, _SAMPLE_FORMAT) or ()):
        values = np.asarray(image).view(np.int8)
        if values.min() < 0:
            raise ValueError(_no_range(int(values.min()), int(values.max()), "unsigned 8 bits"))


def _no_range(least: int, most: int, wanted: str) -> str:
    return (
        f"its grey values go from {least} to {most}, and nothing says which is black and which is white: convert it to "
        f"{wanted}"
    )


def grey_of(image: Image.Image) -> np.ndarray:
    """The values of 16-bit grey, int32 (H, W). Raises ValueError if they are negative or have more bits."""
    values = np.asarray(image).astype(np.int32)
    if tag(image, _BITS) == (12,):  # packed, so there is no doubt which value is white
        values = values << 4
    least, most = int(values.min()), int(values.max())
    if least < 0 or most > 65535:
        raise ValueError(_no_range(least, most, "unsigned 16 bits"))
    return values


def values_of(image: ImageFile.ImageFile, encoded: bytes) -> np.ndarray:
    """The values of a deep image of a file, int32 (H, W) or (H, W, channels); `image`, not loaded yet, gets loaded.

    Raises:
        ValueError: they cannot be read exactly; the message says what to do.
    """
    if is_netpbm(image) and not encoded.startswith(b"P2"):
        return _netpbm(image, encoded)
    if is_deep_grey(image):
        return grey_of(image)
    stored = raw_mode(image)
    if stored == "LA;16B":
        image.load()
        pairs = np.asarray(_again(encoded, "RGBA")).astype(np.int32)  # the two bytes of grey, then those of alpha
        return np.stack([pairs[..., 0] << 8 | pairs[..., 1], pairs[..., 2] << 8 | pairs[..., 3]], axis=-1)
    high = np.asarray(image).astype(np.int32)
    return high << 8 | np.asarray(_again(encoded, stored[:-1] + _OTHER_BYTE[stored[-1]]))


def _netpbm(image: ImageFile.ImageFile, encoded: bytes) -> np.ndarray:
    """The values of a binary PGM or PPM with more than 8 bits, scaled to 16 bits; Pillow needs seconds for that."""
    maximum, begin = _netpbm_maximum(image), image.tile[0][2]
    shape = (image.height, image.width) + ((3,) if encoded.startswith(b"P6") else ())
    if len(encoded) < begin + 2 * math.prod(shape):
        raise ValueError("cut short")
    values = np.frombuffer(encoded, ">u2", math.prod(shape), begin).reshape(shape)
    image.load()
    return np.minimum(np.rint(values / maximum * 65535), 65535).astype(np.int32)


def is_inverted(image: Image.Image) -> bool:
    """Whether 0 is white in a deep grey TIFF: Pillow inverts only those of 8 bits."""
    return is_deep_grey(image) and tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO


def _again(encoded: bytes, stored: str) -> Image.Image:
    """The same file, its pixels read as if they were stored in another way."""
    image = open_image(encoded, max_pixels=sys.maxsize)
    tiles = []
    for tile in image.tile:
        arguments = (stored, *tile[3][1:]) if isinstance(tile[3], tuple) else stored
        tiles.append(tile._replace(args=arguments))
    image.tile = tiles
    image.load()
    return image


def bits_needed(image: ImageFile.ImageFile, encoded: bytes) -> int:
    """The bits that the scale of a run needs for this deep image of a file: those of its largest value, or more.

    16 if the file declares fewer bits (sBIT of a PNG, PGM, JPEG 2000, a TIFF of 12 bits) and a value needs more than
    these: then the values have been scaled up. MaxSampleValue of a TIFF counts as a value.
    """
    declared, most = declared_bits(image), tag(image, _MAX_SAMPLE_VALUE)
    values = values_of(image, encoded)
    largest = int(without_alpha(values, image.mode).max())
    if isinstance(most, tuple):
        most = max(most)
    if most and largest < most < 65535:
        largest = most
    bits = max(largest.bit_length(), 1)
    return 16 if declared and bits > declared else bits


def without_alpha(values: np.ndarray, mode: str) -> np.ndarray:
    """(H, W, channels) without the last of 2 or 4 channels, which is alpha unless they are CMYK; (H, W) as it is."""
    return values[..., :-1] if values.ndim == 3 and values.shape[-1] in (2, 4) and mode != "CMYK" else values


def declared_bits(image: ImageFile.ImageFile) -> int:
    """How many bits a value has by what the file says, if that may be fewer than 16; else 0."""
    if maximum := _netpbm_maximum(image):
        return maximum.bit_length()
    if tag(image, _BITS) == (12,):
        return 12
    return int(image.info.get("significant_bits", 0))


def tag(image: Image.Image, number: int) -> Any:
    """A tag of a TIFF, None if it is missing or the image is none."""
    return getattr(image, "tag_v2", {}).get(number)


def _netpbm_maximum(image: Image.Image) -> int:
    """The declared maximum of a PGM or PPM; 0 for others."""
    if image.format != "PPM" or image.mode not in ("I", "L", "RGB"):
        return 0
    for tile in getattr(image, "tile", ()):
        return int(tile[3][1]) if isinstance(tile[3], tuple) and len(tile[3]) == 2 else 65535 * (image.mode == "I")
    return 0
