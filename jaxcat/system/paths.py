"""Paths: `typed` turns what a user typed into a path, and `plain_link` hides its characters from libraries.

Orbax lists files with `glob`, and TensorStore accepts URLs: to both, some characters of a path mean something else than
to its file system. `plain_link` gives them a path of letters and digits.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jaxcat.errors import CheckpointError, ConfigError, one_line
from jaxcat.wording import printable

LONGEST = 3500  # bytes of a whole path; systems take 4,096, and jaxcat appends names of its own

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

# What libraries misread: Python's glob takes * ? [ ] for patterns, TensorStore turns \ into / and refuses names that
# end in .__lock, and etils takes the folders /gs, /s3, /az and /hf for buckets.
MISREAD = re.compile(r"[*?\[\]\\\x00-\x1f\x7f]|\.__lock(/|$)|^/(gs|s3|az|hf)(/|$)")


def typed(text: str | os.PathLike[str]) -> Path:
    """The absolute path that a user typed in a flag, a setting, an environment variable or a call.

    Every character stands for itself, except for a leading `~` or `~user`, which is that user's home directory. A
    trailing slash makes no difference. Links stay, and `..` goes up from where a link leads, as in a shell command.

    Raises:
        ConfigError: it is empty, a URL, too long, or names a home directory that is not known. The message does not
            name the flag: the caller does.
    """
    return absolute(expanded(text))


def expanded(text: str | os.PathLike[str]) -> Path:
    """What `typed` returns, but a relative path stays relative and any length is accepted.

    For one image of many: names are shown as they were typed, and an impossible name does not stop the others.
    """
    name = os.fspath(text)
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not name:
        raise ConfigError('"": the path is empty; name a file or a directory')
    if "\0" in name:
        raise ConfigError(f"{printable(name)}: a path cannot have a zero byte")
    if URL.match(name):
        local = (
            f": write {printable(name[7:])}" if name.startswith("file:///") else "; copy or mount it and give its path"
        )
        raise ConfigError(f"{printable(name)} is a URL, and jaxcat reads and writes local files only{local}")
    if name.startswith("~"):
        name = _with_home(name)
    return Path(name)


def absolute(path: Path) -> Path:
    """The path from the root; `..` is removed where that does not change what the path means."""
    try:
        whole = os.fspath(path) if path.is_absolute() else os.path.join(os.getcwd(), path)
    except OSError as error:
        raise ConfigError(
            f"{printable(str(path))}: the working directory is gone ({one_line(error)}): change to another"
        ) from error
    _check_length(whole)
    short = os.path.normpath(whole)
    if ".." in Path(whole).parts and os.path.realpath(short) != os.path.realpath(whole):
        return Path(os.path.realpath(whole))  # `link/..` is the parent of where the link leads
    return Path(short)


def _with_home(name: str) -> str:
    """`~/x` and `~user/x` with the home directory; a file of that very name if there is no such user."""
    result = os.path.expanduser(name)
    if result != name:
        return result
    if os.path.lexists(name):
        return os.path.join(os.curdir, name)
    user = name.partition("/")[0]
    if user == "~":
        raise ConfigError(f"{printable(name)}: this user has no home directory: set HOME, or write the whole path")
    raise ConfigError(
        f"{printable(name)}: there is no user {printable(user[1:])!r}; a file of that name is ./{printable(name)}"
    )


def _check_length(name: str) -> None:
    """Raises ConfigError for a name that no file can have, or a link that leads to itself."""
    size = len(os.fsencode(name))
    if size > LONGEST:
        raise ConfigError(f"{printable(name)[:60]}… has {size:,} bytes: a path may have {LONGEST:,}")
    try:
        os.stat(name)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            beginning = printable(name) if len(name) < 200 else f"{printable(name)[:60]}…"
            raise ConfigError(f"{beginning}: {one_line(error)}") from error


def is_misread(path: Path) -> bool:
    """Whether a library may take the path for something else; see `MISREAD`. Undecodable bytes count."""
    text = os.fspath(path)
    return MISREAD.search(text) is not None or any("\ud800" <= character <= "\udfff" for character in text)


@contextlib.contextmanager
def plain_link(folder: Path) -> Iterator[Path]:
    """Yields a path to `folder` that no library misreads: `folder` itself, or for the block a link in a temporary
    directory.

    Raises:
        CheckpointError: a link is needed and cannot be made.
    """
    if not is_misread(folder):
        yield folder
        return
    with contextlib.ExitStack() as stack:
        try:
            temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jaxcat-")))
            link = temporary / "link"
            os.symlink(folder, link, target_is_directory=True)
        except OSError as error:
            raise CheckpointError(
                f"{printable(str(folder))}: libraries misread characters of this path, and no link to it can be made "
                f"in a temporary directory ({one_line(error)}): set TMPDIR to a directory that can be written, or "
                "choose a path of letters and digits"
            ) from error
        if is_misread(link):
            raise CheckpointError(
                f"{printable(str(folder))}: libraries misread characters of this path, and of the temporary directory "
                f"{printable(str(temporary))}: set TMPDIR to a path of letters and digits, or choose another path"
            )
        yield link
