"""Which image formats are read, and what other files are: told by their content, whatever their suffix."""

from __future__ import annotations

import io
import struct
from typing import Any

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    CurImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from jaxcat.data.images import heif, png, tiff
from jaxcat.data.images.unread import EXPORT, RAW, by_magic, what_it_is
from jaxcat.errors import one_line

# What folders are searched for; compare in lower case. A run that was indexed by older rules knows
# SUFFIXES_1 or SUFFIXES_2 only.
SUFFIXES_1 = frozenset({".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp"})
SUFFIXES_2 = SUFFIXES_1 | {
    *(".apng", ".avif", ".avifs", ".cur", ".dib", ".ico", ".pjp", ".pjpeg", ".tif", ".tiff"),
    *(".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx", ".pbm", ".pgm", ".pnm", ".ppm"),
}
SUFFIXES_3 = SUFFIXES_2 | heif.SUFFIXES
SUFFIXES = SUFFIXES_3 if heif.installed() else SUFFIXES_2
# Suffixes of images that are not read. A folder that holds some says so.
UNREAD_SUFFIXES = (SUFFIXES_3 - SUFFIXES) | frozenset(
    {
        *(".heics", ".jxl", ".jxr", ".wdp", ".hdp", ".jls"),
        *(".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".dng", ".orf"),  # cameras' raw files
        *(".raf", ".rw2", ".pef", ".srw", ".3fr", ".iiq", ".x3f", ".raw", ".rwl", ".dcr"),
        *(".psd", ".psb", ".xcf", ".kra", ".ora", ".cdr", ".svg", ".svgz", ".eps", ".wmf", ".emf"),  # drawings
        *(".exr", ".hdr", ".dds", ".tga", ".pcx", ".sgi", ".pam", ".icns", ".xbm", ".xpm"),
        *(".dcm", ".dicom", ".nii", ".fits", ".fit", ".czi", ".nd2", ".lif", ".vsi", ".svs", ".ndpi"),  # science
    }
)

# Importing a plugin registers it in `Image.OPEN`; `Image.open` alone would try all that Pillow has.
PLUGINS = (
    *(AvifImagePlugin, BmpImagePlugin, CurImagePlugin, GifImagePlugin, IcoImagePlugin, Jpeg2KImagePlugin),
    *(JpegImagePlugin, PngImagePlugin, PpmImagePlugin, TiffImagePlugin, WebPImagePlugin),
)
# Pillow's names of the formats, in the order in which they are tried. JPEGs of several frames are opened as MPO.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "CUR")
MAX_PIXELS = 178_956_970  # above it Pillow itself raises DecompressionBombError: 2 × (1 GiB / 4 / 3 bytes)

_VIDEO = (1, 6, 14, 15)  # transfer functions of ITU-T H.273 that browsers take for sRGB's in an AVIF
_CONTAINED = ("xmp", "XML:com.adobe.xmp", "Raw profile type exif")  # entries of `Image.info`


def open_image(encoded: bytes, *, max_pixels: int = MAX_PIXELS) -> ImageFile.ImageFile:
    """Opens an encoded image, decoding no pixels. Leaves out metadata that only Pillow treats as an orientation.

    `info` has, besides Pillow's entries, "cicp" (primaries, transfer), and "significant_bits" of PNG and JPEG 2000.

    Raises:
        ValueError: it is no image of a format that is read, or has too many pixels; the message says what it is.
    """
    if max_pixels > MAX_PIXELS and Image.MAX_IMAGE_PIXELS:  # some plugins check Pillow's own limit too
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    plain, more = png.without_texts(encoded) if encoded.startswith(png.SIGNATURE) else (encoded, {})
    image, reason = _opened(plain)
    if image is None and (image := heif.opened(plain)) is None:
        raise ValueError(what_it_is(encoded, reason))
    image.info.update(more)
    for name in _CONTAINED:  # Pillow takes an orientation from these, browsers do not
        image.info.pop(name, None)
    if image.width * image.height > max_pixels:
        raise ValueError(
            f"{image.width}×{image.height} pixels are more than the {max_pixels:,} that are safe to decode; if the"
            " image is meant to be so large, train with a larger --config.data.max_pixels"
        )
    if image.format == "JPEG2000" and (place := encoded.find(b"\xff\x51")) >= 0 and place + 40 < len(encoded):
        image.info["significant_bits"] = (encoded[place + 40] & 127) + 1  # of the first channel, in the marker SIZ
    if image.format == "AVIF" and "icc_profile" not in image.info:
        image.info |= _code_points(encoded)
    if (colours := image.info.get("nclx_profile")) and "icc_profile" not in image.info:  # of HEIC
        image.info["cicp"] = _shown(colours["color_primaries"], colours["transfer_characteristics"])
    if image.format == "PNG" and getattr(image, "default_image", False):
        image.seek(1)  # its first image is for viewers that show no animation
    if image.format == "TIFF":
        _check_first_page(image, encoded)
    return image


def _opened(encoded: bytes) -> tuple[ImageFile.ImageFile | None, str]:
    """The image, or None and why the plugin that recognised it could not open it.

    Image.open does the same, and also refuses more than MAX_PIXELS pixels, whatever the user allows.
    """
    reason = ""
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        accepted = accept(encoded[:16]) if accept else True
        if isinstance(accepted, str) or not accepted:
            reason = accepted if isinstance(accepted, str) else reason
            continue
        try:
            return factory(io.BytesIO(encoded), ""), ""
        except (MemoryError, Image.DecompressionBombError):
            raise
        except Exception as error:  # plugins raise nearly every kind on damaged input, and on a HEIC that is no AVIF
            reason = one_line(error)
    return None, reason


def _code_points(avif: bytes) -> dict[str | tuple[int, int], Any]:
    """ "cicp" of an AVIF without an ICC profile, if it says which colours it has; of its first image."""
    place = avif.find(b"colrnclx")
    if not 0 <= place <= len(avif) - 12:
        return {}
    primaries, transfer = struct.unpack_from(">HH", avif, place + 8)
    return {"cicp": _shown(primaries, transfer)}


def _shown(primaries: int, transfer: int) -> tuple[int, int]:
    """Code points as browsers take them in an AVIF."""
    return primaries, 13 if transfer in _VIDEO else transfer


def _check_first_page(image: ImageFile.ImageFile, encoded: bytes) -> None:
    """Raises ValueError if the first page of a TIFF is the preview of a camera's raw file."""
    if what := by_magic(encoded):
        raise ValueError(what)
    tags = image.tag_v2  # type: ignore[attr-defined]
    preview, dng = tags.get(254, 0), 50706 in tags
    if dng or (isinstance(preview, int) and preview & 1):
        raise ValueError(RAW if dng or 271 in tags else f"a TIFF whose first page is a preview: {EXPORT}")
    if tags.get(259) == tiff.WEBP:  # Pillow's wheels come without it, and their libtiff prints that for each file
        raise ValueError(what_it_is(encoded, "WebP"))
