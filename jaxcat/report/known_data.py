"""What is known of the run's data besides the records that were measured: other splits, skipped files, twins."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from jaxcat.data.images.decoding import decoding_of
from jaxcat.data.indexing.skipped import Reason
from jaxcat.data.inspection import opened
from jaxcat.data.pixel_groups import known_pixels
from jaxcat.data.records import Split
from jaxcat.errors import JaxcatError
from jaxcat.report.context import Context
from jaxcat.runs.records import Listed, rules_of
from jaxcat.wording import counted

TRAIN = "train"


class Indexed(NamedTuple):
    """The data as they lie there now.

    Attributes:
        train: the records that the run was trained on; None if they are not all there under their names.
        skipped: a line for each reason why files are no records.
    """

    train: Split | None
    skipped: tuple[str, ...]


def indexed(context: Context) -> Indexed | None:
    """Looks through the data of the run once more, without decoding; None if they are elsewhere or other data.

    Only names are compared with the run's list, so the images may have changed; whoever reads them by content sees it.
    """
    if context.workdir is None or not context.own or context.moved is not None:
        return None
    meta = context.classifier.meta
    try:
        found = opened(meta.config, rules=rules_of(meta))
    except JaxcatError:
        return None
    train, listed = found.data.splits.get(TRAIN), (context.listed or {}).get(TRAIN)
    if train is None or not len(train) or found.data.classes != meta.classes:
        train = None
    elif listed is not None and train.files != listed.files:
        places = {name: number for number, name in enumerate(train.files)}
        kept = [places[name] for name in listed.files if name in places]
        train = train.take(np.array(kept)) if len(kept) == len(listed.files) else None
    if train is not None:
        train = dataclasses.replace(train, decoding=decoding_of(meta.config))
    return Indexed(train, (*_skipped(found.skipped), *_not_listed(found.data.splits, context.listed or {})))


def _skipped(skipped: object) -> Iterator[str]:
    """Without the examples, whose paths are those of this machine."""
    for reason in Reason:
        if number := skipped.count(reason):  # type: ignore[attr-defined]
            yield f"{counted(number, 'file')} skipped: {reason.value}"


def _not_listed(splits: Mapping[str, Split], listed: Mapping[str, Listed]) -> Iterator[str]:
    """The images that lie there and are none of the run's records, such as those that `data.skip_bad` left out."""
    known = {file for each in listed.values() for file in each.files}
    for name in listed:
        if name in splits and (number := len(set(splits[name].files) - known)):
            yield f"{counted(number, 'image')} of {name} not used by the run: not readable then, or added later"


class Twin(NamedTuple):
    """A record of the report that is also in another split of the run.

    Attributes:
        number: of the record.
        split, file: the other one.
        label: of the other one.
    """

    number: int
    split: str
    file: str
    label: int


def twins_across(context: Context) -> list[Twin]:
    """The records whose file, or whose decoded pixels, are those of a record of another split.

    Other splits are those that the run has listed, with the digests of their files. Their pixels are compared as far
    as the cache knows them.
    """
    other = {
        name: each for name, each in (context.listed or {}).items() if not context.own or name != context.split.name
    }
    pixels = context.pictures.pixels()
    known = known_pixels([d for each in other.values() for d in each.digests if d], context.split.decoding)
    places: dict[bytes, tuple[str, str, int]] = {}
    for name, each in other.items():
        for file, label, digest in zip(each.files, each.labels.tolist(), each.digests, strict=True):
            for key in (digest, known.get(digest) if digest else None):
                if key:
                    places.setdefault(key, (name, file, label))
    found = []
    for number, (digest, of_pixels) in enumerate(zip(context.digests, pixels, strict=True)):
        if place := places.get(digest) or places.get(of_pixels):
            found.append(Twin(number, *place))
    return found
