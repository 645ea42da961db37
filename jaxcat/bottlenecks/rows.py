"""The prefix's output for every image, or one part of it, computed once and kept on disk.

    CACHE/bottlenecks/KEY/key.json      everything that shapes a row except the image
    CACHE/bottlenecks/KEY/BLOCK.npy     up to 256 rows; read through a memory map
    CACHE/bottlenecks/KEY/BLOCK.json    the block's marker, written last: the identities of its rows, and their checksum

A row is found by its identity: a hash of the image's content and, if views are augmented, of record and view numbers.
So a changed image loses only its own rows, several data sets can share a key, any number of processes can use a block,
and two runs that write the same block write the same bytes under the same name.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import math
import time
import zlib
from collections.abc import Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from jaxcat.errors import CacheError, one_line
from jaxcat.system.files import cache_dir, flush, replacing, write_bytes, write_errors_as

logger = logging.getLogger(__name__)
BLOCK_ROWS, BLOCK_BYTES = 256, 2**25  # limits of a block: the most that a killed run can lose
ABANDONED = 24 * 3600  # seconds; the writer of an older half-written block must have been killed
IDENTITY = np.dtype("S16")  # compares as bytes, but an item taken from such an array loses zeros at its end
OPEN_BYTES = 2**31  # bytes mapped at a time: the pages read through maps count as memory of the process


def identities(digests: Sequence[bytes], *, view: int | None) -> list[bytes]:
    """The 16-byte identity of each record: its digest or, with a view, a hash of digest, record number and view."""
    if view is None:
        return list(digests)
    return [
        hashlib.blake2b(digest + np.array([record, view], np.int64).tobytes(), digest_size=16).digest()
        for record, digest in enumerate(digests)
    ]


class Rows:
    """The rows of one key: open, look up, add, read. Any number of processes may have the same key open.

    Attributes:
        folder: the folder of the blocks.
        shape: the shape of a row.
        dtype: float16 or float32.
        row_bytes: bytes of a row.
        block_rows: rows in a full block.
    """

    def __init__(self, key: dict[str, Any], *, shape: tuple[int, ...], beside: int = 0):
        """Reads nothing yet.

        Args:
            key: one of `bottlenecks.key.keys_of`.
            shape: the shape of a row.
            beside: how many other keys are read at the same time; the limits of open maps hold for all of them
                together.
        """
        self.shape, self.dtype = tuple(shape), np.dtype(key["dtype"])
        self.row_bytes = math.prod(self.shape) * self.dtype.itemsize
        self.block_rows = max(1, min(BLOCK_ROWS, BLOCK_BYTES // self.row_bytes))
        text = json.dumps(key, indent=1, sort_keys=True)
        names = [key["stages"][-1], *(key["pool"] or [])[:1], f"{key['image_size']}px"]
        names.append(hashlib.sha256(text.encode()).hexdigest()[:16])
        self.folder = cache_dir() / "bottlenecks" / "-".join(names)
        self._key = text
        self._blocks: list[str] = []
        # Identities in ascending order, and for each the number of its block and its place in it; then the same for
        # blocks found since, in any order. Dictionaries of 22 parts of 200,000 records would take a gigabyte.
        self._known, self._places = np.empty(0, IDENTITY), np.empty((0, 2), np.int32)
        self._new: list[tuple[np.ndarray, np.ndarray]] = []
        most = min(_open_files() // 4, OPEN_BYTES // (self.block_rows * self.row_bytes)) // (1 + beside)
        self._mapped = functools.lru_cache(maxsize=max(1, most))(self._map)

    def open(self) -> None:
        """Makes the folder if it does not exist, and finds the rows that are in it.

        Raises:
            CacheError: the cache cannot be written.
        """
        with writing_to(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            if not (self.folder / "key.json").exists():  # a complete cache of another user may be read-only
                write_bytes(self.folder / "key.json", self._key.encode())
        self.refresh()

    def _sweep(self) -> None:
        """Removes what killed writers left behind: half-written files, and blocks without a marker."""
        alone = (path for path in self.folder.glob("*.npy") if not path.with_suffix(".json").exists())
        for left in itertools.chain(self.folder.glob(".*.*"), alone):
            with contextlib.suppress(OSError):  # already removed, or another user's
                if time.time() - left.stat().st_mtime > ABANDONED:
                    left.unlink()

    def refresh(self, wanted: Sequence[bytes] | None = None) -> None:
        """Finds blocks on disk that are not known yet, and removes damaged ones; adds nothing.

        Args:
            wanted: identities of rows; blocks that have none of them are not read. By default all are read.
        """
        names = None if wanted is None else {identity.hex() for identity in wanted}
        markers = {path.stem: path for path in self.folder.glob("*.json") if path.name != "key.json"}
        new = sorted(markers.keys() - set(self._blocks))
        with ThreadPoolExecutor() as threads:
            checked = threads.map(functools.partial(self._checked, wanted=names), [markers[name] for name in new])
            for name, found in zip(new, checked, strict=True):
                if found is not None:
                    self._remember(name, found)

    def _checked(self, marker: Path, *, wanted: Set[str] | None) -> np.ndarray | None:
        """The identities in a block; None if no row is wanted, or if the block was damaged and has been removed."""
        array, reason = marker.with_suffix(".npy"), "it differs from its marker"
        try:
            said = json.loads(marker.read_text())
            if wanted is not None and wanted.isdisjoint(said["rows"]):
                return None
            found = _array([bytes.fromhex(name) for name in said["rows"]])
            block = np.load(array, mmap_mode="r", allow_pickle=False)
            if (
                block.shape == (len(found), *self.shape)
                and block.dtype == self.dtype
                and _checksum(block) == said["crc32"]
            ):
                return found
        except FileNotFoundError:
            if not marker.exists():
                return None  # someone cleared the cache
        except Exception as error:  # numpy evaluates a header as Python and raises nearly anything for a damaged one
            reason = f"{type(error).__name__}: {error}"
        logger.warning("%s is damaged: its rows are computed again (%s)", array, reason)
        with contextlib.suppress(OSError):  # another user's block; its rows are computed again anyway
            for path in (marker, array):
                path.unlink(missing_ok=True)
        return None

    def _remember(self, name: str, found: np.ndarray) -> None:
        places = np.stack([np.full(len(found), len(self._blocks)), np.arange(len(found))], axis=1).astype(np.int32)
        self._blocks.append(name)
        self._new.append((found, places))

    def _find(self, wanted: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Whether each row is there, bool (n,), and the block and place in it of the m that are, (m, 2)."""
        if self._new:
            known, places = (
                np.concatenate([before, *new])
                for before, new in zip((self._known, self._places), zip(*self._new, strict=True), strict=True)
            )
            order = np.argsort(known, kind="stable")
            self._known, self._places, self._new = known[order], places[order], []
        asked = _array(wanted)
        at = np.searchsorted(self._known, asked)
        there = at < len(self._known)
        there[there] = self._known[at[there]] == asked[there]
        return there, self._places[at[there]]

    def missing(self, wanted: Sequence[bytes]) -> np.ndarray:
        """bool (n,): which of the rows with these identities are not there."""
        return ~self._find(wanted)[0]

    def positions(self, wanted: Sequence[bytes]) -> np.ndarray:
        """Where these rows are, all of which must be there: (n, 2), number of the block and place in it."""
        there, places = self._find(wanted)
        if not there.all():
            raise KeyError(f"{self.folder} lacks {np.count_nonzero(~there)} of {len(there)} rows")
        return places

    def gather(self, positions: np.ndarray, out: np.ndarray) -> None:
        """Copies the rows at `positions` (n, 2) into `out` (n, *shape), which may be flattened: (n, numbers)."""
        order = np.argsort(positions[:, 0], kind="stable")
        blocks, offsets = positions[order].T
        starts = np.flatnonzero(np.diff(blocks, prepend=-1)).tolist()
        for start, end in itertools.pairwise([*starts, len(blocks)]):
            found = self._mapped(int(blocks[start]))[offsets[start:end]]
            out[order[start:end]] = found.reshape(end - start, *out.shape[1:])

    def unmap(self) -> None:
        """Closes all memory maps; `gather` opens those that it needs."""
        self._mapped.cache_clear()

    def _map(self, number: int) -> np.ndarray:
        path = self.folder / f"{self._blocks[number]}.npy"
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)  # to take rows of it is faster
        except OSError as error:
            raise CacheError(f"{path}: {one_line(error)}: was the cache cleared? Run the same command again") from error

    def add(self, wanted: Sequence[bytes], rows: np.ndarray) -> None:
        """Writes a block: `rows` (n, *shape) of any floating dtype, under the identities `wanted`.

        Raises:
            CacheError: the disk is full or not writable (no half-written file is left), or a value does not fit.
        """
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(rows, self.dtype)
        if not np.isfinite(rows).all():
            raise CacheError(
                f"the prefix gives values that {self.dtype} cannot hold: if the dtype is float16, set "
                "--config.bottleneck.dtype=float32; otherwise the weights or the images give NaN"
            )
        name = hashlib.blake2b(b"".join(wanted), digest_size=16).hexdigest()
        said = {"rows": [identity.hex() for identity in wanted], "crc32": _checksum(rows)}
        array, marker = self.folder / f"{name}.npy", self.folder / f"{name}.json"
        with writing_to(self.folder):
            _write_array(array, rows)
            try:
                write_bytes(marker, json.dumps(said).encode())
            except OSError:
                with contextlib.suppress(OSError):  # report the first error, not this one
                    if not marker.exists():  # if it exists, another run has written the same block
                        array.unlink(missing_ok=True)
                raise
        self._remember(name, _array(wanted))


def _write_array(path: Path, array: np.ndarray) -> None:
    """Writes a whole .npy file. Unlike np.save, it keeps the system's error message if the disk is full."""
    with replacing(path) as aside, open(aside, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)
        flush(file)


def _open_files() -> int:
    """How many files this process may have open; a memory map counts as one."""
    try:
        import resource
    except ImportError:  # Windows
        return 1024
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**20 if soft == resource.RLIM_INFINITY else soft


def _array(identities: Sequence[bytes]) -> np.ndarray:
    if any(len(identity) > IDENTITY.itemsize for identity in identities):
        raise ValueError(f"an identity has more than {IDENTITY.itemsize} bytes")  # NumPy would cut it
    return np.array(identities, IDENTITY)


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)


def writing_to(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Turns system errors into one about a cache that cannot be written."""
    advice = (
        ". Free space (python -m jaxcat.cache list), set JAXCAT_CACHE to another directory or, if the head is trained, "
        "do without bottlenecks: --config.bottleneck.views=0"
    )
    return write_errors_as(CacheError, folder, advice)
