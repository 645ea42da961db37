"""Decodes images to uint8 RGB: the one decoder that training, checking, evaluation and prediction share.

It uses Pillow and not TensorFlow, whose decoders ignore EXIF rotation, drop alpha and do not support CMYK.
"""

from __future__ import annotations

import contextlib
import io
import math
import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL import WebPImagePlugin as _registers_webp  # noqa: F401  Image.open(formats=…) loads no plugin on its own

from jaxcat.data import archives
from jaxcat.errors import DataError, one_line

# Raise this version if the pixels of an image change. It is part of every bottleneck's key and stored with every run;
# tests/test_golden.py fails if the pixels change and the version does not.
DECODE_VERSION = 1

SUFFIXES = frozenset({".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp"})  # compare in lower case
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")  # Pillow itself opens JPEGs of several frames as MPO
MAX_PIXELS = 178_956_970  # above it Pillow itself raises DecompressionBombError: 2 × (1 GiB / 4 / 3 bytes)

LARGE = 2**26  # pixels above which images are decoded one at a time: Pillow holds two copies, 4 bytes a pixel
_large = threading.Lock()

MAX_BYTES = 2**30  # an uncompressed image of MAX_PIXELS takes 0.7 GB

# EXIF tag 0x0112 says how the camera was held: its value → the move that turns the image upright. 1 is upright.
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_COLOR_SPACE = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # Pillow mode → the ICC signature that fits it


def printable(name: str) -> str:
    """A file's name as it can be shown: undecodable bytes, line breaks and control characters are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def decode(stored: bytes | Path | Image.Image | np.ndarray, name: str) -> np.ndarray:
    """Decodes an image to the pixels that a person sees in a viewer.

    EXIF rotation is applied, alpha is laid over white, CMYK and embedded colour profiles are brought to sRGB,
    16-bit values keep their high byte, and an animation gives its first frame.

    Args:
        stored: an encoded image, the path of one, a Pillow image, or an array of uint8 or uint16 (H, W),
            (H, W, 1), (H, W, 3) or (H, W, 4).
        name: the image's name in error messages.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        DataError: the image cannot be read, is damaged or cut short, or is no image; one line, with name and reason.
    """
    try:
        if isinstance(stored, np.ndarray):
            image = Image.fromarray(_checked_array(stored))
            return np.asarray(_as_seen(image))
        if isinstance(stored, Image.Image):
            return np.asarray(_as_seen(stored))
        encoded = read_file(stored) if isinstance(stored, Path) else stored
        if not encoded:
            raise ValueError("the file is empty (0 bytes)")
        try:
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image, _turn(image):
                return np.asarray(_as_seen(image))
        except UnidentifiedImageError:
            looks = "an HTML or XML page" if encoded.lstrip()[:1] == b"<" else "a damaged file or another format"
            raise ValueError(f"not a JPEG, PNG, GIF, WebP or BMP image; it looks like {looks}") from None
    except Exception as error:  # Pillow's plugins raise nearly every kind of exception on damaged input
        raise DataError(f"{printable(name)}: {_reason(error)}") from error


def _turn(image: Image.Image) -> contextlib.AbstractContextManager:
    """A context to decode the image in: only one large image at a time can be in it."""
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
        raise ValueError("not a regular file")
    if status.st_size > MAX_BYTES:
        raise ValueError(f"{status.st_size:,} bytes are more than the {MAX_BYTES:,} that an image may have")
    return path.read_bytes()


def _checked_array(array: np.ndarray) -> np.ndarray:
    """Converts an array to uint8 and to a shape that Image.fromarray takes. Raises ValueError if it is no image."""
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    channels_fit = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not channels_fit or array.size == 0:
        raise ValueError(
            f"an array of {array.dtype} {array.shape} is no image; pass uint8 or uint16 of shape (H, W), (H, W, 3) or"
            " (H, W, 4)"
        )
    return array


def _as_seen(image: Image.Image) -> Image.Image:
    """Converts a Pillow image of any mode to upright RGB."""
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"{image.width}×{image.height} pixels are more than the {MAX_PIXELS:,} that are safe to decode"
        )
    if image.width == 0 or image.height == 0:
        raise ValueError(f"the image is {image.width}×{image.height} pixels")
    clear = _transparent(image)  # before load(), which makes Pillow forget how many bits the file had
    image.load()
    if clear != image.info.get("transparency"):
        image = image.copy()  # the original may belong to the caller
        image.info["transparency"] = clear
    profile = image.info.get("icc_profile")
    orientation = _orientation(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Image.convert would clip to 255. Pillow itself keeps the high byte of 16-bit colour, so grey does the same.
        values = np.asarray(image)
        image = Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
        if isinstance(clear, int):  # the transparent value, also of 16 bits
            image.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if image.mode in ("1", "LA", "La"):
        image = image.convert("L")
    elif image.mode not in _COLOR_SPACE:
        if image.mode == "F":
            raise ValueError("floating-point pixels have no known range; convert the image to 8 bits")
        image = image.convert("RGBA").convert("RGB") if alpha else image.convert("RGB")
    if profile:
        image = _to_srgb(image, profile)
    image = image.convert("RGB")
    if alpha:
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=alpha)
        image = white
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _transparent(image: Image.Image) -> Any:
    """The transparent value or colour of a PNG, scaled as Pillow scales the pixels: Pillow itself does not scale it."""
    clear, stored = image.info.get("transparency"), {str(tile[3]) for tile in getattr(image, "tile", ())}
    if image.mode == "RGB" and isinstance(clear, tuple) and ("RGB;16B" in stored or max(clear) > 255):
        return tuple(value >> 8 for value in clear)
    scale = 17 if "L;4" in stored else 85 if "L;2" in stored else 1
    return clear * scale if isinstance(clear, int) else clear


def _orientation(image: Image.Image) -> object:
    """The EXIF orientation; 1 (upright), as in viewers, if the metadata cannot be parsed."""
    try:
        return image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged metadata around a good image
        return 1


def _to_srgb(image: Image.Image, icc_profile: bytes) -> Image.Image:
    """Converts from the embedded profile to sRGB. A profile that is damaged or of another colour space is ignored."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        if profile.profile.xcolor_space != _COLOR_SPACE[image.mode]:
            return image
        if image.mode == "RGB" and "srgb" in ImageCms.getProfileDescription(profile).lower():
            return image  # most photographs: nothing to convert
        return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image


def _reason(error: Exception) -> str:
    """The reason of an error in one line that a user can act on."""
    text = one_line(error)
    of_the_system = isinstance(error, OSError) and error.strerror
    if of_the_system or isinstance(error, ValueError | MemoryError | Image.DecompressionBombError):
        return text
    return f"damaged or cut short ({text})"  # libwebp's "could not create decoder object" does not say so
