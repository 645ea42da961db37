"""A description in a zip archive after the end of a file, for formats whose own readers do not look there.

TensorFlow Lite keeps its metadata so. `zipfile.ZipFile(path).read("jaxcat.json")` reads the description.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

DESCRIPTION, LABELS = "jaxcat.json", "labels.txt"


def append(path: Path, text: str, *, classes: Sequence[str]) -> None:
    """Appends a description, and the names of the classes where other programs look for them, one a line."""
    with zipfile.ZipFile(path, "a") as archive:  # of a file that is no archive: one is appended
        archive.writestr(DESCRIPTION, text)
        if classes:
            archive.writestr(LABELS, lines(classes))


def lines(classes: Sequence[str]) -> bytes:
    """Names one a line, UTF-8; a line break in a name becomes a space, and undecodable bytes stay what they are."""
    return "".join(" ".join(name.splitlines()) + "\n" for name in classes).encode(errors="surrogateescape")
