"""How a TIFF stores its first page, in words: what a message says about a TIFF that is not read."""

from __future__ import annotations

import io
import operator
from collections.abc import Mapping
from typing import Any

from PIL import TiffImagePlugin

from jaxcat.wording import counted

WEBP = 50001
_READ = (1, 5, 8, 32773, 32946)  # compressions that are read: none, LZW, Deflate, PackBits
_OTHERWISE = "without compression or with LZW or Deflate"
_COMPRESSION, _BITS, _CHANNELS, _FORMAT = 259, 258, 277, 339
# Tag 259: https://www.awaresystems.be/imaging/tiff/tifftags/compression.html, and libtiff's tiff.h
_COMPRESSIONS = {
    **{1: "none", 2: "CCITT RLE", 3: "CCITT fax group 3", 4: "CCITT fax group 4", 5: "LZW", 6: "JPEG of the old kind"},
    **{7: "JPEG", 8: "Deflate", 9: "JBIG", 10: "JBIG", 99: "JPEG", 262: "Kodak 262", 32766: "NeXT", 32767: "Sony ARW"},
    **{32769: "packed raw", 32770: "Samsung SRW", 32773: "PackBits", 32809: "ThunderScan", 32867: "Kodak KDC"},
    **{32946: "Deflate", 33003: "JPEG 2000 (Aperio)", 33004: "JPEG 2000", 33005: "JPEG 2000 (Aperio)", 33007: "JPEG"},
    **{34661: "JBIG", 34676: "SGI LogLuv", 34677: "SGI LogLuv", 34712: "JPEG 2000", 34713: "Nikon NEF"},
    **{34715: "JBIG 2", 34887: "LERC", 34892: "lossy JPEG of DNG", 34925: "LZMA", 34926: "Zstandard", 34927: "WebP"},
    **{34933: "PNG", 34934: "JPEG XR", 22610: "JPEG XR", 50000: "Zstandard", WEBP: "WebP", 50002: "JPEG XL"},
    **{50013: "Pixar", 52546: "JPEG XL"},
}
_FORMATS = {2: "signed ", 3: "floating-point ", 5: "complex ", 6: "complex "}  # tag 339


def described(encoded: bytes) -> str:
    """How the first page of a TIFF is stored, and how to save it, such as "(1 channel of 8 bits, compression LERC): …".

    "" if its tags are damaged.
    """
    if encoded.startswith(b"MM\0+"):  # Pillow reads BigTIFF in the usual order of bytes only
        return f"(BigTIFF, high bytes first): save it as PNG, or as TIFF {_OTHERWISE}"
    if not (tags := _tags(encoded)):
        return ""
    number, channels, bits, kind = (tags[tag] for tag in (_COMPRESSION, _CHANNELS, _BITS, _FORMAT))
    stored = f"{counted(channels, 'channel')} of {_FORMATS.get(kind, '')}{counted(bits, 'bit')}"
    name = _COMPRESSIONS.get(number, f"number {number}")
    # If the compression is one that is read, the kind of pixels is not, so another TIFF would not help.
    ways = "save it as PNG, in grey or RGB" if number in _READ else f"save it as PNG, or as TIFF {_OTHERWISE}"
    return f"({stored}, compression {name}): {ways}"


def _tags(encoded: bytes) -> Mapping[int, int]:
    """Compression, channels, bits and format of the first page; {} if its tags are damaged."""
    try:
        file = io.BytesIO(encoded)
        header = file.read(16 if b"+" in encoded[2:4] else 8)  # a BigTIFF has the longer one
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        return {tag: _number(tags.get(tag, 1)) for tag in (_COMPRESSION, _CHANNELS, _BITS, _FORMAT)}
    except Exception:  # damaged files raise nearly every kind, some only when a tag is read
        return {}


def _number(value: Any) -> int:
    """The value of a tag, or the first of several. Raises TypeError if it is no whole number, as in a damaged file."""
    return operator.index(value[0] if isinstance(value, tuple) else value)
