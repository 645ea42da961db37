"""Images and their parts written byte by byte, for what Pillow does not write: PNG's chunks, BMPs, a GIF's canvas."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from jaxcat.data.images.profiles import PRIMARIES, matrix_profile


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunks(png: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with more chunks after its IHDR."""
    return png[:33] + b"".join(chunk(*each) for each in chunks) + png[33:]


def png_of(values: np.ndarray, kind: int, bits: int, *chunks: tuple[bytes, bytes], interlaced: bool = False) -> bytes:
    """A PNG of (H, W, channels) values with `bits` a channel; `kind` is PNG's colour type."""
    height, width, channels = values.shape
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b""
    for left, top, across, down in passes:
        for row in values[top::down, left::across]:
            digits = np.unpackbits(row.astype(">u2").reshape(-1, 1).view(np.uint8), axis=1)[:, 16 - bits :]
            rows += b"\0" + np.packbits(digits.reshape(-1)).tobytes()
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced)
    parts = [chunk(b"IHDR", header), *(chunk(*each) for each in chunks), chunk(b"IDAT", zlib.compress(rows, 9))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def chromaticity(primaries: Sequence[float]) -> bytes:
    """The content of cHRM for primaries in the order of `profiles.PRIMARIES`."""
    return struct.pack(">8I", *(round(v * 100_000) for v in (*primaries[6:], *primaries[:6])))


def gamma(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(value * 100_000))


def grey_profile(exponent: float) -> bytes:
    """An ICC profile of grey: the tags of one of RGB, with one curve and no primaries."""
    colour = matrix_profile(PRIMARIES[1], (0, exponent))
    tags = _tags(colour)
    kept = {b"desc": tags[b"desc"], b"cprt": tags[b"cprt"], b"wtpt": tags[b"wtpt"], b"kTRC": tags[b"rTRC"]}
    return _profile(colour[4:16] + b"GRAY" + colour[20:128], kept)


# CIE Lab of paper, of inks and of their mixtures, from (cyan, magenta, yellow); paler than real ones, to be in sRGB.
_PRINTED = {
    (0, 0, 0): (95, 0, -2),
    (1, 0, 0): (55, -20, -35),
    (0, 1, 0): (48, 60, -3),
    (0, 0, 1): (89, -5, 70),
    (0, 1, 1): (47, 55, 35),
    (1, 0, 1): (50, -40, 20),
    (1, 1, 0): (28, 20, -40),
    (1, 1, 1): (23, 0, 0),
}


def ink_profile() -> bytes:
    """An ICC profile of a press, by a table of 9 values an ink; its darkest colour is no black, as in real ones."""
    colour = matrix_profile(PRIMARIES[1], (0, 1.0))
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 9)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    printed = np.zeros((len(grid), 3))
    for inks, lab in _PRINTED.items():
        share = np.prod(np.where(inks, grid[:, :3], 1 - grid[:, :3]), axis=1, keepdims=True)
        printed += share * lab
    printed = printed * (1 - 0.75 * grid[:, 3:]) + [7, 0, 0] * grid[:, 3:]
    cells = (printed * [2.55, 1, 1] + [0, 128, 128]).round().astype(np.uint8).tobytes()
    straight, unit = bytes(range(256)), [65536, 0, 0, 0, 65536, 0, 0, 0, 65536]
    table = b"mft1" + bytes(4) + bytes([4, 3, 9, 0]) + struct.pack(">9i", *unit) + straight * 4 + cells
    tags = _tags(colour)
    kept = {b"desc": tags[b"desc"], b"cprt": tags[b"cprt"], b"wtpt": tags[b"wtpt"], b"A2B0": table + straight * 3}
    return _profile(bytes(4) + b"\x02\x10\0\0prtrCMYKLab " + colour[24:128], kept)


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    entries = [struct.unpack_from(">4sII", profile, 132 + 12 * i) for i in range(count)]
    return {kind: profile[begin : begin + length] for kind, begin, length in entries}


def _profile(header: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of a header, without the size that it begins with, and tags."""
    table, content, begin = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for kind, value in tags.items():
        table += struct.pack(">4sII", kind, begin + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    return struct.pack(">I", begin + len(content)) + header + table + content


def icc_chunk(profile: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"icc\0\0" + zlib.compress(profile, 9)


def on_larger_canvas(gif: bytes) -> bytes:
    """The same GIF on a canvas of 60 × 40, its frame at (7, 5), with colour 40 as the background."""
    place = gif.index(b",", 13 + 3 * 2 ** ((gif[10] & 7) + 1))
    header = gif[:6] + struct.pack("<HHBB", 60, 40, gif[10], 40) + gif[12:]
    return header[: place + 1] + struct.pack("<HH", 7, 5) + header[place + 5 :]


def bmp_of(
    rows: bytes, *, bits: int, palette: bytes = b"", masks: bytes = b"", coding: int = 0, up: bool = True
) -> bytes:
    """A BMP of 48 × 32 by hand; `masks` of 16 bytes make its header one of version 4."""
    size = 108 if len(masks) == 16 else 40
    info = struct.pack(
        "<IiiHHIIiiII", size, 48, 32 if up else -32, 1, bits, coding, len(rows), 0, 0, len(palette) // 4, 0
    )
    info += masks.ljust(size - 40, b"\0") if size > 40 else masks
    begin = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", begin + len(rows), 0, 0, begin) + info + palette + rows
