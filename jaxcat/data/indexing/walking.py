"""Walks through folders: which entries are seen, which files are images, and which are skipped."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path

from jaxcat.data.archives import archives
from jaxcat.data.indexing import rules_1
from jaxcat.data.indexing.rules import INDEX_RULES, RULES
from jaxcat.data.indexing.skipped import Reason, Skipped, left_behind
from jaxcat.errors import DataError
from jaxcat.wording import first_few, printable

_THUMBNAILS = re.compile(r"[_.~]*(thumbs?|thumbnails?|tn)_*")
_OF_THUMBNAIL = re.compile(r"^(tn|th|thumb|thumbnail)[_-]|[_-](tn|th|thumb|thumbnail)$")


def image_files(directory: Path, skipped: Skipped, *, rules: int = INDEX_RULES) -> Iterator[Path]:
    """Yields what `walk` yields, but raises its first DataError."""
    for found in walk(directory, skipped, rules=rules):
        if isinstance(found, DataError):
            raise found
        yield found


def walk(directory: Path, skipped: Skipped | None, *, rules: int = INDEX_RULES) -> Iterator[Path | DataError]:
    """Yields every file below `directory` with an image's suffix, in sorted order, and adds others to `skipped`.

    It yields a DataError in place of an entry that cannot be listed or examined. Links to directories are followed,
    unless they lead back to a directory that encloses them.
    """
    above = Path(archives.realpath(directory)).parents
    yield from _walk(directory, frozenset(map(str, above)), skipped, rules)


def _walk(
    directory: Path, enclosing: frozenset[str], skipped: Skipped | None, rules: int
) -> Iterator[Path | DataError]:
    real = archives.realpath(directory)
    if real in enclosing:
        return
    try:
        here, unseen = entries(directory, rules=rules)
    except DataError as error:
        yield error
        return
    if skipped is not None:
        skip(unseen, skipped)
    for path in here:
        if archives.isdir(path):
            yield from _walk(path, enclosing | {real}, skipped, rules)
        elif path.suffix.lower() in RULES[rules].suffixes and (archives.isfile(path) or not archives.exists(path)):
            yield path  # also a broken link: decoding then reports it
        elif reason := _stat_error(path):
            yield DataError(f"{printable(str(path))}: {reason}")  # it may be a directory of images
        elif skipped is not None:
            skipped.add_file(path)


def _stat_error(path: Path) -> str:
    """Why an entry cannot be examined, such as a lost mount; "" if it can be, or is a broken link."""
    try:
        archives.stat_file(path)
    except OSError as error:
        return "" if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP) else str(error.strerror)
    return ""


def entries(directory: Path, *, rules: int = INDEX_RULES) -> tuple[list[Path], list[Path]]:
    """The entries of a directory, sorted: those that are seen, and those that are hidden or left by programs.

    Raises:
        DataError: the directory cannot be listed.
    """
    try:
        names = sorted(archives.listdir(directory))
    except OSError as error:
        raise DataError(f"{printable(str(directory))}: {error.strerror}") from error
    seen: list[Path] = []
    unseen: list[Path] = []
    for name in names:
        path = directory / name
        if rules == 1:
            passed_over = rules_1.passed_over(name)
        else:
            folder = archives.isdir(path)
            passed_over = name[0] == "." or left_behind(name, siblings=names, folder=folder, rules=rules)
            passed_over = passed_over or (folder and _holds_thumbnails(path, names, rules=rules))
        (unseen if passed_over else seen).append(path)
    return seen, unseen


def _holds_thumbnails(folder: Path, beside: list[str], *, rules: int) -> bool:
    """Whether a folder has a name for thumbnails, and all images in it have names of images beside it.

    Some gallery programs keep thumbnails so; the name alone may be that of a class.
    """
    suffixes = RULES[rules].suffixes
    if not RULES[rules].stricter or not _THUMBNAILS.fullmatch(folder.name.lower()):
        return False
    shown = {Path(name).stem.lower() for name in beside if Path(name).suffix.lower() in suffixes}
    try:
        small = [Path(name) for name in archives.listdir(folder)]
    except OSError:
        return False
    stems = [_OF_THUMBNAIL.sub("", path.stem.lower()) for path in small if path.suffix.lower() in suffixes]
    return bool(stems) and shown.issuperset(stems)


def folders(directory: Path, *, rules: int = INDEX_RULES) -> list[Path]:
    """The folders in a directory that are seen, sorted. Raises DataError if it cannot be listed."""
    return [path for path in entries(directory, rules=rules)[0] if archives.isdir(path)]


def folders_left(directory: Path) -> str:
    """The end of a message about a folder without class folders, if folders in it are skipped by their names; or ""."""
    here = entries(directory)[1]
    unseen = [printable(path.name) for path in here if path.name[0] != "." and archives.isdir(path)]
    if not unseen:
        return ""
    are = "is" if len(unseen) == 1 else "are"
    return f"; {first_few(unseen)} {are} skipped, as programs call folders of theirs so: rename what you mean"


def skip(unseen: list[Path], skipped: Skipped) -> None:
    """Counts entries that are not seen; of folders, the images in them."""
    names = [path.name for path in unseen]
    for path in unseen:
        if archives.isdir(path):
            left = not path.name.startswith(".") or left_behind(path.name, siblings=names, folder=True)
            skipped.add_folder(path, Reason.LEFT if left else Reason.HIDDEN)
        else:
            skipped.add_file(path, Reason.HIDDEN)


def holds_images(directory: Path, *, below: bool = True, rules: int = INDEX_RULES) -> bool:
    """Whether a folder holds an image; with `below` also those in folders in it."""
    if below:
        return any(isinstance(found, Path) for found in walk(directory, None, rules=rules))
    here, suffixes = entries(directory, rules=rules)[0], RULES[rules].suffixes
    return any(path.suffix.lower() in suffixes and archives.isfile(path) for path in here)
