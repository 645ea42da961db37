"""The records of a run, remembered in its workdir: DIR/records.jsonl, written once when they are known.

Each line is a JSON object `{"split", "file", "class", "digest"}`: the split, the name relative to the data, the name of
the class, and `Split.digest` of the image in hex, or null for an image of the test split that could not be read. The
meta of every checkpoint has the SHA-256 of the whole file. A file with another digest is not used, so neither damage
nor a list of another run can change what is measured.

The list only names records. No file is opened because the list names it: names and digests are compared with those of
the images that are found in the data.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcat.data.indexing.rules import INDEX_RULES, RULES
from jaxcat.data.records import SPLITS, Split
from jaxcat.errors import CheckpointError, one_line
from jaxcat.runs.meta import Meta
from jaxcat.system.files import flush, replacing
from jaxcat.wording import printable

logger = logging.getLogger(__name__)

FILE = "records.jsonl"
MOST_BYTES = 2**32  # of the file: about 30 million records
MOST_LINE = 2**16  # bytes of a line: a name of 4,096 bytes, each escaped, and a class
EXAMPLES = 3
_DIGEST = re.compile("[0-9a-f]{32}")


class Listed(NamedTuple):
    """The records of one split as they are listed.

    Attributes:
        files: names relative to the data.
        labels: int32 (N,), indices into the class names of the run.
        digests: `Split.digest` of each record; None for a test image that could not be read.
    """

    files: tuple[str, ...]
    labels: np.ndarray
    digests: tuple[bytes | None, ...]


def rules_of(meta: Meta | None) -> int:
    """The version of the indexing rules that a run was made with; for a new run (None), `INDEX_RULES`.

    Raises:
        CheckpointError: a newer version of jaxcat made the run, by rules that this one does not know.
    """
    if meta is None:
        return INDEX_RULES
    rules = meta.records.rules if meta.records else 1
    if rules not in RULES:
        raise CheckpointError(
            f"the records of this run were chosen by version {rules} of the indexing rules, and this jaxcat knows "
            f"versions 1 to {max(RULES)}: use the version of jaxcat that made the run"
        )
    return rules


def lines_of(
    splits: Mapping[str, Split], digests: Mapping[str, Sequence[bytes | None]], *, classes: Sequence[str]
) -> Iterator[str]:
    """The lines of records.jsonl, splits in the order of `SPLITS`; pure ASCII, whatever the names."""
    for name in SPLITS:
        if name in splits:
            split = splits[name]
            for file, label, digest in zip(split.files, split.labels.tolist(), digests[name], strict=True):
                record = {"split": name, "file": file, "class": classes[label], "digest": digest and digest.hex()}
                yield json.dumps(record) + "\n"


def list_digest(lines: Iterable[str]) -> str:
    """SHA-256 of the file that has these lines, in hex."""
    known = hashlib.sha256()
    for line in lines:
        known.update(line.encode())
    return known.hexdigest()


def write_list(workdir: Path, lines: Iterable[str]) -> str:
    """Writes records.jsonl, completely or not at all; returns its SHA-256. Raises OSError if it cannot be written."""
    known = hashlib.sha256()
    with replacing(workdir / FILE) as aside, open(aside, "wb") as file:
        for line in lines:
            known.update(line.encode())
            file.write(line.encode())
        flush(file)  # a checkpoint that names the list must not be on disk before it
    return known.hexdigest()


def read_list(workdir: Path, wanted: str, *, classes: Sequence[str]) -> dict[str, Listed]:
    """The records of a run by split, from the list whose SHA-256 is `wanted`.

    Raises:
        CheckpointError: the list is missing, is not the one that this run wrote, or is no list of records.
    """
    path = workdir / FILE
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:  # a pipe would wait
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
                raise CheckpointError(f"{path}: not a regular file of at most {MOST_BYTES:,} bytes")
            if hashlib.file_digest(file, "sha256").hexdigest() != wanted:
                raise CheckpointError(f"{path}: damaged, or the list of another run")
            file.seek(0)
            return _parsed(iter(lambda: file.readline(MOST_LINE), b""), classes)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a list of records: {one_line(error)}") from error


def _parsed(lines: Iterator[bytes], classes: Sequence[str]) -> dict[str, Listed]:
    """The records by split. Raises ValueError if a line is no record: a hostile list can have the right digest."""
    label = {name: index for index, name in enumerate(classes)}
    found: dict[str, tuple[list[str], list[int], list[bytes | None]]] = {}
    for number, line in enumerate(lines, start=1):
        record = json.loads(line)
        if not _is_record(record, label):
            raise ValueError(f"line {number} is no record")
        files, labels, digests = found.setdefault(record["split"], ([], [], []))
        files.append(record["file"])
        labels.append(label[record["class"]])
        digests.append(bytes.fromhex(record["digest"]) if record["digest"] else None)
    if "train" not in found:
        raise ValueError("it has no records of train")
    return {
        name: Listed(tuple(files), np.array(labels, np.int32), tuple(digests))
        for name, (files, labels, digests) in found.items()
    }


def _is_record(record: Any, label: Mapping[str, int]) -> bool:
    if not isinstance(record, dict) or record.get("split") not in SPLITS:
        return False
    file, digest, class_name = record.get("file"), record.get("digest", ""), record.get("class")
    if not isinstance(file, str) or not isinstance(class_name, str) or class_name not in label or not file:
        return False
    return digest is None or (isinstance(digest, str) and _DIGEST.fullmatch(digest) is not None)


def changed_images(split: Split, digests: Sequence[bytes | None], listed: Listed | None) -> list[str]:
    """Names of the records whose content differs from the list. Names that the list lacks do not count."""
    if listed is None:
        return []
    known = dict(zip(listed.files, listed.digests, strict=True))
    return [
        name
        for name, digest in zip(split.files, digests, strict=True)
        if known.get(name) is not None and known[name] != digest
    ]


def some(names: Sequence[str]) -> str:
    """The first few names, such as `a.jpg, b.jpg, …`."""
    return ", ".join(map(printable, names[:EXAMPLES])) + (", …" if len(names) > EXAMPLES else "")
