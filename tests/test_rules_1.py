"""Indexing rules 1 give the records that they gave before there were others: older runs go on with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_data import flat, save

from jaxcat.config import default
from jaxcat.data.indexing.folder import open_labelled_folder
from jaxcat.data.indexing.labelled import open_labelled
from jaxcat.data.indexing.rules import INDEX_RULES
from jaxcat.data.records import Data, fingerprint
from jaxcat.data.sources import open_data
from jaxcat.errors import DataError

NFC, NFD = "café", "cafe\N{COMBINING ACUTE ACCENT}"


def opened(root: Path, rules: int) -> Data:
    config = default()
    config.data.dir = str(root)
    return open_data(config, rules=rules)


def test_ordinary_folders_have_the_same_records_under_all_rules(tmp_path):
    assert INDEX_RULES in (6, 7)  # 7 with pi-heif
    flat(tmp_path / "a", cat=9, dog=12)
    for split in ("train", "val", "test"):
        flat(tmp_path / "b" / split, cat=4, dog=3)
    save(tmp_path / "a" / "cat" / "deep" / "UPPER.PNG", 99)
    for root in (tmp_path / "a", tmp_path / "b"):
        old, new = opened(root, 1), opened(root, 2)
        assert old.classes == new.classes
        assert {name: split.files for name, split in old.splits.items()} == {
            name: split.files for name, split in new.splits.items()
        }
        assert fingerprint(old.splits) == fingerprint(new.splits)


def test_the_fingerprint_of_a_folder_is_what_it_was(tmp_path):
    """Computed with the commit before there were other rules."""
    flat(tmp_path / "train", cat=9, dog=12)
    for name in ("train/cat/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "train/cat/lost+found/1.png", "train/.x/1.png"):
        save(tmp_path / name, 1)
    flat(tmp_path / "train", **{NFC: 3, NFD: 4})
    assert fingerprint(opened(tmp_path, 1).splits) == "a22e78dfff534bcf30e24684b6500e36"


def test_what_rules_2_read_in_another_way(tmp_path):
    flat(tmp_path / "names", **{NFC: 3, NFD: 4, "bar": 5})
    assert opened(tmp_path / "names", 1).classes == tuple(sorted([NFC, NFD, "bar"]))
    assert opened(tmp_path / "names", 2).classes == ("bar", NFC)
    flat(tmp_path / "splits" / "Training", cat=3, dog=3)
    flat(tmp_path / "splits" / "Testing", cat=3, dog=3)
    assert opened(tmp_path / "splits", 1).classes == ("Testing", "Training")
    assert opened(tmp_path / "splits", 2).classes == ("cat", "dog")
    flat(tmp_path / "left", cat=3, dog=3)
    save(tmp_path / "left/cat/@eaDir/1.png")
    assert sum(len(split) for split in opened(tmp_path / "left", 1).splits.values()) == 7
    assert sum(len(split) for split in opened(tmp_path / "left", 2).splits.values()) == 6


def test_settings_of_rules_2_do_not_count(tmp_path):
    flat(tmp_path / "train", cat=3, dog=3)
    flat(tmp_path / "other", elk=3, fox=3)
    config = default()
    config.data.dir, config.data.train_dir = str(tmp_path), "other"
    assert open_data(config, rules=1).classes == ("cat", "dog")
    assert open_data(config, rules=2).classes == ("elk", "fox")


def test_a_test_folder_is_as_strict_as_it_was(tmp_path):
    flat(tmp_path / "train", cat=3, dog=3)
    flat(tmp_path / "test", cat=3)
    with pytest.raises(DataError, match="no folder for class 'dog'"):
        opened(tmp_path, 1)
    assert "test" in opened(tmp_path, 2).splits


def test_a_labelled_folder(tmp_path):
    flat(tmp_path, **{NFC: 3, "bar": 2})
    assert len(open_labelled_folder(tmp_path, ("bar", NFC), rules=1)) == 5
    with pytest.raises(DataError, match="no class of this classifier"):
        open_labelled_folder(tmp_path, ("bar", NFD), rules=1)
    assert len(open_labelled_folder(tmp_path, ("bar", NFD), rules=2)) == 5


def test_other_images_are_measured_by_the_rules_of_the_run(tmp_path):
    flat(tmp_path, **{"@tmp": 2, "cat": 2, "lost+found": 2})
    split = open_labelled(tmp_path, ("@tmp", "cat", "lost+found"), default(), rules=1)
    assert len(split) == 6


def test_older_rules_find_classes_as_if_there_were_no_newer_ones(tmp_path):
    flat(tmp_path / "beside" / "cat", here=3, there=3)
    flat(tmp_path / "beside", _thumbs=4)
    assert opened(tmp_path / "beside", 2).classes == ("_thumbs", "cat")
    assert opened(tmp_path / "beside", 6).classes == ("here", "there")
    flat(tmp_path / "only" / "appdata_oc1", cat=3, dog=3)
    assert opened(tmp_path / "only", 4).classes == ("cat", "dog")
    with pytest.raises(DataError, match="no class folders.*appdata_oc1 is skipped.*rename"):
        opened(tmp_path / "only", 6)
    config = default()
    config.data.dir, config.data.label_pattern = str(tmp_path / "only"), r"([^/]+)/[^/]+$"
    assert len(open_data(config, rules=4).splits["train"]) == 4
