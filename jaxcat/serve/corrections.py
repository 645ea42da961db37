"""The corrections of a run: images with the labels that a person gave them, kept in its workdir.

    DIR/corrections/DIGEST.ext         an image as it was sent; DIGEST is the hash of its bytes, ext that of its format
    DIR/corrections/corrections.csv    path and label of each, a table that data.corrections and data.source=table read

Images are kept only when the person has agreed. Nothing here is ever sent back.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from jaxcat.escaping import for_cell, from_cell
from jaxcat.serve.refused import Refused
from jaxcat.system.files import regular_bytes, write_bytes
from jaxcat.system.locks import locked

FOLDER, TABLE = "corrections", "corrections.csv"
MOST_IMAGES = 10_000
MOST_BYTES = 2 * 2**30  # of all images together
MOST_OF_TABLE = 2**25  # bytes
PATIENCE = 10.0  # seconds in which another process must have given the lock back
HEADER = ["path", "label"]
_DIGEST = re.compile("[0-9a-f]{32}")
# Pillow's name of a format → the suffix of its files, which data sets are searched for.
SUFFIXES: Mapping[str, str] = {
    **{"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp", "BMP": ".bmp", "DIB": ".dib"},
    **{"TIFF": ".tif", "AVIF": ".avif", "JPEG2000": ".jp2", "PPM": ".ppm", "ICO": ".ico", "CUR": ".cur"},
    "HEIF": ".heic",
}


def digest_of(content: bytes) -> str:
    """What an image is called: a hash of its bytes, 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class Bounds(NamedTuple):
    """How much is kept at most."""

    images: int = MOST_IMAGES
    size: int = MOST_BYTES


class Corrections:
    """The corrections in one workdir. Every method that changes them holds a lock between processes."""

    def __init__(self, workdir: Path, *, bounds: Bounds | None = None):
        self.folder = workdir / FOLDER
        self.table = self.folder / TABLE
        self._bounds = bounds or Bounds()
        self._pixels: dict[str, bytes] = {}  # of the files kept by this object: the digest of their decoded pixels

    def labels(self) -> dict[str, str]:
        """File name of each image that is kept → its label.

        Raises:
            Refused: the table cannot be read, or is no table of corrections.
        """
        with _reported():
            try:
                # Spreadsheets begin a table with a byte-order mark.
                text = regular_bytes(self.table, most=MOST_OF_TABLE).decode("utf-8-sig")
            except FileNotFoundError:
                return {}
            rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        if not rows or rows[0] != HEADER or any(len(row) != len(HEADER) for row in rows[1:]):
            raise Refused(409, f"{TABLE} has other columns than {' and '.join(HEADER)}: move it out of {FOLDER}")
        return {from_cell(path): from_cell(label) for path, label in rows[1:]}

    def keep(self, content: bytes, form: str, label: str, *, pixels: bytes = b"") -> str:
        """Keeps an image with its label, instead of the label that it had; returns its digest.

        The same happens to an image that this object kept before from another file with the same pixels.

        Args:
            content: the bytes of an image that was decoded.
            form: its format, as Pillow calls it.
            pixels: a digest of its decoded pixels; b"" equals no other.

        Raises:
            Refused: there is no room, or the folder cannot be written.
        """
        digest = digest_of(content)
        name = digest + SUFFIXES[form]
        with self._held():
            labels = self.labels()
            twins = {other for other in labels if pixels and other != name and self._pixels.get(other) == pixels}
            if name not in labels:
                self._check_room(labels, len(content))
            with _reported():
                path = self.folder / name
                if not path.is_file() or path.is_symlink():
                    write_bytes(path, content)  # before the row, so that no row names a file that is not there
                self._write({other: labels[other] for other in labels if other not in twins} | {name: label})
                for other in twins:
                    (self.folder / Path(other).name).unlink(missing_ok=True)
            self._pixels[name] = pixels
        return digest

    def forget(self, digest: str) -> bool:
        """Removes the image with this digest; returns whether there was one."""
        if not _DIGEST.fullmatch(digest):
            return False
        with self._held():
            labels = self.labels()
            names = [name for name in labels if name.partition(".")[0] == digest]
            with _reported():
                if names:
                    self._write({name: label for name, label in labels.items() if name not in names})
                for name in names:
                    (self.folder / Path(name).name).unlink(missing_ok=True)
        return bool(names)

    def _check_room(self, labels: Mapping[str, str], size: int) -> None:
        if len(labels) >= self._bounds.images:
            raise Refused(
                507, f"{len(labels):,} corrections are kept, and no more may be: learn from them, then remove some"
            )
        with _reported():
            sizes = [path.stat().st_size for path in self.folder.iterdir() if path.is_file()]
        if sum(sizes) + size > self._bounds.size:
            raise Refused(507, f"corrections may take {self._bounds.size / 1e6:,.0f} MB: remove some")

    def _write(self, labels: Mapping[str, str]) -> None:
        file = io.StringIO(newline="")
        writer = csv.writer(file)
        writer.writerows([HEADER, *([for_cell(path), for_cell(label)] for path, label in sorted(labels.items()))])
        write_bytes(self.table, file.getvalue().encode())

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Holds the lock while the block runs, and makes the folder if it is missing."""
        end = time.monotonic() + PATIENCE
        with _reported():
            if self.folder.is_symlink():
                raise Refused(409, f"{FOLDER} is a link, and nothing is written through links: remove it")
            self.folder.mkdir(exist_ok=True)
            lock = locked(self.folder / ".lock", waiting=lambda holder: None, stop=lambda: int(time.monotonic() > end))
        with lock as late:
            if late:
                raise Refused(503, "another program holds the corrections; try again", retry_after=1)
            yield


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    """Makes the system's errors refusals, without the paths in them."""
    try:
        yield
    except OSError as error:
        raise Refused(507, f"corrections cannot be kept: {error.strerror or type(error).__name__}") from error
    except (ValueError, csv.Error) as error:
        raise Refused(409, f"{TABLE} cannot be read: move it out of {FOLDER}") from error
