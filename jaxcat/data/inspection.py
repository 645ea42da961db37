"""What `jaxcat check` finds out about data: every image decoded as training would, and what train would refuse."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxcat.data import twins
from jaxcat.data.archives import archives
from jaxcat.data.images import heif
from jaxcat.data.images.decoding import decoding_of, read_file
from jaxcat.data.images.formats import SUFFIXES, open_image
from jaxcat.data.images.grey import deep_files, find_bits
from jaxcat.data.indexing.rules import INDEX_RULES
from jaxcat.data.indexing.skipped import Skipped
from jaxcat.data.indexing.walking import walk
from jaxcat.data.records import Data, Split
from jaxcat.data.sources import open_data
from jaxcat.data.store import refusal
from jaxcat.errors import DataError
from jaxcat.wording import printable

_CHUNK = 1024  # images handed to the threads at a time

# A format's usual suffixes; an image with another one is read all the same.
_USUAL = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif", ".pjp", ".pjpeg"},
    **{"MPO": {".jpg", ".jpeg", ".mpo"}, "PNG": {".png", ".apng"}, "GIF": {".gif"}, "WEBP": {".webp"}},
    **{"BMP": {".bmp", ".dib"}, "TIFF": {".tif", ".tiff"}, "AVIF": {".avif", ".avifs"}, "HEIF": set(heif.SUFFIXES)},
    "JPEG2000": {".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"},
    **{"PPM": {".pbm", ".pgm", ".pnm", ".ppm"}, "ICO": {".ico"}, "CUR": {".cur"}},
}


@dataclass
class Findings:
    """What was found.

    Attributes:
        data: the data as train sees them; if train refuses them, all images below the folder, without classes.
        refusals: why train would refuse the data, one text for each reason; none if it accepts them.
        warnings: what train would warn of.
        skipped: the files that are no records.
        unreadable: one line "file: reason" for each image that cannot be read.
        formats: format → number of images.
        renamed: images whose suffix is that of another format.
        sizes: (width, height, file) of each readable image.
        deep: the 16-bit images.
        grey_bits: the scale of the 16-bit images, as train would choose it.
        groups: images with the same pixels; those with two labels first, then those of two splits.
    """

    data: Data
    refusals: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    skipped: Skipped = field(default_factory=Skipped)
    unreadable: list[str] = field(default_factory=list)
    formats: Counter[str] = field(default_factory=Counter)
    renamed: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int, str]] = field(default_factory=list)
    deep: list[str] = field(default_factory=list)
    grey_bits: int = 16
    groups: list[twins.Group] = field(default_factory=list)

    @property
    def labelled(self) -> bool:
        """Whether train accepts how the folder is arranged. If not, no image need be decoded."""
        return bool(self.data.classes)


def opened(config: Any, *, rules: int = INDEX_RULES) -> Findings:
    """Indexes the data; decodes nothing, and logs no warning.

    Args:
        config: of a run.
        rules: version of the indexing rules.

    Raises:
        ConfigError: the request cannot work.
        DataError: there is no such folder, or no image in it.
    """
    listener = _Listener()
    logger = logging.getLogger("jaxcat.data")
    logger.addHandler(listener)
    logger.propagate, before = False, logger.propagate
    try:
        data = open_data(config, rules=rules)
        return Findings(data, warnings=listener.texts, skipped=data.skipped)
    except DataError as error:
        root = Path(config.data.dir)
        if config.data.source == "table" or not archives.isdir(root):
            raise
        found = _unlabelled(root)
        if not len(found.data.splits["train"]):
            raise
        found.refusals.append(str(error))
        found.warnings = listener.texts
        return found
    finally:
        logger.removeHandler(listener)
        logger.propagate = before


class _Listener(logging.Handler):
    """Collects warnings, except those that `Findings` has in another form."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if not record.name.endswith(".skipped") and not hasattr(record, "listed_by_check"):
            self.texts.append(text)


