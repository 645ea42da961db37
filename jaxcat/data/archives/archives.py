"""Archives as folders: the members of a .zip or plain .tar are read in place, by random access.

A path may go on inside an archive that was opened with `open_archive`: DIR/FILE.zip/train/cats/1.jpg. The functions
here take such paths and all others; of all others they say what the functions of `os` say. Nothing is unpacked.
"""

from __future__ import annotations

import io
import logging
import os
import stat
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from jaxcat.data.archives import compressed, tar_members, zip_members
from jaxcat.data.archives.members import Member, Members
from jaxcat.errors import DataError, one_line

logger = logging.getLogger(__name__)

MOST_BYTES = 2**30  # of one member, stored or inflated; as for files


class Archive:
    """The members of one archive. Any number of threads and processes may read from it.

    Attributes:
        path: of the archive, absolute.
        members: name → where its bytes are; regular files only.
        folders: name → names of what is in it; "" is the root.
        skipped: names of members that are never read, with the reason.
    """

    def __init__(self, path: Path):
        """Reads the list of members, and no member.

        Raises:
            DataError: the file is no archive that can be read in place, is damaged, or lists members in two ways.
        """
        self.path = Path(os.path.abspath(path))
        self._lock = threading.Lock()
        self._descriptor, self._owner = -1, 0
        try:
            with open(self.path, "rb") as file:
                self._state = _state_of(os.fstat(file.fileno()))
                beginning = file.read(512)
                read = zip_members.members if is_zip(beginning) else tar_members.members
                found: Members = read(file, where=str(self.path))
        except OSError as error:
            raise DataError(f"{self.path}: {one_line(error)}") from error
        self.members, self.skipped = found.members, found.skipped
        self.folders = _folders(self.members, where=str(self.path))

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_descriptor", "_owner")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state
        self._lock, self._descriptor, self._owner = threading.Lock(), -1, 0

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0 and self._owner == os.getpid():
            os.close(self._descriptor)

    def read(self, name: str) -> bytes:
        """The bytes of a member.

        Raises:
            ValueError: it is larger than allowed, damaged, or of another size than the archive says.
            OSError: there is no such member, or the archive cannot be read.
        """
        member = self.members.get(name)
        if member is None:
            raise FileNotFoundError(2, "No such member of the archive", name)
        if max(member.size, member.stored_size) > MOST_BYTES:
            raise ValueError(f"{member.size:,} bytes are more than the {MOST_BYTES:,} that an image may have")
        stored = self._bytes(member.offset, member.stored_size)
        content = _inflated(stored, member.size) if member.deflated else stored
        if len(content) != member.size or (member.crc is not None and zlib.crc32(content) != member.crc):
            raise ValueError(f"damaged: not the {member.size:,} bytes, or not the checksum, that the archive says")
        return content

    def _bytes(self, offset: int, count: int) -> bytes:
        """`count` bytes of the archive, from any thread; each process has a descriptor of its own."""
        with self._lock:
            if self._owner != os.getpid():
                self._descriptor, self._owner = (
                    os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0)),
                    os.getpid(),
                )
                if _state_of(os.fstat(self._descriptor)) != self._state:
                    raise ValueError(f"{self.path} was changed after its members were listed; run the command again")
            if not hasattr(os, "pread"):  # Windows
                os.lseek(self._descriptor, offset, os.SEEK_SET)
                return _whole(lambda left, _: os.read(self._descriptor, left), count)
        return _whole(lambda left, done: os.pread(self._descriptor, left, offset + done), count)


def _whole(read, count: int) -> bytes:
    """`count` bytes from a function that may give fewer at a time. Raises ValueError if there are not so many."""
    parts: list[bytes] = []
    done = 0
    while done < count:
        part = read(min(count - done, 2**26), done)
        if not part:
            raise ValueError("the archive is cut short")
        parts.append(part)
        done += len(part)
    return b"".join(parts)


