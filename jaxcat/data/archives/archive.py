"""One archive, a .zip or plain .tar, whose members are read in place, by random access."""

from __future__ import annotations

import os
import threading
import zlib
from pathlib import Path

from jaxcat.data.archives import tar_members, zip_members
from jaxcat.data.archives.members import Member, Members
from jaxcat.errors import DataError, one_line

MOST_BYTES = 2**30  # of one member, stored or inflated; as for files


class Archive:
    """The members of one archive. Any number of threads and processes may read from it.

    Attributes:
        path: of the archive, absolute.
        members: name → where its bytes are; regular files only.
        folders: name → names of what is in it; "" is the root.
        skipped: names of members that are never read, with the reason.
        state: `state_of` the archive when its members were listed.
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
                self.state = state_of(os.fstat(file.fileno()))
                beginning = file.read(512)
                read = zip_members.members if zip_members.is_zip(beginning) else tar_members.members
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
                if state_of(os.fstat(self._descriptor)) != self.state:
                    raise ValueError(f"{self.path} was changed after its members were listed; run the command again")
            if not hasattr(os, "pread"):  # Windows
                os.lseek(self._descriptor, offset, os.SEEK_SET)
                return _whole(lambda left, _: os.read(self._descriptor, left), count)
        return _whole(lambda left, done: os.pread(self._descriptor, left, offset + done), count)


def _whole(read, count: int) -> bytes:
    """`count` bytes from a function that may give fewer at a time. Raises ValueError if there are fewer."""
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


def state_of(status: os.stat_result) -> tuple[int, int]:
    """What differs after a file was changed: its bytes, and the time of its last change in ns."""
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
