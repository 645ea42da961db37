"""Files that are compressed as a whole: images in them cannot be read one by one, so they are refused with advice."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zlib
from pathlib import Path
from typing import Any

from jaxcat.data.archives import tar_members

# How a file begins → the command that unpacks it, with the folder to name then.
_UNPACK = {
    b"\x1f\x8b": "tar -xzf",
    b"BZh": "tar -xjf",
    b"\xfd7zXZ\0": "tar -xJf",
    b"\x28\xb5\x2f\xfd": "tar --zstd -xf",
    b"\x04\x22\x4d\x18": "tar -I lz4 -xf",
    b"\x1f\x9d": "tar -xZf",
    b"LZIP": "tar --lzip -xf",
    b"7z\xbc\xaf\x27\x1c": "7z x",
    b"Rar!\x1a\x07": "unar",
}
# The same for a single file, such as table.csv.gz, with the module that reads it here.
_SINGLE: dict[bytes, tuple[str, Any]] = {
    b"\x1f\x8b": ("gunzip --keep", gzip),
    b"BZh": ("bunzip2 --keep", bz2),
    b"\xfd7zXZ\0": ("unxz --keep", lzma),
}


def advice(path: Path, beginning: bytes) -> str:
    """What to do with a compressed file, by its first bytes; "" if it is none."""
    shown = repr(os.path.abspath(path))
    for magic, command in _UNPACK.items():
        if beginning.startswith(magic):
            if alone := _of_single_file(path, magic):
                return f"a single compressed file: unpack it, `{alone} {shown}`, and name the file that this makes"
            return (
                "this archive is compressed as a whole, so images in it cannot be read one by one. Unpack it, for "
                f"example in a new folder with `{command} {shown}`, and name that folder"
            )
    return ""


def _of_single_file(path: Path, magic: bytes) -> str:
    """The command that unpacks a compressed file, such as table.csv.gz; "" if a tar is in it or it cannot be read."""
    command, module = _SINGLE.get(magic, ("", None))
    if module is None:
        return ""
    try:
        with module.open(path) as file:
            inside = file.read(512)
    except (OSError, EOFError, lzma.LZMAError, zlib.error):
        return ""
    return "" if inside[257:262] == b"ustar" or tar_members.is_old_tar(inside) else command
