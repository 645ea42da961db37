"""The images of a run's split, searched for by content and then by name among images that may have been moved."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcat.data.archives import archives
from jaxcat.data.digests import digests_of
from jaxcat.data.indexing.walking import walk
from jaxcat.data.records import Split, composed
from jaxcat.data.sources import open_data
from jaxcat.errors import DataError
from jaxcat.runs.meta import Meta
from jaxcat.runs.records import Listed, rules_of, some
from jaxcat.system.console import Console, progress_of
from jaxcat.wording import printable

logger = logging.getLogger(__name__)

MOST_NAMED = 100  # missing images that an error names


def images_of(meta: Meta, config: Any) -> Split:
    """All images of the data that a configuration names, as one split without labels."""
    config = config.copy_and_resolve_references()
    config.data.train_size = config.data.validation_size = 0  # a subset may have been of other images
    splits = open_data(config, rules=rules_of(meta)).splits.values()
    places = [(split, index) for split in splits for index in range(len(split))]
    names = tuple(split.files[index] for split, index in places)
    return _all(names, lambda i: places[i][0].stored(places[i][1]))


def images_below(
    root: Path, where: str, *, rules: int, names: Iterable[str] = (), more: Mapping[str, Path] | None = None
) -> Split:
    """All image files below a folder, as one split without labels.

    Args:
        names: of further files below it, as a table has them.
        more: name → file of images that are elsewhere.
    """
    inside = [name for name in names if not os.path.isabs(name) and ".." not in Path(name).parts]
    paths = [root / name for name in inside if archives.isfile(root / name)]
    for found in walk(root, None, rules=rules):
        if isinstance(found, DataError):
            logger.warning("%s: images there cannot be found", found)
        else:
            paths.append(found)
    paths = list(dict.fromkeys(paths))
    if not paths:
        raise DataError(f"{where}: no images there")
    more = more or {}
    files = (*(path.relative_to(root).as_posix() for path in paths), *more)
    return _all(files, [*paths, *more.values()].__getitem__)


def _all(names: tuple[str, ...], stored: Callable[[int], Any]) -> Split:
    return Split("all", names, np.zeros(len(names), np.int32), stored)


def find(split: str, listed: Mapping[str, Listed], images: Split, *, where: str, complete: bool) -> Split:
    """The records of a split among `images`, with the names and labels of the list.

    An image with the content of a record is that record, whatever its name. Where there is none, the image of the
    record's name is taken, unless its content is that of another record.

    Args:
        complete: whether a missing image is an error; else it is left out with a warning.
    """
    own = listed[split]
    with progress_of("images read", total=len(images), console=Console(stderr=True)) as progress:
        digests = digests_of(images, progress=progress)
    by_name = {composed(name): index for index, name in reversed(list(enumerate(images.files)))}
    by_name |= {name: index for index, name in enumerate(images.files)}
    by_content = {digest: index for index, digest in reversed(list(enumerate(digests))) if digest}
    others = {digest for each in listed.values() for digest in each.digests if digest}
    place: list[int | None] = []
    for name, digest in zip(own.files, own.digests, strict=True):
        named = by_name.get(name, by_name.get(composed(name)))
        same = by_content.get(digest) if digest else None
        if same is not None:
            place.append(named if named is not None and digests[named] == digest else same)
        else:
            place.append(None if named is None or digests[named] in others else named)
    missing = [name for name, index in zip(own.files, place, strict=True) if index is None]
    if missing:
        text = f"{where}: {len(missing):,} of {len(own.files):,} images of the run's {split} split are not there"
        if complete or len(missing) == len(own.files):
            raise DataError(f"{text}, neither by content nor by name:\n{_every(missing)}{_WAYS_OUT}")
        logger.warning("%s and not measured, such as %s", text, some(missing))
    kept = np.array([index for index, found in enumerate(place) if found is not None], np.int64)
    stored = [found for found in place if found is not None]
    return Split(split, tuple(own.files[i] for i in kept), own.labels[kept], lambda index: images.stored(stored[index]))


_WAYS_OUT = "Give the folder that holds all of them; or measure what is there: --data DIR, with DIR/CLASS/… in it"


def _every(names: Sequence[str]) -> str:
    lines = "".join(f"  {printable(name)}\n" for name in names[:MOST_NAMED])
    return lines + (f"  … and {len(names) - MOST_NAMED} more\n" if len(names) > MOST_NAMED else "")
