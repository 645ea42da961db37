"""Records of any kind of data: splits of named images, class names, and every choice that depends on the seed.

Records to hold out, and those of a subset, are chosen by ranking all records by a hash of (seed, name). The choice
depends neither on listing order nor on NumPy's generators, and a new image displaces at most one other per class.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import hashlib
import logging
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxcat.data.images import heif
from jaxcat.data.images.decoding import Decoding, decode, read_file
from jaxcat.data.indexing.skipped import Skipped
from jaxcat.errors import ConfigError, DataError, one_line
from jaxcat.wording import as_it_looks, printable

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
Stored = Path | bytes | np.ndarray  # an image as it is stored: a file, what a file holds, or pixels


@dataclass(frozen=True)
class Split:
    """The records of one split.

    Attributes:
        name: "train", "validation" or "test"; in evaluation the name of a folder.
        files: N names that identify the records: paths relative to `data.dir`, or names such as "digits/0123".
        labels: int32 (N,), indices into the class names.
        stored: i → the image as it is stored: the path of a file, its encoded bytes, or uint8 (H, W, 3).
        decoding: what settings say about decoding.
        groups: N names; records of one group, such as one patient, are never on both sides of a division. None: every
            record stands for itself.
    """

    name: str
    files: tuple[str, ...]
    labels: np.ndarray
    stored: Callable[[int], Stored]
    _: KW_ONLY
    decoding: Decoding = Decoding()
    groups: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def fetch(self, index: int) -> np.ndarray:
        """The decoded image, uint8 (H, W, 3) of any size. Raises DataError if it is unreadable."""
        stored = self.stored(index)
        return self._decoded(stored, index, shown=stored)

    def digest(self, index: int) -> bytes:
        """A 16-byte hash of the image as it is stored. Raises DataError if the file cannot be read."""
        return digest_of(_read(self.stored(index)))

    def examine(self, index: int) -> tuple[np.ndarray, bytes]:
        """What `fetch` and `digest` give, from one read. Raises DataError if the image is unreadable."""
        stored = self.stored(index)
        content = _read(stored)
        return self._decoded(content, index, shown=stored), digest_of(content)

    def _decoded(self, content: Stored, index: int, *, shown: Stored) -> np.ndarray:
        """Decodes an image; errors name the file if `shown` is a path."""
        return decode(content, str(shown) if isinstance(shown, Path) else self.files[index], self.decoding)

    def take(self, indices: np.ndarray, name: str | None = None) -> Split:
        """The split of these records, in this order."""
        chosen = [int(i) for i in indices]
        files, stored = tuple(self.files[i] for i in chosen), self.stored
        groups = None if self.groups is None else tuple(self.groups[i] for i in chosen)
        return replace(
            self,
            name=name or self.name,
            files=files,
            labels=self.labels[chosen],
            stored=lambda i: stored(chosen[i]),
            groups=groups,
        )


def _read(stored: Stored) -> bytes | np.ndarray:
    """The content of a file; bytes and arrays come back as they are. Raises DataError if the file cannot be read."""
    if not isinstance(stored, Path):
        return stored
    try:
        return read_file(stored)
    except (OSError, ValueError) as error:
        raise DataError(f"{printable(str(stored))}: {one_line(error)}") from error


def digest_of(content: bytes | np.ndarray) -> bytes:
    """A 16-byte hash of an encoded image, or of an array with its type and shape.

    For a HEIC, the hash includes its decoder's version, so that no cache gives what another version has decoded.
    """
    known = hashlib.blake2b(digest_size=16)
    if isinstance(content, np.ndarray):
        known.update(f"{content.dtype} {content.shape} ".encode())
        known.update(np.ascontiguousarray(content).data)
    else:
        known.update(content)
        known.update(heif.decoder_of(content))
    return known.digest()


@dataclass(frozen=True)
class Data:
    """Class names, in the order of the labels, and the splits: always "train" and "validation", perhaps "test".

    "validation" has no records if `data.validation_fraction` is 0.

    Attributes:
        skipped: the files that were found but are no records.
        held_out: whether validation was taken from the images of train.
    """

    classes: tuple[str, ...]
    splits: dict[str, Split]
    skipped: Skipped = field(default_factory=Skipped)
    held_out: bool = False

    def decoded(self, decoding: Decoding) -> Data:
        """The same records, decoded in another way."""
        return replace(self, splits={name: replace(split, decoding=decoding) for name, split in self.splits.items()})


def fingerprint(splits: Mapping[str, Split]) -> str:
    """A hash (32 hex digits) of the names and labels of "train" and "validation", in their order; not of pixels."""
    known = hashlib.blake2b(digest_size=16)
    for name in ("train", "validation"):
        known.update("\0".join([name, *splits[name].files, ""]).encode("utf-8", "surrogateescape"))
        known.update(np.asarray(splits[name].labels, np.int32).tobytes())
    return known.hexdigest()


def order(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits records: a permutation of range(count), int64, set by its arguments alone.

    `seed` and `epoch` are 0 or more.
    """
    return np.random.default_rng([seed, epoch]).permutation(count)