def _unlabelled(root: Path) -> Findings:
    """All images below a folder that train refuses."""
    skipped, paths, lines = Skipped(), [], []
    for path in walk(root, skipped):
        if isinstance(path, DataError):
            lines.append(str(path))
        else:
            paths.append(path)
    files = tuple(path.relative_to(root).as_posix() for path in paths)
    split = Split("train", files, np.zeros(len(files), np.int32), paths.__getitem__)
    return Findings(Data((), {"train": split}), skipped=skipped, unreadable=lines)


@dataclass(frozen=True)
class _Image:
    """One image: the reason why it cannot be read, or what it is."""

    reason: str
    form: str = ""
    size: tuple[int, int] = (0, 0)
    pixels: bytes | None = None


def decode_all(found: Findings, config: Any, *, jobs: int, progress: Callable[[int], object]) -> None:
    """Decodes every record of findings that are `labelled`, and completes them.

    Args:
        jobs: threads.
        progress: called with the number of images decoded since its last call.
    """
    found.grey_bits = config.data.grey_bits or find_bits(found.data.splits["train"]) or 16
    found.data = found.data.decoded(decoding_of(config)._replace(grey_bits=found.grey_bits))
    splits, alike = found.data.splits, defaultdict(list)
    found.deep = [printable(name) for split in splits.values() for name in deep_files(split)]
    readable: dict[str, list[int]] = {name: [] for name in splits}
    unreadable: dict[str, list[str]] = {name: [] for name in splits}
    for name, split in splits.items():
        for index, image in enumerate(_images(split, jobs, progress)):
            if image.reason:
                unreadable[name].append(image.reason)
                continue
            readable[name].append(index)
            file = split.files[index]
            found.formats[image.form] += 1
            found.sizes.append((*image.size, file))
            alike[image.pixels].append(twins.Record(name, index))
            suffix = Path(file).suffix.lower()
            if suffix in SUFFIXES and suffix not in _USUAL.get(image.form, {suffix}):
                found.renamed.append(f"{printable(file)} ({image.form})")
    found.unreadable += [line for lines in unreadable.values() for line in lines]
    trained_on = [name for name in ("train", "validation") if name in splits]
    lines = [line for name in trained_on for line in unreadable[name]]
    if lines and not config.data.skip_bad:
        total = sum(len(splits[name]) for name in trained_on)
        found.refusals.append(
            f"{len(lines):,} of {total:,} images for training and validation cannot be read (see above)"
        )
    else:
        for name in trained_on:
            left = splits[name].take(np.array(readable[name], np.int64))
            if text := refusal(splits[name], left, unreadable[name]):
                found.refusals.append(text)
    groups = [tuple(group) for group in alike.values() if len(group) > 1]
    found.groups = sorted(groups, key=lambda group: _order(splits, group))


def _order(splits: dict[str, Split], group: twins.Group) -> tuple[bool, bool]:
    return len(twins.labels_of(splits, group)) == 1, len({record.split for record in group}) == 1


def _images(split: Split, jobs: int, progress: Callable[[int], object]) -> Iterator[_Image]:
    def attempt(index: int) -> _Image:
        try:
            image = split.fetch(index)
        except DataError as error:
            return _Image(str(error))
        digest = hashlib.blake2b(f"{image.shape}".encode(), digest_size=16)
        digest.update(image.tobytes())
        height, width = image.shape[:2]
        return _Image("", form_of(split.stored(index)), (width, height), digest.digest())

    with ThreadPoolExecutor(jobs) as pool:
        for start in range(0, len(split), _CHUNK):
            for image in pool.map(attempt, range(start, min(start + _CHUNK, len(split)))):
                progress(1)
                yield image


def form_of(stored: Path | bytes | np.ndarray) -> str:
    """The format of a readable image, as Pillow calls it."""
    if isinstance(stored, np.ndarray):
        return "array"
    with open_image(stored if isinstance(stored, bytes) else read_file(stored)) as image:
        return image.format or "?"


def median_size(sizes: Sequence[tuple[int, int, str]]) -> tuple[int, int, str]:
    """The size in the middle of all, by area."""
    return sorted(sizes, key=lambda size: size[0] * size[1])[len(sizes) // 2]