def _inflated(stored: bytes, size: int) -> bytes:
    """The deflated bytes inflated, but never to more than one byte more than `size`."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(stored, size + 1)
    except zlib.error as error:
        raise ValueError(f"damaged: {error}") from error
    if len(content) == size and not inflater.eof:
        content += inflater.decompress(inflater.unconsumed_tail, 1)
    return content


def _state_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _folders(members: dict[str, Member], *, where: str) -> dict[str, list[str]]:
    """The names in each folder. Raises DataError if a member lies below another member."""
    inside: dict[str, set[str]] = {"": set()}
    for name in members:
        parts = name.split("/")
        for depth in range(len(parts)):
            inside.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
    if both := sorted(inside.keys() & members.keys()):
        raise DataError(f"{where}: {both[0]!r} is both a file and a folder in this archive")
    return {folder: sorted(names) for folder, names in inside.items()}


# paths ----------------------------------------------------------------------------------------------------------------

_opened: dict[str, Archive] = {}


def is_zip(beginning: bytes) -> bool:
    return beginning[:4] in (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")


def open_archive(path: Path) -> Archive | None:
    """Makes the functions below see an archive as a folder; None if `path` is no file that looks like an archive.

    For a path inside an archive, such as DIR/FILE.zip/train, that archive.

    Raises:
        DataError: it is an archive, but not one that can be read in place; the message says what to do.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            beginning = file.read(512)
    except NotADirectoryError:
        above = next((above for above in path.parents if os.path.isfile(above)), None)
        return open_archive(above) if above else None
    except (OSError, ValueError):
        return None
    if advice := compressed.advice(path, beginning):
        raise DataError(f"{path}: {advice}")
    if not is_zip(beginning) and beginning[257:262] != b"ustar" and not tar_members.is_old_tar(beginning):
        return None
    known = _opened.get(os.path.abspath(path))
    if known is None or _state_of(os.stat(path)) != known._state:
        known = _opened[os.path.abspath(path)] = Archive(path)
        if known.skipped:
            shown = ", ".join(f"{name!r} ({reason})" for name, reason in known.skipped[:3])
            logger.warning(
                "%s: %s never read: %s",
                path,
                "1 member is" if len(known.skipped) == 1 else f"{len(known.skipped)} members are",
                shown + (", …" if len(known.skipped) > 3 else ""),
            )
    return known


def _find(path: str | Path) -> tuple[Archive, str] | None:
    """The opened archive that a path lies in, and the name in it; None for a path outside."""
    if not _opened:
        return None
    text = os.path.abspath(path)
    end = len(text)
    while end > 0:
        if (archive := _opened.get(text[:end])) is not None:
            return archive, text[end + 1 :].replace(os.sep, "/")
        end = text.rfind(os.sep, 0, end)
    return None


def read_member(path: Path) -> bytes | None:
    """The bytes of a member of an archive; None if the path does not lie in one. Raises what `Archive.read` raises.

    Also works in a process that has not opened the archive.
    """
    found = _find(path) or _open_above(path)
    return None if found is None else found[0].read(found[1])


def why_no_folder(path: Path) -> str:
    """What is wrong with a path that is neither a folder nor an archive."""
    if not os.path.isfile(path):
        return "there is no such folder"
    return (
        "it is a file, and neither a .zip nor a plain .tar archive; unpack those of other kinds, of several parts or "
        "with a program in them, and name the folder"
    )


def _open_above(path: Path) -> tuple[Archive, str] | None:
    return _find(path) if open_archive(path) else None


def isdir(path: str | Path) -> bool:
    found = _find(path)
    return os.path.isdir(path) if found is None else found[1] in found[0].folders


def isfile(path: Path) -> bool:
    found = _find(path)
    return os.path.isfile(path) if found is None else found[1] in found[0].members


def exists(path: Path) -> bool:
    return os.path.exists(path) if _find(path) is None else isdir(path) or isfile(path)


def stat_file(path: Path) -> os.stat_result | None:
    """As os.stat; None for a member of an archive, which is a regular file or a folder. Raises OSError."""
    if _find(path) is None:
        return os.stat(path)
    if not exists(path):
        raise FileNotFoundError(2, "No such member of the archive", str(path))
    return None


def opened(path: Path) -> IO[bytes]:
    """As open(path, "rb"); of a member of an archive, the bytes in memory. Raises OSError or ValueError."""
    content = None if _find(path) is None else read_member(path)
    return open(path, "rb") if content is None else io.BytesIO(content)


def listdir(path: Path) -> list[str]:
    """Raises OSError if the folder cannot be listed."""
    found = _find(path)
    if found is None:
        return os.listdir(path)
    if found[1] not in found[0].folders:
        raise NotADirectoryError(20, "Not a directory", str(path))
    return list(found[0].folders[found[1]])


def realpath(path: Path) -> str:
    """The path without links; there are none in an archive."""
    return os.path.realpath(path) if _find(path) is None else os.path.abspath(path)


def getsize(path: Path) -> int:
    """Bytes of a file. Raises OSError if there is none."""
    found = _find(path)
    if found is None:
        return os.path.getsize(path)
    if found[1] not in found[0].members:
        raise FileNotFoundError(2, "No such member of the archive", str(path))
    return found[0].members[found[1]].size


def walk(directory: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """As os.walk, from the top."""
    if _find(directory) is None:
        yield from os.walk(directory)
        return
    names = listdir(directory)
    folders = [name for name in names if isdir(directory / name)]
    yield str(directory), folders, [name for name in names if name not in folders]
    for name in folders:
        yield from walk(directory / name)
