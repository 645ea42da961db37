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
    (count,) = struct.unpack_from(">I", colour, 128)
    entries = [struct.unpack_from(">4sII", colour, 132 + 12 * i) for i in range(count)]
    tags = {kind: colour[begin : begin + length] for kind, begin, length in entries}
    kept = {b"desc": tags[b"desc"], b"cprt": tags[b"cprt"], b"wtpt": tags[b"wtpt"], b"kTRC": tags[b"rTRC"]}
    table, content, begin = struct.pack(">I", len(kept)), b"", 132 + 12 * len(kept)
    for kind, value in kept.items():
        table += struct.pack(">4sII", kind, begin + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    return struct.pack(">I", begin + len(content)) + colour[4:16] + b"GRAY" + colour[20:128] + table + content


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
