"""Archives as folders: the members of a .zip or plain .tar are read in place, by random access.

A path may continue inside an archive that was opened with `open_archive`: DIR/FILE.zip/train/cats/1.jpg. The functions
here take such paths, and give for all others what the functions of `os` give. Nothing is unpacked.
"""

from __future__ import annotations

import io
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from jaxcat.data.archives import compressed, tar_members, zip_members
from jaxcat.data.archives.archive import Archive, state_of
from jaxcat.errors import DataError
from jaxcat.wording import first_few

logger = logging.getLogger(__name__)

_opened: dict[str, Archive] = {}
_SUFFIXES_OF_FILES = (".zip", ".tar", ".csv", ".tsv", ".parquet")  # of a path that was meant to be a file


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
    if not zip_members.is_zip(beginning) and beginning[257:262] != b"ustar" and not tar_members.is_old_tar(beginning):
        return None
    known = _opened.get(os.path.abspath(path))
    if known is None or state_of(os.stat(path)) != known.state:
        known = _opened[os.path.abspath(path)] = Archive(path)
        if known.skipped:
            logger.warning(
                "%s: %s never read: %s",
                path,
                "1 member is" if len(known.skipped) == 1 else f"{len(known.skipped)} members are",
                first_few([f"{name!r} ({reason})" for name, reason in known.skipped]),
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
        return f"there is no such {'file' if path.suffix.lower() in _SUFFIXES_OF_FILES else 'folder'}"
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
