"""The members of an archive, and which names are never used, whatever the kind of archive."""

from __future__ import annotations

import re
from typing import NamedTuple

from jaxcat.errors import DataError

MOST_MEMBERS = 2**23
ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")


class Member(NamedTuple):
    """A regular file in an archive.

    Attributes:
        offset: of its bytes in the archive.
        stored_size: bytes in the archive.
        size: bytes of the file.
        deflated: whether the bytes have to be inflated.
        crc: checksum of the file; None if the archive has none.
    """

    offset: int
    stored_size: int
    size: int
    deflated: bool = False
    crc: int | None = None


class Members:
    """Collects the members of an archive by their names; refuses lists that programs would read in different ways.

    Attributes:
        members: name, with single slashes → member.
        skipped: names of members that are never read, with the reason.
    """

    def __init__(self, where: str):
        self.members: dict[str, Member] = {}
        self.skipped: list[tuple[str, str]] = []
        self._where = where

    def skip(self, name: str, reason: str) -> None:
        self.skipped.append((name, reason))

    def add(self, name: str, member: Member) -> None:
        """Adds a regular file.

        Raises:
            DataError: there is another of this name, or there are too many.
        """
        reason = unsafe(name) or ("an archive in the archive" if name.lower().endswith(ARCHIVES) else "")
        if reason:
            self.skip(name, reason)
            return
        simple = "/".join(part for part in name.split("/") if part not in ("", "."))
        if simple in self.members:
            raise DataError(
                f"{self._where}: two members are called {simple!r}; programs disagree on which one is meant"
            )
        self.members[simple] = member
        if len(self.members) > MOST_MEMBERS:
            raise DataError(f"{self._where}: more than {MOST_MEMBERS:,} members; unpack it and name the folder")


def unsafe(name: str) -> str:
    """Why a member of this name is never used; "" if it is harmless."""
    if not name or "\0" in name:
        return "a name that is empty or has a NUL character"
    if name.startswith("/") or re.match(r"[A-Za-z]:[\\/]|\\\\", name):
        return "an absolute name"
    if ".." in re.split(r"[\\/]", name):
        return "a name with .."
    return ""
