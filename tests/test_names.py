"""Class names: Unicode forms, commas, numbers; classes that are too small; a test folder that is not like train."""

from __future__ import annotations

import io
import json
import unicodedata
from pathlib import Path

import pytest
from test_data import counts, flat, names, opened, refused, save

from jaxcat import evaluate
from jaxcat.data.indexing.folder import open_labelled_folder
from jaxcat.data.indexing.skipped import Reason
from jaxcat.data.records import choose_classes, printed_order
from jaxcat.errors import ConfigError, DataError
from jaxcat.inference.evaluation import show, summarize
from jaxcat.system.console import Console
from jaxcat.wording import printable

NFC, NFD = "café", "cafe\N{COMBINING ACUTE ACCENT}"


def test_the_two_forms_differ():
    assert NFC != NFD
    assert unicodedata.normalize("NFC", NFD) == NFC


@pytest.mark.parametrize(("train", "validation", "test"), [(NFC, NFD, NFC), (NFD, NFC, NFD), (NFD, NFD, NFC)])
def test_unicode_forms_of_one_name_are_one_class_across_splits(train, validation, test, tmp_path):
    flat(tmp_path / "train", **{train: 3, "bar": 3})
    flat(tmp_path / "validation", **{validation: 2, "bar": 2})
    flat(tmp_path / "test", **{test: 1, "bar": 1})
    data = opened(tmp_path)
    assert data.classes == ("bar", NFC)
    assert [counts(data.splits[name]) for name in ("train", "validation", "test")] == [[3, 3], [2, 2], [1, 1]]
    for split in data.splits.values():
        for index, file in enumerate(split.files):
            assert (tmp_path / file).is_file()  # records are named as the files are
            split.fetch(index)


def test_two_folders_of_one_class(tmp_path):
    flat(tmp_path, **{NFC: 3, NFD: 4, "bar": 2})
    assert len(list(tmp_path.iterdir())) == 3
    data = opened(tmp_path)
    assert data.classes == ("bar", NFC)
    assert sum(len(split) for split in data.splits.values()) == 9
    split = open_labelled_folder(tmp_path, ("bar", NFD))  # an older run may have the other form
    assert counts(split) == [2, 7]


@pytest.mark.parametrize("asked", [NFC, NFD])
@pytest.mark.parametrize("stored", [NFC, NFD])
def test_either_form_selects_a_class(asked, stored, tmp_path):
    flat(tmp_path, **{stored: 3, "bar": 3, "pub": 3})
    assert opened(tmp_path, classes=f"bar,{asked}").classes == ("bar", NFC)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ('"cat, wild",dog', ("cat, wild", "dog")),
        ('dog , "cat, wild"', ("cat, wild", "dog")),
        ('"dog","cat"', ("cat", "dog")),
        ("cat,dog", ("cat", "dog")),
        (" cat ,, dog,", ("cat", "dog")),
        ('5" nail,cat', ('5" nail', "cat")),
        ('"5"" nail",dog', ('5" nail', "dog")),
        ('"a ""b"", c",cat', ('a "b", c', "cat")),
        ("", ('5" nail', 'a "b", c', "cat", "cat, wild", "dog")),
    ],
)
def test_class_names_with_commas_are_written_as_in_csv(wanted, chosen):
    assert choose_classes(('5" nail', 'a "b", c', "cat", "cat, wild", "dog"), wanted) == chosen


def test_a_comma_that_is_not_quoted_is_explained():
    with pytest.raises(ConfigError, match=r"no class 'cat'.*double quotes"):
        choose_classes(("cat, wild", "dog"), "cat, wild,dog")
    with pytest.raises(ConfigError, match='nearest: "cat, wild"'):
        choose_classes(("cat, wild", "dog"), '"cat, wilt",dog')


def test_numbers_sort_as_numbers_in_tables_only(tmp_path, capsys):
    flat(tmp_path, **{"1": 2, "10": 2, "2": 2, "a": 2, "-3": 2, "2.5": 2})
    classes = opened(tmp_path).classes
    assert classes == ("-3", "1", "10", "2", "2.5", "a")
    assert [classes[label] for label in printed_order(classes)] == ["-3", "1", "2", "2.5", "10", "a"]
    import numpy as np

    summary = summarize(np.log(np.full((6, 6), 1 / 6)), np.arange(6), classes)
    assert summary["classes"] == list(summary["per_class"]) == list(classes)
    console = Console(tables=True)
    console.file = io.StringIO()
    show(console, summary, "numbers")
    rows = [line.split()[0] for line in console.file.getvalue().splitlines()[3:]]
    assert rows == ["-3", "1", "2", "2.5", "10", "a"]


# Too few images


def test_all_classes_with_too_few_images_are_named(tmp_path):
    flat(tmp_path, cat=5, dog=5, elk=1, fox=1)
    message = refused(tmp_path, "'elk' (1)", "'fox' (1)", "--config.data.min_per_class=2")
    assert "cat" not in message
    (tmp_path / "gnu").mkdir()
    (tmp_path / "yak").mkdir()
    refused(tmp_path, str(tmp_path / "gnu"), str(tmp_path / "yak"), "no image", "--config.data.min_per_class=1")


