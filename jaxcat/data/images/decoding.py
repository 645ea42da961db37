"""Decodes images to uint8 RGB: the one decoder that training, checking, evaluation and prediction share.

It uses Pillow and not TensorFlow, whose decoders ignore EXIF rotation, drop alpha and do not support CMYK. What formats
there are is in formats.py, images of more than 8 bits a channel in deep.py, colours in profiles.py.
"""

from __future__ import annotations

import contextlib
import math
import stat
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile

from jaxcat.data.archives import archives
from jaxcat.data.images import deep
from jaxcat.data.images.bands import BAND, bands
from jaxcat.data.images.formats import MAX_PIXELS, SUFFIXES, open_image
from jaxcat.data.images.profiles import to_srgb
from jaxcat.errors import DataError, one_line
from jaxcat.wording import printable

__all__ = ["DECODE_VERSION", "MAX_PIXELS", "SUFFIXES", "Decoding", "decode", "decoding_of", "read_file"]

# Raise this version if the pixels of an image change. It is part of every bottleneck's key and stored with every run;
# tests/test_golden.py fails if the pixels change and the version does not.
# 1 ignored the gamma of PNGs, and rotated by XMP; 2 mapped the darkest colour of a printer's profile to black, and
# rotated by an EXIF orientation of another type, or after the pixels of a PNG, and knew fewer code points.
DECODE_VERSION = 3

LARGE = 2**26  # pixels above which images are decoded one at a time: Pillow holds up to three copies of 4 bytes a pixel
_large = threading.Lock()

MAX_BYTES = 2**30  # an uncompressed image of MAX_PIXELS takes 0.7 GB

# EXIF tag 0x0112 says how the camera was held: its value → the move that turns the image upright. 1 is upright.
_ORIENTATION_TAG, _SHORT = 0x0112, 3
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Decoding(NamedTuple):
    """What settings say about decoding.

    Attributes:
        grey_bits: bits that the values of 16-bit images use, 8 to 16; see deep.py.
        max_pixels: of the largest image that is read.
    """

    grey_bits: int = 16
    max_pixels: int = MAX_PIXELS


def decoding_of(config: Any) -> Decoding:
    """The `Decoding` that `config.data` asks for; the high byte of 16-bit images until their scale is known."""
    return Decoding(config.data.grey_bits or 16, config.data.max_pixels)


def decode(stored: bytes | Path | Image.Image | np.ndarray, name: str, decoding: Decoding | None = None) -> np.ndarray:
    """Decodes an image to the pixels that a person sees in a browser, on a white page.

    EXIF rotation is applied, alpha is laid over white, CMYK, embedded colour profiles and the gamma of PNGs are brought
    to sRGB, and an animation or a file of several pages gives its first. 16-bit values become min(value >> (bits - 8),
    255), where bits is `decoding.grey_bits`.

    Args:
        stored: an encoded image, the path of one, a Pillow image, or an array of uint8 or uint16 (H, W),
            (H, W, 1), (H, W, 3) or (H, W, 4).
        name: the image's name in error messages.
        decoding: what settings say; by default 16 bits and `MAX_PIXELS`.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        DataError: the image cannot be read, is damaged or cut short, or is no image; one line, with name and reason.
    """
    how = decoding or Decoding()
    try:
        if isinstance(stored, np.ndarray):
            image = Image.fromarray(_checked_array(stored, how.grey_bits, name))
            return _array_of(_as_seen(image, how, name=name))
        if isinstance(stored, Image.Image) and (content := _file_of_deep(stored)):
            stored = content  # Pillow alone would keep the high bytes, whatever the scale
        if isinstance(stored, Image.Image):
            return _array_of(_as_seen(stored, how, name=name))
        encoded = read_file(stored) if isinstance(stored, Path) else stored
        if not encoded:
            raise ValueError("the file is empty (0 bytes)")
        with open_image(encoded, max_pixels=how.max_pixels) as image, _turn(image):
            return _array_of(_as_seen(image, how, encoded=encoded, name=name))
    except Exception as error:  # Pillow's plugins raise nearly every kind of exception on damaged input
        raise DataError(f"{printable(name)}: {_reason(error)}") from error


