"""What the frozen prefix makes of every picture, computed once and kept on disk.

    CACHE/bottlenecks/KEY/key.json      everything that shapes a row except the picture
    CACHE/bottlenecks/KEY/BLOCK.npy     up to 256 rows; read through a memory map
    CACHE/bottlenecks/KEY/BLOCK.json    which rows these are and their checksum; written last: the block is done

A row is found by its identity: a hash of the picture's content and, where views are augmented, of record and view too.
So a changed picture loses its own rows and no others, several data sets share a key, a block is worth the same to any
number of processes, and two runs that write the same block write the same bytes under the same name.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import math
import os
import time
import uuid
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxcat import network
from jaxcat.compilation import compiler_options, installed_versions, xla_flags
from jaxcat.errors import CacheError
from jaxcat.weights.fetch import cache_dir

logger = logging.getLogger(__name__)

FORMAT = 1
BLOCK_ROWS, BLOCK_BYTES = 256, 2**25  # the most of either that a kill can lose
ABANDONED = 24 * 3600  # seconds after which a half-written block must be of a writer that was killed
OPEN_BYTES = 2**31  # mapped at a time: the pages read through maps count as memory of the process

# (numbers (n,), out (n, *shape)): copies the rows with these numbers into `out`; -1 is the last, as in NumPy.
Reader = Callable[[np.ndarray, np.ndarray], object]

# What defines prefix, augmentation and decoding, and which output becomes whose row.
PACKAGE = Path(__file__).parent
SOURCES = (
    "inception.py",
    "network.py",
    "augment.py",
    "images.py",
    "pipeline.py",
    "extraction.py",
    "data/store.py",
    "data/records.py",
)


def key_of(config: ConfigDict, net: network.Network, *, frozen_digests: dict[str, str]) -> dict[str, Any]:
    """Everything that shapes a row except the picture, as plain JSON.

    Args:
        frozen_digests: of the prefix's parameters and statistics, from `checkpoint_meta.digests`; they stand for the
            weights, whatever file or run those came from.
    """
    model, data = config.model, config.data
    code = b"".join((PACKAGE / name).read_bytes() for name in SOURCES)
    return {
        "format": FORMAT,
        "numbers": hashlib.sha256(json.dumps(frozen_digests, sort_keys=True).encode()).hexdigest(),
        "stages": list(net.prefix_stages),
        "width": model.width,
        "pool": [model.pool, model.pool_grid, *net.pooled] if "pool" in net.prefix_stages else None,
        "pool_counts_padding": net.pool_counts_padding,
        "preprocessing": net.preprocessing.to_dict(),
        "image_size": data.image_size,
        "resize": data.resize,
        "augment": data.augment,
        "seed": None if data.augment == "none" else config.seed,
        "compute_dtype": model.dtype,
        "matmul_precision": jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
        "dtype": config.bottleneck.dtype,
        "platform": [jax.default_backend(), jax.devices()[0].device_kind],
        "compiler_options": compiler_options(),
        "xla_flags": xla_flags(),
        "tensorflow_onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", ""),  # colours differ in a few last bits
        "code": hashlib.sha256(code).hexdigest(),
        "versions": installed_versions("jax", "jaxlib", "flax", "numpy", "pillow", "tensorflow", "tensorflow-cpu"),
    }


def identities(digests: Sequence[bytes], *, view: int | None) -> list[bytes]:
    """16 bytes for each record: its digest, or with a view what record number and view make of it."""
    if view is None:
        return list(digests)
    return [
        hashlib.blake2b(digest + np.array([record, view], np.int64).tobytes(), digest_size=16).digest()
        for record, digest in enumerate(digests)
    ]


class Rows:
    """The rows of one key: look up, add, read. Any number of processes may have the same key open.

    Attributes:
        folder: where the blocks lie.
        shape: of a row.
        dtype: float16 or float32.
        row_bytes: size of a row.
        block_rows: rows in a full block.
    """

    def __init__(self, key: dict[str, Any], *, shape: tuple[int, ...]):
        self.shape, self.dtype = tuple(shape), np.dtype(key["dtype"])
        self.row_bytes = math.prod(self.shape) * self.dtype.itemsize
        self.block_rows = max(1, min(BLOCK_ROWS, BLOCK_BYTES // self.row_bytes))
        text = json.dumps(key, indent=1, sort_keys=True)
        name = f"{key['stages'][-1]}-{key['image_size']}px-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.folder = cache_dir() / "bottlenecks" / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            if not (self.folder / "key.json").exists():  # a whole cache of someone else may be read-only
                self._write(self.folder / "key.json", text.encode())
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        self._blocks: list[str] = []
        self._where: dict[bytes, tuple[int, int]] = {}
        most = OPEN_BYTES // (self.block_rows * self.row_bytes)
        self._mapped = functools.lru_cache(maxsize=max(1, min(_open_files() // 4, most)))(self._map)
        self.refresh()

    def _sweep(self) -> None:
        """Remove what killed writers have left: files aside (.BLOCK.npy.ID) and blocks without their marker."""
        alone = (path for path in self.folder.glob("*.npy") if not path.with_suffix(".json").exists())
        for left in itertools.chain(self.folder.glob(".*.*.*"), alone):
            with contextlib.suppress(OSError):  # gone meanwhile, or someone else's
                if time.time() - left.stat().st_mtime > ABANDONED:
                    left.unlink()

    def refresh(self) -> None:
        """Take notice of blocks that others have finished, and drop damaged ones."""
        markers = {path.stem: path for path in self.folder.glob("*.json") if path.name != "key.json"}
        new = sorted(markers.keys() - set(self._blocks))
        with ThreadPoolExecutor() as threads:
            checked = threads.map(self._checked, [markers[name] for name in new])
            for name, found in zip(new, checked, strict=True):
                if found is not None:
                    self._remember(name, found)

    def _checked(self, marker: Path) -> list[bytes] | None:
        """The identities in a block, or None and the block removed where it is not what its marker says."""
        array, reason = marker.with_suffix(".npy"), "not what its marker says"
        try:
            said = json.loads(marker.read_text())
            found = [bytes.fromhex(name) for name in said["rows"]]
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
        with contextlib.suppress(OSError):  # of someone else's; its rows are computed again all the same
            for path in (marker, array):
                path.unlink(missing_ok=True)
        return None

    def _remember(self, name: str, found: Sequence[bytes]) -> None:
        self._blocks.append(name)
        self._where |= {identity: (len(self._blocks) - 1, offset) for offset, identity in enumerate(found)}

    def missing(self, wanted: Sequence[bytes]) -> np.ndarray:
        """bool (n,): which of these rows are not there."""
        return np.array([identity not in self._where for identity in wanted], bool)

    def reader(self, wanted: Sequence[bytes], *, in_memory: bool) -> Reader:
        """Reads rows that are there, by their number in `wanted`: from the memory maps, or all now and kept."""
        positions = np.array([self._where[identity] for identity in wanted], np.intp).reshape(-1, 2)
        if not in_memory:
            return lambda numbers, out: self._gather(positions[numbers], out)
        rows = np.empty((len(wanted), *self.shape), self.dtype)
        self._gather(positions, rows)
        self._mapped.cache_clear()
        return lambda numbers, out: np.take(rows, numbers, axis=0, out=out, mode="wrap")  # "raise" copies twice

    def _gather(self, positions: np.ndarray, out: np.ndarray) -> None:
        """Copy the rows at `positions` (n, 2), block and offset, into `out` (n, *shape)."""
        order = np.argsort(positions[:, 0], kind="stable")
        blocks, offsets = positions[order].T
        starts = np.flatnonzero(np.diff(blocks, prepend=-1)).tolist()
        for start, end in itertools.pairwise([*starts, len(blocks)]):
            out[order[start:end]] = self._mapped(int(blocks[start]))[offsets[start:end]]

    def _map(self, number: int) -> np.ndarray:
        path = self.folder / f"{self._blocks[number]}.npy"
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)  # faster to take rows of
        except OSError as error:
            raise CacheError(
                f"{path}: {error.strerror or error}: was the cache cleared? Run the same command again"
            ) from error

    def add(self, wanted: Sequence[bytes], rows: np.ndarray) -> None:
        """Write a block: `rows` (n, *shape), any floating dtype, under their identities.

        Raises:
            CacheError: the disk is full or cannot be written, with nothing half-written left; or a value does not fit.
        """
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(rows, self.dtype)
        if not np.isfinite(rows).all():
            raise CacheError(
                f"the prefix gives values that {self.dtype} cannot hold: set --config.bottleneck.dtype=float32 if it "
                "is float16; otherwise the weights or the pictures give NaN"
            )
        name = hashlib.blake2b(b"".join(wanted), digest_size=16).hexdigest()
        said = {"rows": [identity.hex() for identity in wanted], "crc32": _checksum(rows)}
        array, marker = self.folder / f"{name}.npy", self.folder / f"{name}.json"
        try:
            self._write(array, rows)
            try:
                self._write(marker, json.dumps(said).encode())
            except OSError:
                with contextlib.suppress(OSError):  # the first error is the one to tell
                    if not marker.exists():  # else another run has written the same block
                        array.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        self._remember(name, wanted)

    def _write(self, path: Path, content: bytes | np.ndarray) -> None:
        """Aside first, so that a name stands for a whole file."""
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # several hosts may share the cache
        try:
            with open(aside, "wb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:  # as np.save does, except that it loses the system's reason where the disk is full
                    header = np.lib.format.header_data_from_array_1_0(content)
                    np.lib.format.write_array_header_1_0(file, header)
                    file.write(content.data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def _open_files() -> int:
    """How many files this process may have open; a memory map is one."""
    try:
        import resource
    except ImportError:  # Windows
        return 1024
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**20 if soft == resource.RLIM_INFINITY else soft


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)


def cannot_write(folder: Path, error: OSError) -> CacheError:
    """What to say when the cache cannot be written."""
    return CacheError(
        f"{folder}: cannot be written: {error.strerror or error}. Free space (python -m jaxcat.cache list), set "
        "JAXCAT_CACHE to another directory, or do without: --config.bottleneck.views=0"
    )