def choose_classes(
    available: Sequence[str], wanted: str, *, advice: str = "check that the data are those you mean"
) -> tuple[str, ...]:
    """The classes named in `data.classes` (all if it is empty), in the order of `available`, not of the flag.

    Names are separated by commas; one that has a comma itself is written in double quotes. Unicode's composed and
    decomposed forms of a name are the same. `advice` ends the message about fewer than two classes.

    Raises:
        ConfigError: a named class is not available.
        DataError: fewer than two classes are left.
    """
    known = {composed(name): name for name in available} | {name: name for name in available}
    names = named_classes(wanted, known)
    for name in names:
        if composed(name) not in known:
            near = difflib.get_close_matches(name, available, n=3, cutoff=0.5) or list(available[:10])
            shown = ", ".join(f'"{one}"' if "," in one else one for one in near)
            quotes = '; write a name with a comma in double quotes, as in "a, b",c' if "," in "".join(known) else ""
            raise ConfigError(f"--config.data.classes={wanted}: there is no class {name!r}; nearest: {shown}{quotes}")
    chosen = {known.get(name, known[composed(name)]) for name in names}
    classes = tuple(name for name in available if name in chosen or not names)
    if len(classes) < 2:
        found = ", ".join(map(repr, classes)) or "none"
        advice = f"check --config.data.classes={wanted}" if wanted else advice
        raise DataError(f"a classifier needs two classes or more; found: {found}; {advice}")
    _warn_of_look_alikes(classes)
    return classes


def _warn_of_look_alikes(classes: Sequence[str]) -> None:
    """Warns of classes whose names look the same, such as one with a space and one with a no-break space."""
    seen: dict[str, str] = {}
    for name in classes:
        other = seen.setdefault(as_it_looks(name), name)
        if other != name:
            logger.warning(
                "the names of classes %r and %r differ only in spaces and joiners: rename one if they are one class",
                *(other, name),
            )


def named_classes(wanted: str, known: Collection[str] = ()) -> list[str]:
    """The names in a value of `data.classes`; those that are known are read first."""
    plain = [name.strip() for name in wanted.split(",") if name.strip()]
    if '"' not in wanted or all(name in known for name in plain):  # a class may have a quotation mark in its name
        return plain
    row = next(csv.reader([" ".join(wanted.splitlines())], skipinitialspace=True), [])
    return [name if name in known else name.strip() for name in row if name.strip()]


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC): systems write é as one character or as two."""
    return unicodedata.normalize("NFC", name)


def printed_order(classes: Sequence[str]) -> list[int]:
    """The labels in the order in which tables show them: names that are numbers by their value, then the others."""

    def key(label: int) -> tuple[bool, float]:
        is_number = re.fullmatch(r"[+-]?\d+(\.\d+)?", classes[label]) is not None
        return not is_number, float(classes[label]) if is_number else 0.0

    return sorted(range(len(classes)), key=key)


def frequent_classes(counts: Mapping[str, int], config: Any) -> tuple[str, ...]:
    """The classes with at least `data.min_per_class` images in train; a warning names the others.

    Args:
        counts: class name → images in train, before any are held out.

    Raises:
        DataError: fewer than two classes are left.
    """
    least = config.data.min_per_class
    rare = [f"{name!r} ({count})" for name, count in counts.items() if count < least]
    classes = tuple(name for name, count in counts.items() if count >= least)
    if rare:
        logger.warning(
            "--config.data.min_per_class=%d leaves out %d of %d classes: %s",
            *(least, len(rare), len(counts), ", ".join(rare)),
        )
    if len(classes) < 2:
        raise DataError(
            f"--config.data.min_per_class={least}: a classifier needs two classes with so many images; there are "
            f"{', '.join(f'{name!r} ({count})' for name, count in counts.items())}"
        )
    return classes


def keep_classes(split: Split, available: Sequence[str], classes: Sequence[str]) -> Split:
    """The records of `classes` only, relabelled from indices into `available` to indices into `classes`."""
    new_label = np.array([classes.index(name) if name in classes else -1 for name in available], np.int32)
    labels = new_label[split.labels]
    kept = np.flatnonzero(labels >= 0)
    return dataclasses.replace(split.take(kept), labels=labels[kept])


def rank_key(seed: int, name: str) -> bytes:
    """The sort key of a name under a seed: a 16-byte hash."""
    return hashlib.blake2b(f"{seed}\0{name}".encode("utf-8", "surrogateescape"), digest_size=16).digest()
