"""Groups of records that count as one: images with the same pixels, and records of one group, such as one patient.

Digests of decoded pixels are kept in the cache, so that a run whose bottlenecks are all there decodes nothing:

    CACHE/pixels/STEPS/NAME.pairs    for each image the digest of how it is stored and that of its pixels, 16 bytes each

STEPS says how the images were decoded. NAME is the hash of the file's content, so a damaged file is noticed and left
out, and two runs that write the same pairs write the same file.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Collection, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
from rich.console import Console

from jaxcat.data.digests import digests_of
from jaxcat.data.images.decoding import DECODE_VERSION, Decoding
from jaxcat.data.records import Split, digest_of
from jaxcat.errors import DataError
from jaxcat.system.console import progress_of
from jaxcat.system.files import NoHomeError, cache_dir, write_bytes

logger = logging.getLogger(__name__)

FOLDER = "pixels"  # in the cache
_SIZE = 16  # bytes of a digest


def groups_of(split: Split, digests: Sequence[bytes], *, console: Console) -> np.ndarray:
    """The group of every record: records with the same decoded pixels, or of the same of `split.groups`, share one.

    Chains count: if A and B have the same pixels, and B and C one group, all three are together. Records whose files
    have the same bytes have the same pixels. Decodes the images whose pixels have no digest in the cache, and adds the
    digests.

    Args:
        split: N records, all of them readable.
        digests: of each record, as `Split.digest` gives it.
        console: where progress is shown if many images are decoded.

    Returns:
        int64 (N,): numbers from 0, in the order in which the groups first appear.

    Raises:
        DataError: an image cannot be read.
    """
    alike = _numbered(_pixels_of(split, digests, console=console))
    if split.groups is None or not len(split):
        return alike
    from scipy.sparse import coo_array  # takes 0.2 s to import, and few data have groups
    from scipy.sparse.csgraph import connected_components

    named = _numbered(split.groups)
    images = int(alike.max()) + 1
    nodes = images + int(named.max()) + 1  # the distinct images, then the groups; a record joins one with the other
    joined = coo_array((np.ones(len(split)), (alike, images + named)), shape=(nodes, nodes))
    return _numbered(connected_components(joined, directed=False)[1][alike].tolist())


def remember(split: Split, digests: Sequence[bytes], pixels: Sequence[bytes]) -> None:
    """Adds the digests of decoded images to the cache; does nothing if it cannot be written.

    Args:
        split: N records.
        digests: of each record, as `Split.digest` gives it.
        pixels: `records.digest_of` of each decoded image.
    """
    if (folder := _folder(split.decoding)) is not None:
        known = _read(folder, set(digests))
        _write(folder, {digest: found for digest, found in zip(digests, pixels, strict=True) if digest not in known})


def known_pixels(digests: Collection[bytes], decoding: Decoding) -> dict[bytes, bytes]:
    """The digests of decoded pixels that the cache has for images with these digests; decodes nothing."""
    folder = _folder(decoding)
    return _read(folder, set(digests)) if folder else {}


def pixels_of(split: Split, *, console: Console) -> list[bytes | None]:
    """The digest of every record's decoded pixels, from the cache or the image; None if it cannot be read."""
    digests = digests_of(split)
    readable = np.array([index for index, digest in enumerate(digests) if digest], np.int64)
    there = split.take(readable)
    pixels = iter(_pixels_of(there, [digest for digest in digests if digest], console=console, damaged=b""))
    return [(next(pixels) or None) if digest else None for digest in digests]


def _pixels_of(
    split: Split, digests: Sequence[bytes], *, console: Console, damaged: bytes | None = None
) -> list[bytes]:
    """The digest of every record's pixels: from the cache, else from the image.

    Args:
        damaged: the value for an image that cannot be decoded; None: an error is raised.
    """
    folder = _folder(split.decoding)
    known = _read(folder, set(digests)) if folder else {}
    missing = {digest: index for index, digest in enumerate(digests) if digest not in known}

    def decoded(index: int) -> tuple[bytes, bytes]:
        try:
            image, digest = split.examine(index)
        except DataError:
            if damaged is None:
                raise
            return digests[index], damaged
        return digest, digest_of(image)

    if missing:
        found: dict[bytes, bytes] = {}
        with (
            progress_of("images compared", total=len(missing), console=console) as advance,
            ThreadPoolExecutor() as threads,
        ):
            for wanted, (digest, pixels) in zip(missing, threads.map(decoded, missing.values()), strict=True):
                found[digest] = known[wanted] = pixels  # the two differ if the file has just been replaced
                advance(1)
        if folder:
            _write(folder, {digest: pixels for digest, pixels in found.items() if pixels})
    return [known[digest] for digest in digests]


def _numbered(names: Iterable[Hashable]) -> np.ndarray:
    """int64 (N,): the number of each name, from 0, in the order in which they first appear."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


# the cache ------------------------------------------------------------------------------------------------------------


def _folder(decoding: Decoding) -> Path | None:
    """The folder of the digests of images decoded in this way; None if there is no cache directory."""
    try:
        steps = f"decode-{DECODE_VERSION}-{decoding.grey_bits}-bits-pillow-{PIL.__version__}"
        return cache_dir() / FOLDER / steps
    except NoHomeError:
        return None


def _read(folder: Path, wanted: Container[bytes]) -> dict[bytes, bytes]:
    """The pairs of the folder whose first digest is wanted; removes damaged files."""
    return {digest: pixels for path in folder.glob("*.pairs") for digest, pixels in _pairs(path) if digest in wanted}


def _pairs(path: Path) -> Iterator[tuple[bytes, bytes]]:
    try:
        content = path.read_bytes()
        if _name(content) != path.name:
            logger.warning("%s is damaged: it is removed, and its images are decoded again where needed", path)
            path.unlink()
            return
    except OSError:  # removed meanwhile, or no access: the images are decoded again
        return
    for at in range(0, len(content), 2 * _SIZE):
        yield content[at : at + _SIZE], content[at + _SIZE : at + 2 * _SIZE]


def _write(folder: Path, pairs: Mapping[bytes, bytes]) -> None:
    content = b"".join(digest + pairs[digest] for digest in sorted(pairs))
    with contextlib.suppress(OSError):  # a full disk or a cache of someone else's: the next run decodes again
        if content:
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / _name(content), content)


def _name(content: bytes) -> str:
    return f"{hashlib.blake2b(content, digest_size=_SIZE).hexdigest()}.pairs"
