"""The chunks of a PNG file, and the file without those that Pillow need not see."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE = 2**24  # bytes of an unpacked colour profile; those of printing presses have up to 4 MB


class Chunk(NamedTuple):
    """A chunk of a PNG: `encoded[begin:end]` is all of it, and `content` what it holds."""

    kind: bytes
    begin: int
    end: int
    content: memoryview


def chunks(encoded: bytes) -> Iterator[Chunk]:
    """The chunks of a PNG in order, as far as they are whole."""
    position, view = len(SIGNATURE), memoryview(encoded)
    while position + 12 <= len(encoded):
        (length,) = struct.unpack_from(">I", encoded, position)
        end = position + 12 + length
        if end > len(encoded):
            return
        yield Chunk(encoded[position + 4 : position + 8], position, end, view[position + 8 : end - 4])
        position = end


def without_texts(encoded: bytes) -> tuple[bytes, dict[str | tuple[int, int], Any]]:
    """A PNG without its texts and colour profile, which Pillow refuses if they are large, and entries of `info`.

    It also lacks an eXIf after the pixels: browsers do not turn an image by that.

    Returns:
        The PNG, and the entries of `Image.info` that Pillow would make or lacks: "icc_profile"; "cicp" (primaries,
        transfer); "significant_bits", the largest of sBIT.
    """
    info: dict[str | tuple[int, int], Any] = {}  # the type of Pillow's
    parts, last, pixels = [], 0, False
    for chunk in chunks(encoded):
        pixels = pixels or chunk.kind == b"IDAT"
        if chunk.kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP") or (pixels and chunk.kind == b"eXIf"):
            parts.append(encoded[last : chunk.begin])
            last = chunk.end
        if pixels:  # what follows the pixels says nothing about them
            continue
        if chunk.kind == b"iCCP" and (profile := _unpacked(bytes(chunk.content))):
            info["icc_profile"] = profile
        elif chunk.kind == b"cICP" and len(chunk.content) == 4:
            info["cicp"] = (chunk.content[0], chunk.content[1])
        elif chunk.kind == b"sBIT" and len(chunk.content):
            info["significant_bits"] = max(chunk.content)
    return b"".join([*parts, encoded[last:]]) if parts else encoded, info


def _unpacked(content: bytes) -> bytes:
    """The colour profile of an iCCP chunk (name, 0, method, zlib stream); b"" if it is damaged or far too large."""
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(content.partition(b"\0")[2][1:], MAX_PROFILE)
    except zlib.error:
        return b""
    return profile if unpacking.eof else b""
