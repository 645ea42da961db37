"""A NumPy file of features, written row by row: its size is not limited by memory."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jaxcat.errors import ConfigError, JaxcatError
from jaxcat.system.files import replacing, write_errors_as

SUFFIXES = (".npy", ".npz")


def check_features_path(path: Path) -> None:
    """Raises ConfigError if `path` cannot become a features file, as far as that can be told without writing."""
    parent, reason = path.absolute().parent, ""
    if path.suffix.lower() not in SUFFIXES:
        reason = "the name must end in .npy (the features alone) or .npz (features, and files: the names of the images)"
    elif os.path.isdir(path):
        reason = "is a directory; give the name of a file"
    elif not os.path.isdir(parent):
        reason = f"there is no directory {parent}; make it"
    elif not os.access(parent, os.W_OK | os.X_OK):
        reason = f"{parent} cannot be written; give a file elsewhere"
    if reason:
        raise ConfigError(f"--features {path}: {reason}")


@contextlib.contextmanager
def features_file(path: Path, *, count: int) -> Iterator[Callable[[Path, np.ndarray], None]]:
    """Yields a function that adds a row: (path of the image, features (count,)). The file is complete when this ends.

    If the block raises an error, no file is written, and one that was there stays.

    .npy: an array float32 (N, count). .npz: that array as `features`, and the paths as `files`, str (N,).

    Raises:
        JaxcatError: the file cannot be written.
    """
    files: list[str] = []
    with _reported(path), replacing(path) as rows_aside:
        with open(rows_aside, "wb") as file:
            _header(file, 0, count)

            def add(image: Path, features: np.ndarray) -> None:
                with _reported(path):
                    file.write(np.ascontiguousarray(features, "<f4").tobytes())
                files.append(str(image))

            yield add
            file.seek(0)
            _header(file, len(files), count)
        if path.suffix.lower() == ".npz":
            _pack(rows_aside, files)


def _header(file: BinaryIO, rows: int, count: int) -> None:
    """Writes the header of a .npy file; NumPy leaves room in it for any number of rows, so its length is the same."""
    described = {"descr": "<f4", "fortran_order": False, "shape": (rows, count)}
    np.lib.format.write_array_header_1_0(file, described)


def _pack(rows: Path, files: list[str]) -> None:
    """Replaces the .npy file `rows` by a .npz file of it and of the names."""
    with replacing(rows) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        archive.write(rows, "features.npy")
        with archive.open("files.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.array(files, dtype=np.str_), allow_pickle=False)


def _reported(path: Path) -> contextlib.AbstractContextManager[None]:
    return write_errors_as(JaxcatError, f"--features {path}", "; free space or give a file elsewhere")
