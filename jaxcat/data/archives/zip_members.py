"""The members of a zip archive: its central directory, checked against the header of every member."""

from __future__ import annotations

import contextlib
import stat
import struct
import zipfile
from typing import IO

from jaxcat.data.archives.members import Member, Members
from jaxcat.errors import DataError, one_line

_HEADER = struct.Struct("<4s5H3I2H")  # of a member: signature, version, flags, method, time, date, CRC, sizes, lengths
_ENCRYPTED, _SIZES_AFTER, _STRONG, _UTF8, _MASKED = 0x1, 0x8, 0x40, 0x800, 0x2000
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz", 98: "PPMd", 99: "AES encryption"}
_WINDOWS = (0, 10, 11)  # systems that write backslashes: DOS and FAT, NTFS


def is_zip(beginning: bytes) -> bool:
    """Whether a file begins as a zip archive does."""
    return beginning[:4] in (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")


def members(file: IO[bytes], *, where: str) -> Members:
    """The members that can be read: stored or deflated, not encrypted.

    Raises:
        DataError: it is damaged, encrypted or compressed in another way; members share bytes or a name; or the two
            places that describe a member disagree.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            infos, end = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error, UnicodeDecodeError) as error:
        raise DataError(f"{where}: a damaged zip archive: {one_line(error)}") from error
    found, taken = Members(where), []
    for info in infos:
        offset = _checked(file, info, where=where)
        taken.append((info.header_offset, offset + info.compress_size, info.filename))
        name, mode = _name(info), info.external_attr >> 16
        if info.is_dir() or name.endswith("/"):
            continue
        if stat.S_ISLNK(mode):
            found.skip(name, "a link")
        elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            found.skip(name, "no regular file")
        else:
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            found.add(name, Member(offset, info.compress_size, info.file_size, deflated, info.CRC))
    _check_apart(taken, end, where=where)
    return found


def _checked(file: IO[bytes], info: zipfile.ZipInfo, *, where: str) -> int:
    """The offset of a member's bytes. Raises DataError if it cannot be read, or its own header says something else."""
    what = f"{where}: member {info.filename!r}"
    if info.flag_bits & (_ENCRYPTED | _STRONG | _MASKED):
        raise DataError(f"{what} is encrypted; unpack the archive with its password and name the folder")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
        raise DataError(
            f"{what} is compressed by {method}; jaxcat reads stored and deflated members: unpack the archive"
        )
    if "\0" in info.orig_filename:
        raise DataError(f"{what} has a NUL character in its name")
    try:
        file.seek(info.header_offset)
        header = file.read(_HEADER.size)
        signature, _, flags, method, _, _, crc, stored, size, name_length, extra_length = _HEADER.unpack(header)
        name = file.read(name_length)
    except (OSError, ValueError, struct.error) as error:
        raise DataError(f"{what} is not where the list of members says: the archive is damaged") from error
    here = (signature, method, flags & (_ENCRYPTED | _UTF8), name)
    listed_name = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437", "replace")
    listed = (b"PK\x03\x04", info.compress_type, info.flag_bits & (_ENCRYPTED | _UTF8), listed_name)
    after = bool(flags & _SIZES_AFTER)  # then the header may have zeros, because sizes follow the bytes
    large = 0xFFFFFFFF  # then the size is among the extra fields
    agree = (
        crc in ((info.CRC, 0) if after else (info.CRC,))
        and stored in ((info.compress_size, large, 0) if after else (info.compress_size, large))
        and size in ((info.file_size, large, 0) if after else (info.file_size, large))
    )
    if here != listed or not agree:
        raise DataError(f"{what}: its own header and the archive's list of members disagree; make the archive again")
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        raise DataError(f"{what} is stored, but its two sizes differ: the archive is damaged")
    return info.header_offset + _HEADER.size + name_length + extra_length


def _name(info: zipfile.ZipInfo) -> str:
    """The name of a member: UTF-8 also where the archive does not say so, as on macOS; backslashes of Windows."""
    name = info.orig_filename
    if not info.flag_bits & _UTF8:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/") if info.create_system in _WINDOWS else name


def _check_apart(taken: list[tuple[int, int, str]], end: int, *, where: str) -> None:
    """Raises DataError if members share bytes, as in archives made to unpack to far more than their size."""
    reached, before = 0, ""
    for begin, stop, name in sorted(taken):
        if begin < reached:
            raise DataError(
                f"{where}: members {before!r} and {name!r} overlap: the archive is damaged, or made to harm"
            )
        reached, before = stop, name
    if reached > end:
        raise DataError(f"{where}: member {before!r} reaches into the list of members: the archive is damaged")