def _array_of(image: Image.Image) -> np.ndarray:
    """An RGB image as uint8 (H, W, 3), read-only."""
    if image.width * image.height <= BAND:
        return np.asarray(image)
    array = np.empty((image.height, image.width, 3), np.uint8)
    for top, bottom in bands(image.height, image.width):
        array[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    array.flags.writeable = False
    return array


def _file_of_deep(image: Image.Image) -> bytes:
    """The file that a Pillow image of more than 8 bits a channel will be loaded from; b"" for all others."""
    file = getattr(image, "fp", None)
    if file is None or not isinstance(image, ImageFile.ImageFile) or not image.tile or not file.seekable():
        return b""  # made in memory, or loaded already
    if image.tell() or not deep.is_deep(image):
        return b""
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    return content


def _turn(image: Image.Image) -> contextlib.AbstractContextManager:
    """A context to decode the image in: it admits only one large image at a time."""
    return _large if math.prod(image.size) > LARGE else contextlib.nullcontext()


def read_file(path: Path) -> bytes:
    """The bytes of a file, also of one in an archive.

    Raises:
        ValueError: it is not a regular file, such as a pipe, or is too large; in an archive, it may be damaged too.
        OSError: it cannot be read.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if (content := archives.read_member(path)) is not None:
            return content
        raise
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("a folder, not an image" if stat.S_ISDIR(status.st_mode) else "not a regular file")
    if status.st_size > MAX_BYTES:
        raise ValueError(f"{status.st_size:,} bytes are more than the {MAX_BYTES:,} that an image may have")
    return path.read_bytes()


def _checked_array(array: np.ndarray, bits: int, name: str) -> np.ndarray:
    """Converts an array to uint8 and to a shape that Image.fromarray takes. Raises ValueError if it is no image."""
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    channels_fit = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype not in (np.uint8, np.uint16) or not channels_fit or array.size == 0:
        raise ValueError(
            f"an array of {array.dtype} {array.shape} is no image; pass uint8 or uint16 of shape (H, W), (H, W, 3) or"
            " (H, W, 4)"
        )
    return array if array.dtype == np.uint8 else _of_deep(array, "", bits, name)


def _of_deep(values: np.ndarray, mode: str, bits: int, name: str) -> np.ndarray:
    """16-bit values (H, W) or (H, W, channels) → uint8 levels of the same shape.

    Alpha that uses more bits than the colours keeps its high byte.
    """
    colours = deep.without_alpha(values, mode)
    levels = deep.levels(colours, bits, name)
    if colours.shape == values.shape:
        return levels
    alpha = values[..., -1:]
    bits_of_alpha = 16 if alpha.max() >> bits else bits
    return np.concatenate([levels, deep.levels(alpha, bits_of_alpha, name, of_alpha=True)], axis=-1)


def _as_seen(image: Image.Image, how: Decoding, *, name: str, encoded: bytes | None = None) -> Image.Image:
    """Converts a Pillow image of any mode to upright RGB; `encoded` is its file, if it was opened from one."""
    if image.width * image.height > how.max_pixels:
        raise ValueError(
            f"{image.width}×{image.height} pixels are more than the {how.max_pixels:,} that are safe to decode; if the"
            " image is meant to be so large, train with a larger --config.data.max_pixels"
        )
    if image.width == 0 or image.height == 0:
        raise ValueError(f"the image is {image.width}×{image.height} pixels")
    if image.mode in ("La", "RGBa"):  # premultiplied: Pillow converts it to nothing else
        image = image.convert(image.mode.upper())
    info = image.info
    shown = _eight_bits(image, how, name=name, encoded=encoded)
    orientation = _orientation(image)
    alpha = shown.convert("RGBA").getchannel("A") if shown.has_transparency_data else None
    shown = to_srgb(_opaque(shown, alpha), info)
    if shown.mode != "RGB":  # else convert() would copy it
        shown = shown.convert("RGB")
    if alpha:
        white = Image.new("RGB", shown.size, "white")
        white.paste(shown, mask=alpha)
        shown = white
    return shown.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else shown


def _eight_bits(image: Image.Image, how: Decoding, *, name: str, encoded: bytes | None) -> Image.Image:
    """The same image, loaded, with 8 bits a channel; its transparent colour, if it has one, fits its pixels."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; convert the image to 8 bits")
    if encoded is not None and isinstance(image, ImageFile.ImageFile) and deep.is_deep(image):
        deep.check_kind(image, encoded)
        grey = deep.is_deep_grey(image) or deep.is_netpbm(image)
        if grey or how.grey_bits < 16 or "transparency" in image.info:  # else Pillow's high bytes are right
            return _of_deep_file(image, how, encoded=encoded, name=name)
    deep.check_sign(image)
    if deep.is_deep_grey(image):
        inverted = deep.is_inverted(image)
        levels = deep.levels(deep.grey_of(image), how.grey_bits, name)
        return Image.fromarray(255 - levels if inverted else levels)
    # Both before load(), which makes Pillow forget how many bits there were, and where.
    clear, frame = _transparent(image), _frame_of_gif(image)
    image.load()
    if frame:  # around it browsers show the page, Pillow the GIF's background
        shown = Image.new("RGBA", image.size)
        shown.paste(image.convert("RGBA").crop(frame), frame)
        return shown
    if clear != image.info.get("transparency"):
        image = image.copy()  # the original may belong to the caller
        image.info["transparency"] = clear
    return image


