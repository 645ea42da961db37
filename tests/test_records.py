"""DIR/records.jsonl: what a run remembers of its records, and lists that are lost, damaged, foreign or hostile."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import small
import small_bottlenecks
from rich.console import Console
from small_run import config as run_config

from jaxcat.data import records as data_records
from jaxcat.data.indexing.rules import INDEX_RULES, RULES
from jaxcat.data.records import Split
from jaxcat.data.sources import open_data
from jaxcat.data.streaming import Streaming
from jaxcat.errors import CheckpointError, DataError
from jaxcat.runs import meta as checkpoint_meta
from jaxcat.runs import records, workdir
from jaxcat.system.devices import make_mesh
from jaxcat.train import train
from jaxcat.training import records as training_records
from jaxcat.training.records import remember

SILENT = Console(quiet=True)


def last_meta(folder: Path) -> checkpoint_meta.Meta:
    return checkpoint_meta.read_meta(folder, workdir.steps(folder)[-1])


def of_files(folder: Path) -> dict[str, str]:
    """Name → digest of every image, without jaxcat."""
    return {
        path.relative_to(folder).as_posix(): hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        for path in folder.rglob("*.png")
    }


def test_a_run_lists_split_name_class_and_digest_of_each_record(finished, folder):
    lines = [json.loads(line) for line in (finished / "records.jsonl").read_text().splitlines()]
    assert {line["file"]: line["digest"] for line in lines} == of_files(folder)
    assert all(line["file"].startswith(f"{line['split']}/{line['class']}/") for line in lines)
    known = last_meta(finished).records
    assert known.list_digest == hashlib.sha256((finished / "records.jsonl").read_bytes()).hexdigest()
    assert known.rules == INDEX_RULES


@pytest.mark.parametrize("kind", ["images", "bottlenecks"])
def test_each_image_is_read_no_more_often_than_without_the_list(folder, kind, empty_cache, monkeypatch):
    """Once to decode and digest it; with bottlenecks once to look for its row, and then once to decode it."""
    config = small_bottlenecks.config_of(folder)
    if kind == "images":
        source, expected = Streaming(config, open_data(config), mesh=make_mesh()), 1
    else:
        source, expected = small_bottlenecks.made(config), 2
    reads: list[Path] = []
    read = data_records.read_file
    monkeypatch.setattr(data_records, "read_file", lambda path: reads.append(path) or read(path))
    assert (source.prepare if kind == "images" else source.look_up)(SILENT) == 0
    found = {
        name: digest.hex()
        for split in ("train", "validation")
        for name, digest in zip(source.splits[split].files, source.digests[split], strict=True)
    }
    assert found == of_files(folder)
    assert [reads.count(folder / name) for name in found] == [expected] * len(found) == [expected] * 36


def test_unreadable_images_that_are_left_out_are_not_listed(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "images")
    (copied / "train/disc/003.png").write_bytes(b"no image")
    config = small.tiny_config(copied)
    config.data.skip_bad = True
    source = Streaming(config, open_data(config), mesh=make_mesh())
    assert source.prepare(SILENT) == 0
    train_split = source.splits["train"]
    assert len(source.digests["train"]) == len(train_split) == 23
    assert source.digests["train"] == tuple(train_split.digest(index) for index in range(23))


def made(names: dict[str, list[str]], contents: dict[str, bytes]) -> SimpleNamespace:
    """A source as it is after `prepare`; the class of a record is the first letter of its name."""
    splits = {
        split: Split(split, tuple(files), np.array([0 if file[0] == "a" else 1 for file in files]), None)
        for split, files in names.items()
    }
    digest = {name: hashlib.blake2b(content, digest_size=16).digest() for name, content in contents.items()}
    return SimpleNamespace(splits=splits, digests={split: [digest[f] for f in files] for split, files in names.items()})


NAMES = {"train": ["a1", "b1"], "validation": ["a2", "b\udcff2\n"]}
CONTENTS = {name: name.encode("utf-8", "surrogateescape") for files in NAMES.values() for name in files}
DATA = SimpleNamespace(classes=("a", "b"), splits={})
NEW = checkpoint_meta.Records(2, 8, "f" * 32, rules=1)


def remembered(folder: Path, before: checkpoint_meta.Records | None = None, **changed: bytes):
    source = made(NAMES, CONTENTS | changed)
    meta = SimpleNamespace(records=before)
    return remember(before or NEW, folder, source=source, data=DATA, before=meta, console=SILENT)


def test_what_is_written_is_read_back_whatever_the_names(tmp_path):
    known = remembered(tmp_path)
    found = records.read_list(tmp_path, known.list_digest, classes=("a", "b"))
    source = made(NAMES, CONTENTS)
    for split, files in NAMES.items():
        assert found[split].files == tuple(files)
        assert found[split].labels.tolist() == [0, 1]
        assert list(found[split].digests) == source.digests[split]
    assert (tmp_path / "records.jsonl").read_bytes().isascii()


def test_the_test_split_is_listed_too_with_null_for_what_cannot_be_read(tmp_path):
    (tmp_path / "good.png").write_bytes(b"good")
    paths = [tmp_path / "good.png", tmp_path / "missing.png"]
    test = Split("test", ("good.png", "missing.png"), np.array([0, 1]), paths.__getitem__)
    source, meta = made(NAMES, CONTENTS), SimpleNamespace(records=None)
    data = SimpleNamespace(classes=("a", "b"), splits={"test": test})
    known = remember(NEW, tmp_path, source=source, data=data, before=meta, console=SILENT)
    found = records.read_list(tmp_path, known.list_digest, classes=("a", "b"))
    assert found["test"].digests == (hashlib.blake2b(b"good", digest_size=16).digest(), None)


def test_a_list_is_written_once_and_changed_images_are_named(tmp_path, caplog):
    known = remembered(tmp_path)
    before = (tmp_path / "records.jsonl").stat()
    assert remembered(tmp_path, known) == known
    assert not caplog.records
    assert remembered(tmp_path, known, b1=b"turned") == known
    assert "1 of 2 images of train have other content than when the run began, such as b1" in caplog.text
    assert (tmp_path / "records.jsonl").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("damage", ["gone", "changed", "of another run"])
def test_a_lost_list_is_made_again_if_the_images_are_the_same(tmp_path, caplog, damage):
    known = remembered(tmp_path)
    path, before = tmp_path / "records.jsonl", (tmp_path / "records.jsonl").read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(before[:-9] if damage == "changed" else b"")
    assert remembered(tmp_path, known) == known
    assert path.read_bytes() == before
    assert "made again" in caplog.text


def test_a_lost_list_of_images_that_have_changed_is_not_made_up(tmp_path, caplog):
    known = remembered(tmp_path)
    (tmp_path / "records.jsonl").unlink()
    assert remembered(tmp_path, known, a1=b"turned") == known
    assert not (tmp_path / "records.jsonl").exists()
    assert "cannot be made again, because images have changed" in caplog.text


def test_a_list_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "records.jsonl").mkdir()
    with pytest.raises(CheckpointError, match=r"records.jsonl: cannot be written: .*directory"):
        remembered(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["records.jsonl"]


def test_processes_that_read_other_bytes_under_the_same_names_are_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(training_records, "values_of_processes", lambda value: [value, value + 1])
    with pytest.raises(DataError, match="different images under the same names"):
        remembered(tmp_path)


def signed(folder: Path, text: bytes) -> str:
    """A workdir from elsewhere can have any list, and a meta that names its digest."""
    (folder / "records.jsonl").write_bytes(text)
    return hashlib.sha256(text).hexdigest()


GOOD = {"split": "train", "file": "a1", "class": "a", "digest": "0" * 32}
LINES = [
    b"",
    b"\x00",
    b"[]",
    b"null",
    b"{",
    b"[" * 60_000,
    b"9" * 60_000,
    b'"' + b"x" * 70_000 + b'"',
    *(json.dumps(GOOD | {key: value}).encode() for key in GOOD for value in (3, [], {}, True, "")),
    *(json.dumps(GOOD | {key: None}).encode() for key in ("split", "file", "class")),
    *(json.dumps(GOOD | {"digest": value}).encode() for value in ("0" * 31, "g" * 32, "0" * 32 + "\n")),
    json.dumps(GOOD | {"class": "c"}).encode(),
    json.dumps(GOOD | {"split": "validation"}).encode(),
]


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_a_signed_list_that_is_no_list_is_refused(tmp_path, line):
    with pytest.raises(CheckpointError, match="records.jsonl: not a list of records"):
        records.read_list(tmp_path, signed(tmp_path, line + b"\n"), classes=("a", "b"))


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path):
    path = tmp_path / "records.jsonl"
    with pytest.raises(CheckpointError, match="missing"):
        records.read_list(tmp_path, "0", classes=("a", "b"))
    path.mkdir()
    with pytest.raises(CheckpointError, match="records.jsonl: "):
        records.read_list(tmp_path, "0", classes=("a", "b"))
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="not a regular file"):
        records.read_list(tmp_path, "0", classes=("a", "b"))
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="not a regular file"):
        records.read_list(tmp_path, "0", classes=("a", "b"))


def test_a_list_of_unreasonable_size_is_not_read(tmp_path, monkeypatch):
    digest = signed(tmp_path, json.dumps(GOOD).encode() + b"\n")
    monkeypatch.setattr(records, "MOST_BYTES", 50)
    with pytest.raises(CheckpointError, match="at most 50 bytes"):
        records.read_list(tmp_path, digest, classes=("a", "b"))


@pytest.mark.parametrize(
    "length", [{"rules": "1"}, {"rules": True}, {"rules": None}, {"list_digest": 3}, {"records": []}]
)
def test_a_description_with_other_types_is_refused(finished, length):
    plain = last_meta(finished).to_json()
    with pytest.raises(ValueError, match="length has rules or digests of a wrong type"):
        checkpoint_meta.parse(plain | {"length": plain["length"] | length})


def test_rules_of_a_newer_jaxcat_are_refused_by_name(finished):
    meta = last_meta(finished)
    newer = dataclasses.replace(meta, records=dataclasses.replace(meta.records, rules=max(RULES) + 1))
    with pytest.raises(CheckpointError, match=rf"version {max(RULES) + 1} of the indexing rules"):
        records.rules_of(newer)
    assert records.rules_of(meta) == INDEX_RULES
    assert records.rules_of(dataclasses.replace(meta, records=None)) == 1


def as_written_before(folder: Path) -> None:
    """Makes a workdir what a version without lists wrote."""
    (folder / "records.jsonl").unlink()
    for step in workdir.steps(folder):
        path = folder / "checkpoints" / str(step) / "meta" / "metadata"
        plain = json.loads(path.read_text())
        del plain["length"]["rules"], plain["length"]["list_digest"]
        path.write_text(json.dumps(plain | {"meta_digest": checkpoint_meta.meta_digest(plain)}))


@pytest.mark.slow
def test_a_run_without_a_list_is_continued_by_rules_1_says_so_and_gets_one(copy, folder, capsys):
    as_written_before(copy)
    assert last_meta(copy).records.rules == 1
    assert train(run_config(folder, epochs=4), copy) == 0
    assert "began without records.jsonl: its data are indexed by rules 1" in " ".join(capsys.readouterr().out.split())
    known = last_meta(copy).records
    assert known.rules == 1
    assert records.read_list(copy, known.list_digest, classes=("disc", "square"))["train"].files[0].startswith("train/")