def test_min_per_class_drops_small_classes_and_says_so(tmp_path, caplog):
    flat(tmp_path, cat=5, dog=6, elk=1, fox=4)
    (tmp_path / "gnu").mkdir()
    data = opened(tmp_path, min_per_class=5)
    assert data.classes == ("cat", "dog")
    assert "--config.data.min_per_class=5 leaves out 3 of 5 classes: 'elk' (1), 'fox' (4), 'gnu' (0)" in caplog.text
    assert all(file[:3] in ("cat", "dog") for files in names(data).values() for file in files)
    assert opened(tmp_path, min_per_class=4).classes == ("cat", "dog", "fox")
    refused(tmp_path, "--config.data.min_per_class=6", "two classes", "'cat' (5)", min_per_class=6)


def test_min_per_class_counts_train_and_the_other_splits_may_have_the_class(tmp_path):
    for split, number in (("train", 3), ("validation", 9), ("test", 9)):
        flat(tmp_path / split, cat=9, dog=9, elk=number)
    data = opened(tmp_path, min_per_class=4)
    assert data.classes == ("cat", "dog")
    assert counts(data.splits["validation"]) == counts(data.splits["test"]) == [9, 9]
    assert not len(data.skipped), "classes that nobody asked for are not skipped files"


# A test folder that is not like train


@pytest.mark.parametrize(
    ("folders", "expected", "says"),
    [
        ({"cat": 3}, [3, 0], "no image of 'dog'; test is measured on the other classes"),
        ({"cat": 3, "dog": 2, "fox": 4}, [3, 2], "train has no class 'fox'; test is measured without it"),
        ({"dog": 2, "fox": 4}, [0, 2], "no image of 'cat'"),
        ({"fox": 4}, None, "so there is no test split"),
        ({}, None, "so there is no test split"),
    ],
)
def test_a_test_folder_does_not_stop_training(folders, expected, says, tmp_path, caplog):
    flat(tmp_path / "train", cat=5, dog=5)
    (tmp_path / "test").mkdir()
    flat(tmp_path / "test", **folders)
    if not folders:
        for number in range(4):
            save(tmp_path / "test" / f"{number}.png", number)
    data = opened(tmp_path)
    assert says in caplog.text
    if expected is None:
        assert "test" not in data.splits
    else:
        assert counts(data.splits["test"]) == expected
    assert data.skipped.count(Reason.OTHER_CLASS) == folders.get("fox", 0)
    assert data.skipped.count(Reason.UNLABELLED) == (0 if folders else 4)


def test_validation_that_is_not_like_train_is_refused_and_can_be_left_out(tmp_path):
    flat(tmp_path / "train", cat=5, dog=5, elk=5)
    flat(tmp_path / "validation", cat=5)
    refused(tmp_path, "'dog', 'elk'", "--config.data.train_dir")
    assert counts(opened(tmp_path, train_dir="train").splits["validation"], 3) == [1, 1, 1]


@pytest.mark.slow
def test_a_test_split_without_a_class_is_measured(tmp_path):
    import small

    from jaxcat.train import train

    folder = small.image_folder(tmp_path / "images", train=6, validation=3)
    for name in ("disc", "other"):
        (folder / "test" / name).mkdir(parents=True)
        for number in (0, 1):
            image = folder / "validation" / "disc" / f"{number:03}.png"
            (folder / "test" / name / f"{number}.png").write_bytes(image.read_bytes())
    config = small.tiny_config(folder)
    config.epochs = 1
    assert train(config, tmp_path / "run") == 0
    assert evaluate.main(["--workdir", str(tmp_path / "run"), "--split", "test"]) == 0
    figures = json.loads(Path(tmp_path / "run/evaluation/test.json").read_text())
    assert figures["count"] == 2
    assert figures["auc"] is None
    assert figures["per_class"]["square"]["count"] == 0


@pytest.mark.parametrize("name", ["🐈‍⬛", "می‌خواهم", "क्‍ष", "大　猫", "chat\N{NO-BREAK SPACE}noir"])
def test_joiners_and_spaces_of_other_scripts_are_no_control_characters(tmp_path, name):
    flat(tmp_path, **{name: 3, "dog": 3})
    assert opened(tmp_path).classes == tuple(sorted(["dog", unicodedata.normalize("NFC", name)]))
    assert printable(name) == name


def test_classes_that_look_the_same_are_told(tmp_path, caplog):
    flat(tmp_path / "data", **{"chat noir": 3, "chat\N{NO-BREAK SPACE}noir": 3, "dog": 3})
    opened(tmp_path / "data")
    (message,) = caplog.messages
    assert message.startswith(r"the names of classes 'chat noir' and 'chat\xa0noir' differ only in spaces")
    for split, name in (("train", "dog"), ("validation", "dog\N{ZERO WIDTH JOINER}")):
        flat(tmp_path / "splits" / split, **{name: 3, "cat": 3})
    with pytest.raises(DataError, match=r"no folder for class 'dog', which train has, but for 'dog.u200d': rename"):
        opened(tmp_path / "splits")
