"""The cache directory, and replacement of files: completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from jaxcat.errors import ConfigError, JaxcatError, one_line
from jaxcat.system import paths

ASIDE = ".aside"  # suffix of files that are not complete yet
_unplaced: set[Path] = set()  # what the present blocks of `placing` make


def never() -> int:
    """A `stop` function that never asks to stop: it always returns 0."""
    return 0


class NoHomeError(ConfigError):
    """The cache directory is not known. Work that only gains speed from a cache continues without one."""


def cache_dir() -> Path:
    """`$JAXCAT_CACHE`, or the platform's cache directory for jaxcat. It need not exist.

    A relative path counts from the working directory at the first call, whatever that is later.

    Raises:
        ConfigError: JAXCAT_CACHE is no path.
        NoHomeError: JAXCAT_CACHE is not set, and this user has no home directory.
    """
    if wanted := os.environ.get("JAXCAT_CACHE", ""):
        return _cache_of(wanted)
    try:
        usual = Path(platformdirs.user_cache_dir("jaxcat"))
    except RuntimeError:  # of newer versions; older ones leave the ~ in ~/.cache
        usual = Path("~")
    if not usual.is_absolute():
        raise NoHomeError("this user has no home directory to keep a cache in: set JAXCAT_CACHE to a directory")
    return usual


def cannot_be_made(folder: Path) -> str:
    """Makes a directory, if it is not there; why that is not possible, or ""."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return str(error.strerror)
    return ""


@functools.cache
def _cache_of(wanted: str) -> Path:
    try:
        return paths.typed(wanted)
    except ConfigError as error:
        raise ConfigError(f"JAXCAT_CACHE={error}") from error


def json_digest(plain: Any) -> str:
    """SHA-256 of plain JSON, as hexadecimal digits; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def write_errors_as(kind: type[JaxcatError], where: Path | str, advice: str = "") -> Iterator[None]:
    """Turns an OSError of the block into an error of this kind, which says what cannot be written, why and what to do.

    `advice` is what to do, with the punctuation before it; it may be empty.
    """
    try:
        yield
    except OSError as error:
        raise kind(f"{where}: cannot be written: {one_line(error)}{advice}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a new name beside `path` to write to; at the end of the block, the new file replaces `path`.

    If the block raises an error, `path` stays as it was and the new file is removed. The name is random, so that a
    link that someone planted in a workdir is never followed.
    """
    aside = path.with_name(f".{uuid.uuid4().hex}{ASIDE}")
    try:
        yield aside
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def placing(path: Path) -> Iterator[Path]:
    """Yields a new name beside `path` for a file or a folder; at the end of the block it becomes `path`.

    If the block raises an error, or `path` exists by then, what was made is removed.

    Raises:
        FileExistsError: there is something at `path`.
    """
    aside = path.with_name(f".{uuid.uuid4().hex}{ASIDE}{path.suffix}")  # some writers look at the suffix
    _unplaced.add(aside)
    try:
        yield aside
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        os.rename(aside, path)
    finally:
        _remove(aside)
        _unplaced.discard(aside)


def remove_unplaced() -> None:
    """Removes what blocks of `placing` have made so far; for a process that is about to end without leaving them."""
    for aside in list(_unplaced):
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file completely, or leaves the old one."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file completely, or leaves the old one; the file is on the disk when this returns."""
    with replacing(path) as aside, open(aside, "wb") as file:
        file.write(content)
        flush(file)


def regular_bytes(path: Path, *, most: int) -> bytes:
    """The content of a regular file. A workdir may come from anywhere, and a pipe in it would wait.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, or larger than `most` bytes.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            raise ValueError(f"not a regular file of at most {most:,} bytes")
        return file.read()


def flush(file) -> None:
    """Flushes what was written to a file to the disk."""
    file.flush()
    os.fsync(file.fileno())
