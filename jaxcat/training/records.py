"""The records of a run: they must stay the same when it continues, and DIR/records.jsonl remembers them."""

from __future__ import annotations

import dataclasses
import functools
import logging
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
from ml_collections import ConfigDict
from rich.console import Console

from jaxcat.data.digests import digests_of
from jaxcat.data.records import Data, Split, fingerprint
from jaxcat.data.streaming import Source
from jaxcat.errors import CheckpointError, ConfigError, DataError
from jaxcat.runs.meta import Meta, Records
from jaxcat.runs.records import (
    FILE,
    changed_images,
    lines_of,
    list_digest,
    read_list,
    rules_of,
    some,
    write_list,
)
from jaxcat.system.console import said_if_long
from jaxcat.system.processes import values_of_processes
from jaxcat.wording import counted

logger = logging.getLogger(__name__)


def records_of(splits: Mapping[str, Split], config: ConfigDict) -> Records:
    """The `Records` that describe these splits, as a new run has them before its list is written."""
    return Records(len(splits["train"]), config.batch_size, fingerprint(splits), rules=rules_of(None))


def check_records(meta: Meta, workdir: Path, *, records: Records) -> Records:
    """Refuses to continue a run on other records: it would skip or repeat some, or validate on trained images.

    Returns:
        `records`, with the rules and the list of the run if it was begun before.

    Raises:
        ConfigError: the run was begun with other records or another batch size.
    """
    before = meta.records
    if before is None:
        return dataclasses.replace(records, rules=rules_of(meta)) if meta.step else records
    now = (records.images, records.batch_size, before.fingerprint and records.fingerprint)
    if now == (before.images, before.batch_size, before.fingerprint):
        return dataclasses.replace(records, rules=before.rules, list_digest=before.list_digest)
    renamed = before.fingerprint not in (None, records.fingerprint)
    raise ConfigError(
        f"--workdir {workdir}: this run was trained on {counted(before.images, 'image')} in batches of "
        f"{before.batch_size}, now there are {records.images:,} in batches of {records.batch_size}"
        f"{', and names or labels have changed' if renamed else ''}: its steps would see other images. "
        "Restore the images, or start from this run in a new --workdir with --config.init_from"
    )


def remember(records: Records, workdir: Path, *, source: Source, data: Data, before: Meta, console: Console) -> Records:
    """Writes DIR/records.jsonl for a run that has none; warns if images have changed since it was written.

    Only process 0 writes, and only its meta goes into checkpoints.

    Args:
        records: from `check_records`; says which list the run has.
        source: gives the records of train and validation and their digests, after `prepare`.
        data: gives the test split, whose digests are computed here.
        before: the meta with which the run begins or continues.
        console: for a line about a run from before there were lists.

    Returns:
        The records, with the digest of the list.

    Raises:
        CheckpointError: the list cannot be written.
        DataError: the processes of the run read other images under the same names.
    """
    _check_same_content(source)
    refusal = ""
    if jax.process_index() == 0:
        splits = {name: source.splits[name] for name in source.splits} | _test(data)
        lines = functools.partial(_lines, splits, source=source, classes=data.classes)
        try:
            if not records.list_digest and before.records and before.records.fingerprint:
                console.print(first_list(records.rules), markup=False)
            with said_if_long(f"comparing the images with {FILE}, or writing it", console=console):
                if records.list_digest:
                    _check_list(workdir, records.list_digest, source=source, lines=lines, classes=data.classes)
                else:
                    records = dataclasses.replace(records, list_digest=write_list(workdir, lines()))
        except OSError as error:
            refusal = f"{workdir / FILE}: cannot be written: {error.strerror}; free space or give access"
    if any(values_of_processes(bool(refusal))):
        raise CheckpointError(refusal or f"--workdir {workdir}: process 0 cannot write {FILE}")
    return records


def first_list(rules: int) -> str:
    """What is said about a run of a version without records.jsonl."""
    return (
        f"records  this run began without {FILE}: its data are indexed by rules {rules}, as when it began, and "
        "names and labels agree with its fingerprint; the list is written now"
    )


def _test(data: Data) -> dict[str, Split]:
    return {"test": data.splits["test"]} if "test" in data.splits else {}


def _lines(splits: Mapping[str, Split], *, source: Source, classes: tuple[str, ...]) -> Iterator[str]:
    """The lines of the list; reads the images of the test split, which `source` has no digests of."""
    digests = dict(source.digests) | ({"test": digests_of(splits["test"])} if "test" in splits else {})
    yield from lines_of(splits, digests, classes=classes)


def _check_same_content(source: Source) -> None:
    """Raises DataError if a process has read other bytes under the same names."""
    known = zlib.crc32(b"".join(digest for name in sorted(source.digests) for digest in source.digests[name]))
    if len(set(values_of_processes(known >> 1))) > 1:
        raise DataError(
            "the processes of this run have read different images under the same names: --config.data.dir must show "
            "every host the same files"
        )


def _check_list(
    workdir: Path, wanted: str, *, source: Source, lines: Callable[[], Iterator[str]], classes: tuple[str, ...]
) -> None:
    """Warns if images have changed since the list was written; writes a lost list again if the records are the same."""
    try:
        listed = read_list(workdir, wanted, classes=classes)
    except CheckpointError as error:
        if list_digest(lines()) == wanted:
            write_list(workdir, lines())
            logger.warning("%s; it was made again from the data and is the same to the byte", error)
        else:
            logger.warning(
                "%s; it cannot be made again, because images have changed since the run began: evaluations of this run "
                "go by names only",
                error,
            )
        return
    for name in source.splits:
        if changed := changed_images(source.splits[name], source.digests[name], listed.get(name)):
            logger.warning(
                "%s of %s images of %s have other content than when the run began, such as %s: from here on the run "
                "uses what is there now",
                *(f"{len(changed):,}", f"{len(source.splits[name]):,}", name, some(changed)),
            )
