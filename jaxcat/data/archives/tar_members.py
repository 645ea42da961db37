"""The members of a plain tar archive, from the header before each of them."""

from __future__ import annotations

import os
import tarfile
from typing import IO

from jaxcat.data.archives.members import Member, Members
from jaxcat.errors import DataError, one_line

BLOCK = 512


def is_old_tar(beginning: bytes) -> bool:
    """Whether the first block is a header from before tar archives had a signature: its checksum fits."""
    try:
        return len(beginning) == BLOCK and int(beginning[148:156].strip(b" \0") or b"x", 8) in (
            sum(beginning[:148]) + sum(beginning[156:]) + 8 * 32,
        )
    except ValueError:
        return False


def members(file: IO[bytes], *, where: str) -> Members:
    """The regular files of the archive.

    Raises:
        DataError: a header is damaged, the archive is cut short, or two members have the same name.
    """
    found, size = Members(where), os.fstat(file.fileno()).st_size
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:", errorlevel=2) as archive:
            while (info := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep all of them
                _add(found, info)
                if info.size < 0:
                    raise ValueError(f"member {info.name!r} has a size below 0")
                if info.isreg() and info.offset_data + info.size > size:
                    raise DataError(f"{where}: member {info.name!r} is cut short; copy the archive again")
            end = archive.offset
    except (tarfile.TarError, EOFError, ValueError, OverflowError, IndexError, MemoryError, RecursionError) as error:
        raise DataError(f"{where}: a damaged tar archive: {one_line(error)}") from error
    file.seek(end)
    if any(file.read(BLOCK)):  # tarfile ends at a damaged header as at the end
        raise DataError(f"{where}: a damaged tar archive: the header at byte {end:,} is none; copy the archive again")
    return found


def _add(found: Members, info: tarfile.TarInfo) -> None:
    if info.isdir():
        return
    if info.issym() or info.islnk():
        found.skip(info.name, "a link")
    elif not info.isreg():
        found.skip(info.name, "no regular file")
    elif info.issparse():
        found.skip(info.name, "a file with holes")
    else:
        found.add(info.name, Member(info.offset_data, info.size, info.size))
