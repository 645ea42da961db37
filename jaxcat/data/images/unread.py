"""What a file is that is not read as an image, by its first bytes, with advice."""

from __future__ import annotations

from jaxcat.data.images import heif, tiff

READ = "JPEG, PNG, GIF, WebP, BMP, AVIF, TIFF, JPEG 2000, PGM, PPM or ICO"

EXPORT = "export it as JPEG, PNG or TIFF"
_HEIC = f"HEIC: {heif.INSTALL}, export it as JPEG, or set the phone to 'most compatible' (Settings > Camera > Formats)"
RAW = f"a camera's raw file: {EXPORT}"
_HDR = f"a high dynamic range image: {EXPORT}"
_VIDEO = "a video: extract single frames as JPEG or PNG"
_ARCHIVE = "an archive: unpack it"
_DATA = "a file of numbers, not an image"
# Where in a file → what stands there → what the file is.
_MAGIC: tuple[tuple[int, dict[bytes, str]], ...] = (
    (
        0,
        {
            b"version https://git-lfs": "a pointer of Git LFS, not the image: run git lfs pull",
            b"\xff\x0a": f"JPEG XL: {EXPORT}",
            b"\0\0\0\x0cJXL ": f"JPEG XL: {EXPORT}",
            b"II\xbc": f"JPEG XR: {EXPORT}",
            b"8BPS": f"a Photoshop document: {EXPORT}",
            b"gimp xcf": f"a GIMP document: {EXPORT}",
            b"%PDF": "a PDF document: export its pages as PNG",
            b"%!PS": f"PostScript: {EXPORT}",
            b"\xc5\xd0\xd3\xc6": f"PostScript: {EXPORT}",
            **dict.fromkeys((b"II*\0\x10\0\0\0CR", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILM"), RAW),
            **dict.fromkeys((b"\0MRM", b"FOVb"), RAW),
            **dict.fromkeys((b"\x76\x2f\x31\x01", b"#?RADIANCE", b"#?RGBE", b"PF\n"), _HDR),
            b"SIMPLE  =": f"FITS: {EXPORT}",
            b"DDS ": f"a DDS texture: {EXPORT}",
            b"qoif": f"QOI: {EXPORT}",
            b"icns": f"an icon of macOS: {EXPORT}",
            b"P7\n": f"PAM: {EXPORT}",
            b"\xd7\xcd\xc6\x9a": f"a Windows metafile: {EXPORT}",
            **dict.fromkeys((b"\x1aE\xdf\xa3", b"FLV\x01", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"OggS"), _VIDEO),
            **dict.fromkeys((b"PK\x03\x04", b"7z\xbc\xaf", b"Rar!", b"\xfd7zXZ", b"BZh", b"\x1f\x8b"), _ARCHIVE),
            **dict.fromkeys((b"\x89HDF", b"\x93NUMPY", b"MATLAB 5", b"PAR1", b"\x80\x04", b"SQLite "), _DATA),
            b"\x5c\x01\0\0": f"NIfTI or Analyze: {EXPORT}",
            b"\0\0\x01\x5c": f"NIfTI or Analyze: {EXPORT}",
            b"\0\x05\x16\x07": "metadata of macOS (AppleDouble), not the image itself",
            b"\x7fELF": "a program",
            b"MZ": "a program",
        },
    ),
    (
        4,
        {
            **dict.fromkeys((b"ftypavif", b"ftypavis"), "a damaged AVIF file"),
            **dict.fromkeys((b"ftyphe", b"ftypmif1", b"ftypmsf1", b"ftypmiaf"), _HEIC),
            b"ftypcrx ": RAW,
            b"ftyp": _VIDEO,
            **dict.fromkeys((b"moov", b"mdat", b"wide"), _VIDEO),
        },
    ),
    (8, {b"AVI ": _VIDEO, b"WAVE": "a sound"}),
    (128, {b"DICM": f"DICOM: {EXPORT}"}),
    (257, {b"ustar": _ARCHIVE}),
    (344, {b"n+1\0": f"NIfTI: {EXPORT}", b"ni1\0": f"NIfTI: {EXPORT}"}),
)
# The beginnings of formats that are read: a file that begins so and cannot be opened is damaged.
_BEGINNINGS = {
    "JPEG": (b"\xff\xd8",),
    "PNG": (b"\x89PNG",),
    "GIF": (b"GIF8",),
    "WebP": (b"RIFF",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "JPEG 2000": (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    "BMP": (b"BM",),
}


def what_it_is(encoded: bytes, reason: str = "") -> str:
    """Why a file is not read: what it is and what to do, or that it is damaged; in one line.

    Args:
        encoded: the file, or at least its first 400 bytes.
        reason: what the plugin said that recognised the format and could not open the file, if there is one.
    """
    if what := by_magic(encoded):
        return f"not an image that is read ({READ}) but {what}"
    for name, beginnings in _BEGINNINGS.items():
        if encoded.startswith(beginnings):
            if name == "TIFF" and reason and (stored := tiff.described(encoded)):
                return f"a TIFF file, of a kind that is not read {stored}"
            known = (name == "TIFF" and reason) or reason.startswith("Unsupported")
            kind = "of a kind that is not read" if known else "damaged or cut short"
            save = ": save it as PNG" if reason.startswith("Unsupported") else ""
            return f"a {name} file, {kind}{f' ({reason})' if reason else ''}{save}"
    if what := _of_text(encoded):
        return f"not an image that is read ({READ}) but {what}"
    if reason:
        return f"damaged or of a kind that is not read ({reason})"
    return f"not a {READ} image; it looks like a damaged file or another format"


def may_be_read(encoded: bytes) -> bool:
    """Whether a file may be an image of a format that is read, by its first 16 bytes."""
    known = any(encoded.startswith(beginnings) for beginnings in _BEGINNINGS.values())
    return known or encoded[4:8] == b"ftyp" or encoded.startswith((b"P", b"\0\0"))  # AVIF and HEIC; PNM; icons


def is_image(encoded: bytes) -> bool:
    """Whether a file is an image of a format that is not read, by its first 400 bytes."""
    return is_heic(encoded) or by_magic(encoded).endswith(EXPORT)


def is_heic(encoded: bytes) -> bool:
    """Whether a file is a HEIC, by its first 400 bytes."""
    return by_magic(encoded) == _HEIC


def by_magic(encoded: bytes) -> str:
    """What a file is by the numbers at its beginning, with advice, such as "a PDF document: …"; "" if not known."""
    for place, beginnings in _MAGIC:
        for magic, what in beginnings.items():
            if encoded.startswith(magic, place):
                return what
    return ""


def _of_text(encoded: bytes) -> str:
    start = encoded[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<"):
        return f"SVG: {EXPORT}" if b"<svg" in start else "an HTML or XML page"
    if not encoded[:400].strip(b"\0"):
        return "a file of zeros, as an interrupted copy leaves it: copy it again"
    try:
        text = encoded[:400].decode("ascii")
    except UnicodeDecodeError:
        return ""
    return "a text file" if all(c.isprintable() or c.isspace() for c in text) else ""