def _opaque(image: Image.Image, alpha: Image.Image | None) -> Image.Image:
    """An image of 8 bits a channel as "L", "RGB" or "CMYK", without its alpha."""
    if image.mode in ("1", "LA"):
        return image.convert("L")
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("RGBA").convert("RGB") if alpha else image.convert("RGB")


def _of_deep_file(image: ImageFile.ImageFile, how: Decoding, *, encoded: bytes, name: str) -> Image.Image:
    """A deep image of a file in 8 bits a channel: "L", "LA", "RGB", "RGBA" or "CMYK"."""
    mode, inverted, clear = image.mode, deep.is_inverted(image), image.info.get("transparency")
    values = deep.values_of(image, encoded)
    levels = _of_deep(values, mode, how.grey_bits, name)
    if inverted:
        levels = 255 - levels
    if clear is not None and values.ndim in (2, 3):
        equal = values == clear if values.ndim == 2 else (values == np.array(clear)).all(axis=-1)
        levels = np.dstack([levels, np.where(equal, 0, 255).astype(np.uint8)])
    channels = 1 if levels.ndim == 2 else levels.shape[2]
    made = "CMYK" if mode == "CMYK" else {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    return Image.frombytes(made, (levels.shape[1], levels.shape[0]), np.ascontiguousarray(levels).tobytes())


def _transparent(image: Image.Image) -> Any:
    """The transparent value of a grey PNG, scaled as Pillow scales the pixels: Pillow itself does not scale it."""
    clear, stored = image.info.get("transparency"), deep.raw_mode(image)
    scale = 17 if stored == "L;4" else 85 if stored == "L;2" else 1
    return clear * scale if isinstance(clear, int) else clear


def _frame_of_gif(image: Image.Image) -> tuple[int, int, int, int] | None:
    """The box of a GIF's first frame if it is smaller than the image."""
    tiles = getattr(image, "tile", ()) if image.format == "GIF" else ()
    return next((tile[1] for tile in tiles if tile[1] != (0, 0, *image.size)), None)


def _orientation(image: Image.Image) -> object:
    """The EXIF orientation; 1 (upright), as in browsers, if the metadata cannot be parsed or it has another type."""
    try:
        exif = image.getexif()
        types = getattr(getattr(exif, "_info", None), "tagtype", {})  # of Pillow's own; it drops a tag that is read
        return exif.get(_ORIENTATION_TAG, 1) if types.get(_ORIENTATION_TAG, _SHORT) == _SHORT else 1
    except Exception:  # damaged metadata around a good image
        return 1


def _reason(error: Exception) -> str:
    """The reason of an error in one line that a user can act on."""
    text = one_line(error)
    of_the_system = isinstance(error, OSError) and error.strerror
    if of_the_system or isinstance(error, ValueError | MemoryError | Image.DecompressionBombError):
        return text
    return f"damaged or cut short ({text})"  # libwebp's "could not create decoder object" does not say so
