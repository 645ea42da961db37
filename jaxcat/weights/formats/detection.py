"""Detects the format of a file from its bytes, never from its name, and opens it with the right reader."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import h5py

from jaxcat.errors import WeightsError, one_line
from jaxcat.weights.formats import hdf5_file, safetensors_file, torch_file
from jaxcat.weights.formats.contents import Limits, Tensor
from jaxcat.weights.registry import CANONICAL, KERAS_3, KERAS_LEGACY_H5, TORCH

HDF5, KERAS_ARCHIVE, PYTORCH, SAFETENSORS = "HDF5", ".keras archive", "PyTorch", "safetensors"
OF_LAYOUT = {  # the formats that each layout comes in
    KERAS_LEGACY_H5: (HDF5,),
    KERAS_3: (HDF5, KERAS_ARCHIVE),
    TORCH: (PYTORCH, SAFETENSORS),
    CANONICAL: (SAFETENSORS,),
}
MEMBER = "model.weights.h5"  # the one file in a .keras archive that is read
_MAX_DIRECTORY = 2**22  # bytes of a zip archive's list of members; torch writes about 60,000


@contextlib.contextmanager
def open_tensors(path: Path, limits: Limits) -> Iterator[tuple[str, dict[str, Tensor], dict[str, Any]]]:
    """The format of `path`, its tensors by their names in the file, and a canonical file's description, else {}.

    Values can be read only inside the `with`.

    Raises:
        WeightsError: its format is unknown, it is damaged, or it does something that no weights file does.
    """
    kind = file_format(path)
    if kind in (HDF5, KERAS_ARCHIVE):
        with _hdf5(path, _member(path, limits) if kind == KERAS_ARCHIVE else path, limits) as tensors:
            yield kind, tensors, {}
    elif kind == PYTORCH:
        yield kind, torch_file.read_pth(path), {}
    else:
        yield kind, *safetensors_file.read(path)


def file_format(path: Path) -> str:
    """`HDF5`, `KERAS_ARCHIVE`, `PYTORCH` or `SAFETENSORS`, from the first bytes.

    Raises:
        WeightsError: it is none of them; the message says what it looks like.
    """
    try:
        kind = looks_like(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {one_line(error)}; see --config.model.weights") from error
    if kind in (HDF5, KERAS_ARCHIVE, PYTORCH, SAFETENSORS):
        return kind
    raise WeightsError(
        f"{path} is {kind}, not a weights file: set --config.model.weights to an .h5, .weights.h5, "
        ".keras, .pth or .safetensors file or to the name of published weights"
    )


def looks_like(path: Path) -> str:
    """One of the formats, or in words what else it seems to be. Raises OSError if it cannot be read."""
    with open(path, "rb") as file:
        head = file.read(512)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return HDF5
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size:
        return SAFETENSORS  # tested before the others: its first bytes are a length, so they may be any bytes
    if head.startswith(b"PK"):
        return _archive(path)
    if head.startswith(b"\x80"):
        return PYTORCH
    if not head:
        return "an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer in place of the file it stands for"
    if b"\0" not in head:
        return "a web page" if head.lstrip().lower().startswith((b"<!doctype", b"<html")) else "a text file"
    return "of an unknown format"


def _archive(path: Path) -> str:
    if _directory_size(path) > _MAX_DIRECTORY:  # it is parsed whole, into far more memory than it takes on disk
        return "a zip archive of more members than any weights file has"
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except Exception:  # zipfile raises nearly every kind on damaged files
        return "a zip archive cut short, perhaps of PyTorch or Keras 3"
    if any(member.endswith("data.pkl") for member in members):
        return PYTORCH
    return KERAS_ARCHIVE if MEMBER in members else "a zip archive"


def _directory_size(path: Path) -> int:
    """The size of a zip archive's list of members: the largest that an end record states; 0 without an end record."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 2**16 - 100))
        tail, sizes = file.read(), [0]
        for end in re.finditer(rb"PK\x05\x06", tail):  # zipfile decides which of several is valid
            at = end.start()
            sizes.append(int.from_bytes(tail[at + 12 : at + 16], "little"))
            if tail[at - 20 : at - 16] == b"PK\6\7":  # zip64: a record before the end has the size in 8 bytes
                where = int.from_bytes(tail[at - 12 : at - 4], "little")
                file.seek(min(where, path.stat().st_size))
                records = (tail[max(0, at - 76) : at - 20], file.read(56))
                sizes += [int.from_bytes(record[40:48], "little") for record in records]
    return max(sizes)


def _member(path: Path, limits: Limits) -> BinaryIO:
    """The weights inside a .keras archive, in memory; its config and anything else stay unread."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(MEMBER)
            size = member.file_size
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without limit
                raise WeightsError(f"{path}: {MEMBER} is packed otherwise than with deflate; Keras does not pack it")
            if size > limits.size:
                raise WeightsError(
                    f"{path}: {MEMBER} has {size:,} bytes unpacked; this backbone has less than {limits.size:,}. Is "
                    "it of another backbone? See --config.model.backbone"
                )
            content = io.BytesIO()
            with archive.open(MEMBER) as file:
                shutil.copyfileobj(file, content, 2**20)  # read() would hold all of it twice
            return content
    except WeightsError:
        raise
    except Exception as error:  # zipfile raises nearly every kind on damaged files
        raise _unreadable(path, error) from error


@contextlib.contextmanager
def _hdf5(path: Path, source: Path | BinaryIO, limits: Limits) -> Iterator[dict[str, Tensor]]:
    hdf5_file.probe(path, source, limits)
    try:
        with h5py.File(source, "r") as file:
            yield hdf5_file.tensors(file, path=path)
    except WeightsError:
        raise
    except Exception as error:  # h5py passes on nearly every kind for damaged files
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path} cannot be read as HDF5; it may be incomplete: {one_line(error)}")
