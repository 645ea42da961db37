"""Reads untrusted HDF5 files: checks what a file would make libhdf5 do before libhdf5 does it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import math
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from jaxcat.errors import WeightsError
from jaxcat.system.files import NoHomeError, cache_dir
from jaxcat.weights.formats.contents import MAX_TENSORS, Limits, Tensor

# libhdf5 loads any other filter as a plugin, that is, runs code from a shared library on this machine.
_FILTERS = {h5py.h5z.FILTER_DEFLATE: "deflate", h5py.h5z.FILTER_SHUFFLE: "shuffle"}

PROBED = "probed"  # folder in the cache

MAX_PARTS = 2**17  # stored pieces of all arrays in one file; Keras writes one per array
MAX_PIECE = 2**24  # values in one stored piece, unless the whole array has more; HDF5 holds a piece in memory whole

_PROBE = Path(__file__).with_name("hdf5_probe.py")
_SECONDS = 300  # wall time; the probe itself has a limit of processor time


def probe(path: Path, file: Path | BinaryIO, limits: Limits) -> None:
    """Lets another process read the file first (0.5 s): libhdf5 loops for ever or crashes on some damaged files.

    The cache remembers content that the process has read to its end, so that each file costs this once.

    Args:
        path: the file of the user's.
        file: the HDF5 file: `path` itself, or a member of it in memory.
        limits: those of the backbone.

    Raises:
        WeightsError: that process failed, crashed or did not end.
    """
    mark = _mark(path, limits)
    if mark is not None and mark.exists():
        return
    environment = os.environ | {"HDF5_PLUGIN_PRELOAD": "::"}  # load no plugins
    content = file.getbuffer() if isinstance(file, io.BytesIO) else b""
    # Bytes beyond its imports: half a GiB or, if more, the content (which grows as it arrives) and the largest array.
    memory = max(2**29, len(content) * 9 // 8 + 8 * limits.values)
    seconds = -(-limits.size // 2**26)  # of processor time, gzip included; an undamaged file takes a fifth of it
    command = [sys.executable, str(_PROBE), "-" if isinstance(file, io.BytesIO) else str(file)]
    command += map(str, (limits.values, memory, seconds))
    try:
        done = subprocess.run(command, input=content, env=environment, capture_output=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise WeightsError(f"{path} is damaged: the HDF5 library does not finish reading it") from error
    if done.returncode > 0:
        reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise WeightsError(f"{path} cannot be read as HDF5; it may be incomplete: {reason}")
    if done.returncode < 0:
        raise WeightsError(f"{path} is damaged: the HDF5 library crashes on it, with signal {-done.returncode}")
    if mark is not None:
        with contextlib.suppress(OSError):  # a cache prepared by someone else may be read-only
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()


def _mark(path: Path, limits: Limits) -> Path | None:
    """The file in the cache that exists if this content was read to its end, by the same probe and libraries.

    None if there is no cache directory, or if the file is too large to be hashed first.
    """
    try:
        if path.stat().st_size > limits.size:
            return None
        with open(path, "rb") as file:
            known = hashlib.file_digest(file, "sha256")
        known.update(f"{h5py.version.version} {h5py.version.hdf5_version} {limits}".encode() + _PROBE.read_bytes())
        return cache_dir() / PROBED / known.hexdigest()
    except (OSError, NoHomeError):
        return None


def tensors(file: h5py.File, *, path: Path) -> dict[str, Tensor]:
    """Every data set in the file by its full name; links to other places and files are not followed.

    Raises:
        WeightsError: a data set keeps its values in another file or shares bytes with another one. `Tensor.read` raises
            it if the data set is packed otherwise than with gzip, unpacks to another size, is stored in pieces larger
            than itself, or lacks values.
    """
    found: dict[str, Tensor] = {}
    stored: list[tuple[int, int, str]] = []

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        if len(found) >= MAX_TENSORS:
            raise WeightsError(f"{path} holds more than {MAX_TENSORS:,} arrays: more than any weights file")
        chunks = _chunks(item)
        found[name] = _tensor(name, item, chunks, path=path)
        stored.extend((start, start + size, name) for start, size in _places(item, chunks))
        if len(stored) > MAX_PARTS:
            raise WeightsError(f"{path} holds arrays in more than {MAX_PARTS:,} parts: no weights file has so many")

    file.visititems(visit)  # walks what is in this file: soft and external links are not followed
    for (_, end, name), (start, _, other) in itertools.pairwise(sorted(stored)):
        if start < end:
            raise WeightsError(f"{path} is damaged: tensors {name} and {other} are stored in the same bytes")
    return found


def _places(item: h5py.Dataset, chunks: list[h5py.h5d.StoreInfo]) -> Iterator[tuple[int, int]]:
    """Offset and size in the file of every stored part."""
    if item.chunks is not None:
        yield from ((chunk.byte_offset, chunk.size) for chunk in chunks)
    elif (offset := item.id.get_offset()) is not None and item.id.get_storage_size():
        yield offset, item.id.get_storage_size()


def _chunks(item: h5py.Dataset) -> list[h5py.h5d.StoreInfo]:
    """The stored parts of a data set; empty if it is stored in one piece.

    libhdf5 lists them in one pass. If asked for parts by number, it makes a pass for each, which takes minutes for
    many.
    """
    chunks: list[h5py.h5d.StoreInfo] = []

    def add(chunk: h5py.h5d.StoreInfo) -> bool | None:
        chunks.append(chunk)
        return True if len(chunks) > MAX_PARTS else None  # anything but None ends the walk

    if item.chunks is not None:
        item.id.chunk_iter(add)
    return chunks


def _tensor(name: str, item: h5py.Dataset, chunks: list[h5py.h5d.StoreInfo], *, path: Path) -> Tensor:
    if item.external or item.is_virtual:
        raise WeightsError(f"{path}: the values of tensor {name} lie in another file; only whole files are read")

    def read() -> np.ndarray:
        values = _checked_values(name, item, chunks, path=path)
        return (item[()] if values is None else values).astype(np.float32, copy=False)

    return Tensor(item.shape or (), item.dtype.name, read)


def _checked_values(
    name: str, item: h5py.Dataset, chunks: list[h5py.h5d.StoreInfo], *, path: Path
) -> np.ndarray | None:
    """Refuses a data set that would run code, unpack without limit, or get zeros in place of missing values.

    Returns:
        The values of a data set that is packed with gzip, since they were unpacked for the check; None for any other.
    """
    properties = item.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if not set(filters) <= _FILTERS.keys() or len(set(filters)) < len(filters):
        raise WeightsError(f"{path}: tensor {name} is packed with an HDF5 filter other than gzip; write it without one")
    if item.chunks is None:
        if item.id.get_storage_size() != item.size * item.dtype.itemsize:
            raise WeightsError(f"{path}: tensor {name} is declared, but its values are missing")
        return None
    if math.prod(item.chunks) > max(item.size, MAX_PIECE):
        raise WeightsError(f"{path}: tensor {name} is stored in pieces larger than itself")
    expected = math.prod(-(-side // chunk) for side, chunk in zip(item.shape, item.chunks, strict=True))
    if len(chunks) != expected:
        raise WeightsError(f"{path}: tensor {name} has {len(chunks)} of {expected} stored parts")
    if h5py.h5z.FILTER_DEFLATE not in filters:
        return None
    # libhdf5 grows its buffer until the stream ends, however little the chunk should hold
    limit = math.prod(item.chunks) * item.dtype.itemsize
    left_out = 1 << filters.index(h5py.h5z.FILTER_DEFLATE)  # the mask of a chunk that packing would not shrink
    plain = filters == [h5py.h5z.FILTER_DEFLATE] and item.id.get_type().equal(h5py.h5t.py_create(item.dtype))
    values = np.empty(item.shape, item.dtype) if plain else None
    for chunk in chunks:
        if chunk.size > limit + limit // 100 + 64:  # deflate never adds more than that
            raise WeightsError(f"{path}: tensor {name} is packed into more bytes than it has")
        packed = chunk.filter_mask != left_out
        content = item.id.read_direct_chunk(chunk.chunk_offset)[1] if packed or values is not None else b""
        content = _unpacked(content, limit) if packed else content
        if (chunk.size if values is None and not packed else len(content)) != limit:
            raise WeightsError(f"{path}: tensor {name} unpacks to more or less than its {limit:,} bytes")
        if values is not None:
            _place(content, values, chunk.chunk_offset, item.chunks)
    return values


def _place(content: bytes, values: np.ndarray, offset: tuple[int, ...], sides: tuple[int, ...]) -> None:
    """Copies the values of a chunk, which begins at `offset`, to their places; what lies beyond the edge is padding."""
    chunk = np.frombuffer(content, values.dtype).reshape(sides)
    place = tuple(slice(start, start + side) for start, side in zip(offset, sides, strict=True))
    target = values[place]
    target[...] = chunk[tuple(slice(side) for side in target.shape)]


def _unpacked(packed: bytes, size: int) -> bytes:
    """The unpacked bytes; those of a stream that is cut short or too long are never `size` bytes."""
    stream = zlib.decompressobj()
    content = stream.decompress(packed, size + 1)
    return content if stream.eof else b""
