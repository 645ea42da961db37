"""HEIC and other HEIF files, which phones write: read by pi-heif, the package of the extra `heif`.

pi-heif only decodes: it comes without the GPL encoder that the usual package, pillow-heif, bundles. It is imported when
the first such file is met, and is not registered with Pillow.
"""

from __future__ import annotations

import functools
import importlib.util
import io

from PIL import Image, ImageFile

from jaxcat.errors import one_line
from jaxcat.extras import install

SUFFIXES = frozenset({".heic", ".heif", ".hif"})  # in lower case
INSTALL = install("heif")
_BRANDS = (b"ftyphe", b"ftypmif1", b"ftypmsf1", b"ftypmiaf")  # from byte 4; AVIF may begin with the last three too
_LONGEST = 400  # bytes of the list of brands


@functools.cache
def installed() -> bool:
    """Whether pi-heif is installed; does not import it."""
    return importlib.util.find_spec("pi_heif") is not None


def is_heif(encoded: bytes) -> bool:
    """Whether a file is HEIF, and not an AVIF, by its first 400 bytes."""
    brands = encoded[8 : min(int.from_bytes(encoded[:4], "big"), _LONGEST)]
    return encoded.startswith(_BRANDS, 4) and b"avif" not in brands and b"avis" not in brands


def opened(encoded: bytes) -> ImageFile.ImageFile | None:
    """Opens a HEIF file without decoding its pixels; None if it is none or pi-heif is not installed.

    Rotation and mirroring of the container are applied by pi-heif, which sets the orientation of EXIF to 1. Values of
    more than 8 bits come as their high 8 bits.

    Raises:
        ValueError: it is damaged, cut short, or compressed in a way that pi-heif does not read.
    """
    if not is_heif(encoded) or not installed():
        return None
    from pi_heif import HeifImageFile

    try:
        return HeifImageFile(io.BytesIO(encoded), "")
    except (MemoryError, Image.DecompressionBombError):
        raise
    except Exception as error:  # libheif's errors come as ValueError, SyntaxError, RuntimeError, EOFError …
        raise ValueError(
            f"a HEIC file, damaged, cut short or of a kind that is not read ({one_line(error)})"
        ) from error


def decoder_of(encoded: bytes) -> bytes:
    """What the pixels of a file depend on besides its bytes: the versions of pi-heif and libheif; b"" if not HEIF."""
    if not is_heif(encoded) or not installed():
        return b""
    import pi_heif

    return f"pi-heif {pi_heif.__version__} libheif {pi_heif.libheif_version()}".encode()
