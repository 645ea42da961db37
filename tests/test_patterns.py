"""Classes and groups from the names of files, by a regular expression."""

from __future__ import annotations

import shlex
import signal
import threading
from pathlib import Path

import pytest
from test_data import flat, opened, refused, save
from test_settings import request

from jaxcat.data.indexing import patterns
from jaxcat.data.indexing.file_names import open_labelled_names
from jaxcat.data.indexing.patterns import Pattern, suggested
from jaxcat.errors import ConfigError, DataError
from jaxcat.flags import validate


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("(cat", "not a regular expression: missing \\)"),
        ("*", "not a regular expression: nothing to repeat"),
        ("cat", "it has 0 groups"),
        ("(cat)|(dog)", "it has 2 groups"),
        ("(a{99999999999999})", "not a regular expression"),
    ],
)
@pytest.mark.parametrize("setting", ["label_pattern", "group_pattern"])
def test_a_pattern_must_be_an_expression_with_one_group(setting, text, says):
    with pytest.raises(ConfigError, match=f"--config.data.{setting}=.*{says}"):
        validate(request(**{f"data__{setting}": text}))


def test_patterns_need_their_sources():
    for setting in ("label_pattern", "group_pattern"):
        with pytest.raises(ConfigError, match=f"--config.data.{setting}=.* needs --config.data.source=folder"):
            validate(request(**{f"data__{setting}": "(x)", "data__source": "digits"}))
    table = {"data__source": "table", "data__table": "t.csv", "data__group_pattern": "(x)"}
    validate(request(**table, data__group_column="none"))
    with pytest.raises(ConfigError, match="set one of them"):
        validate(request(**table, data__group_column="patient"))


def test_what_a_pattern_takes():
    assert Pattern("label_pattern", r"^(cat|dog)\.").find("cat.0.jpg") == "cat"
    assert Pattern("label_pattern", r"(?:a)(b)?").find("ac") == ""
    assert Pattern("label_pattern", r"(.)$").find("e\u0301") == "\u00e9"
    assert Pattern("label_pattern", r"^(cat|dog)\.").find("thecat.0.jpg") == ""


def test_a_pattern_that_never_ends_is_refused_and_the_alarm_is_as_before(monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 0.2)
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(ConfigError, match=r"label_pattern=.*: no answer within 0.2 s for aaaa"):
        Pattern("label_pattern", "^((?:a+)+)$").find("a" * 60 + "b")
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_patterns_work_in_other_threads_and_leave_others_alarms_alone():
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(Pattern("label_pattern", "(a)").find("a")))
    thread.start()
    thread.join()
    assert found == ["a"]
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        signal.setitimer(signal.ITIMER_REAL, 100)
        assert Pattern("label_pattern", "(a)").find("a") == "a"
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 90
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["cat.0.jpg", "cat.1.jpg", "dog.0.jpg", "dog.17.jpg"], {"cat", "dog"}),
        (["american_bulldog_1.jpg", "american_bulldog_22.jpg", "Abyssinian_1.jpg", "Abyssinian_3.jpg"], None),
        (["a (1).png", "a (2).png", "b (1).png", "b (2).png"], {"a", "b"}),
        (["rose-1.jpeg", "rose-2.jpeg", "tulip3.jpeg", "tulip4.jpeg"], {"rose", "tulip"}),
    ],
)
def test_a_pattern_is_suggested_for_usual_names_and_finds_their_classes(names, classes):
    pattern = Pattern("label_pattern", suggested(names))
    assert {pattern.find(name) for name in names} == (classes or {"american_bulldog", "Abyssinian"})


@pytest.mark.parametrize(
    "names", [["IMG_1.jpg", "IMG_2.jpg"], ["a.jpg", "b.jpg"], ["cat.1.jpg", "cat.2.jpg", "dog.1.jpg"], []]
)
def test_no_pattern_is_suggested_where_names_tell_nothing(names):
    assert suggested(names) == ""


# Groups ---------------------------------------------------------------------------------------------------------------


def test_groups_by_pattern_are_never_on_both_sides(tmp_path):
    for name in ("cat", "dog"):
        for patient in range(8):
            for image in range(2):
                save(tmp_path / name / f"p{patient}_{image}.png", 16 * patient + image)
    pattern = r"/p(\d+)_"
    for seed in range(3):
        splits = opened(tmp_path, group_pattern=pattern, seed=seed).splits
        sides = [{file.split("/p")[1][0] for file in split.files} for split in splits.values()]
        assert not sides[0] & sides[1]
        assert len(splits["train"]) + len(splits["validation"]) == 32
        assert splits["train"].groups == tuple(file.split("/p")[1][0] for file in splits["train"].files)
    held: set[str] = set()
    for k in range(1, 5):
        splits = opened(tmp_path, group_pattern=pattern, fold=f"{k}/4").splits
        mine = {file.split("/p")[1][0] for file in splits["validation"].files}
        assert len(mine) == 2
        assert not mine & held
        held |= mine
    save(tmp_path / "cat" / "other.png")
    refused(tmp_path, f"--config.data.group_pattern={pattern}", "1 of 33 paths", "cat/other.png", group_pattern=pattern)


def test_a_test_folder_needs_no_groups(tmp_path):
    for patient in range(4):
        for name in ("cat", "dog"):
            save(tmp_path / "train" / name / f"p{patient}.png", patient)
            save(tmp_path / "test" / name / f"{patient}.png", 50 + patient)
    save(tmp_path / "test" / "cat" / "p9.png", 99)
    pattern = r"/p(\d+)\.png"
    splits = opened(tmp_path, group_pattern=pattern).splits
    assert splits["test"].groups is not None
    assert len(set(splits["test"].groups)) == len(splits["test"]) == 9
    assert not set(splits["train"].groups) & set(splits["validation"].groups)
    save(tmp_path / "test" / "dog" / "p1.png", 98)  # the same patient as in train
    refused(tmp_path, "1 of 13 groups", group_pattern=pattern)
    (tmp_path / "test" / "dog" / "p1.png").rename(tmp_path / "train" / "dog" / "none.png")
    refused(tmp_path, "no group in 1 of", "train/dog/none.png", group_pattern=pattern)


def test_a_group_in_two_split_folders_is_named(tmp_path):
    for split in ("train", "validation"):
        flat(tmp_path / split, cat=2, dog=2)
    refused(tmp_path, "2 of 2 groups", "000 (train and validation)", group_pattern=r"/(\d+)\.png")
    assert (
        opened(tmp_path, group_pattern="^([^/]+/[^/]+)").splits["train"].groups
        == ("train/cat",) * 2 + ("train/dog",) * 2
    )
    with pytest.raises(DataError, match="one group"):
        opened(tmp_path / "train", group_pattern="^([^/]+)")


# Classes --------------------------------------------------------------------------------------------------------------

CATS = r"^(cat|dog)\."


def kaggle(root: Path, *, test: str = "test1") -> Path:
    """As the archive of dogs-vs-cats: train/cat.0.jpg, and images without labels in test1."""
    for number in range(6):
        for name in ("cat", "dog"):
            save(root / "train" / f"{name}.{number}.jpg", 40 * number + (name == "cat"))
        save(root / test / f"{number}.jpg", 40 * number + 20)
    return root


def labels(data) -> dict[str, str]:
    return {
        file: data.classes[label]
        for split in data.splits.values()
        for file, label in zip(split.files, split.labels, strict=True)
    }


def test_dogs_vs_cats(tmp_path, caplog):
    data = opened(kaggle(tmp_path), label_pattern=CATS)
    assert data.classes == ("cat", "dog")
    assert labels(data) == {f"train/{name}.{i}.jpg": name for name in ("cat", "dog") for i in range(6)}
    assert set(data.splits) == {"train", "validation"}
    assert "6 of 6 images of test have no label" in caplog.text
    for split in data.splits.values():
        for index, file in enumerate(split.files):
            assert str(split.stored(index)) == str(tmp_path / file)


def test_a_flat_folder_and_folders_of_splits(tmp_path):
    kaggle(tmp_path / "k")
    data = opened(tmp_path / "k" / "train", label_pattern=CATS)
    assert set(labels(data)) == {f"{name}.{i}.jpg" for name in ("cat", "dog") for i in range(6)}
    (tmp_path / "k" / "test1").rename(tmp_path / "val")
    for number in range(6):
        (tmp_path / "val" / f"{number}.jpg").rename(tmp_path / "val" / f"{'cat' if number % 2 else 'dog'}.{number}.jpg")
    (tmp_path / "val").rename(tmp_path / "k" / "val")
    data = opened(tmp_path / "k", label_pattern=CATS)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 12, "validation": 6}
    assert opened(tmp_path, label_pattern=CATS).classes == ("cat", "dog")  # one more level
    named = opened(tmp_path / "k", label_pattern=CATS, train_dir="val", validation_fraction=0.0)
    assert {name: len(split) for name, split in named.splits.items()} == {"train": 6, "validation": 0}


def test_a_pattern_for_the_path(tmp_path):
    for day in ("monday", "tuesday"):
        for number in range(3):
            save(tmp_path / day / "raw" / f"{number}.png", 10 * number + len(day))
    data = opened(tmp_path, label_pattern="^(.+)/raw/")
    assert set(labels(data).values()) == {"monday", "tuesday"}
    refused(tmp_path, "6 × no class in the name: monday/raw/0.png", label_pattern="^(monday|tuesday)")


def test_files_that_do_not_match_are_named(tmp_path):
    kaggle(tmp_path)
    for number in range(7):
        save(tmp_path / "train" / f"fox-{number}.jpg", 200 + number)
    message = refused(
        tmp_path,
        *(f"--config.data.label_pattern={CATS}", "7 × no class in the name: train/fox-0.jpg, train/fox-1.jpg", ", …"),
        label_pattern=CATS,
    )
    assert "fox-6" not in message
    assert opened(tmp_path, label_pattern=r"^(cat|dog|fox)\W").classes == ("cat", "dog", "fox")
    refused(tmp_path / "train", "two classes", label_pattern="^.*(j)pg")


def test_the_error_about_a_flat_folder_suggests_a_pattern_that_works(tmp_path):
    kaggle(tmp_path)
    for root in (tmp_path, tmp_path / "train"):
        message = refused(root, "no class folders", "as in cat.0.jpg, add --config.data.label_pattern=")
        pattern = shlex.split(message.partition("--config.data.label_pattern=")[2])[0]
        validate(request(data__label_pattern=pattern))
        assert set(labels(opened(root, label_pattern=pattern)).values()) == {"cat", "dog"}
    assert "label_pattern" not in refused(tmp_path / "test1", "no class folders")


def test_labels_and_groups_by_pattern(tmp_path):
    for name in ("cat", "dog"):
        for video in range(6):
            for frame in range(2):
                save(tmp_path / f"{name}.{video}.{frame}.jpg", 16 * video + frame)
    splits = opened(tmp_path, label_pattern=CATS, group_pattern=r"^(\w+\.\d+)\.").splits
    assert not set(splits["train"].groups or ()) & set(splits["validation"].groups or ())
    assert len(splits["validation"]) % 2 == 0


def test_a_folder_for_evaluation_by_names(tmp_path):
    split = open_labelled_names(kaggle(tmp_path) / "train", ("dog", "cat"), CATS)
    assert {file: int(label) for file, label in zip(split.files, split.labels, strict=True)} == {
        f"{name}.{i}.jpg": number for number, name in enumerate(("dog", "cat")) for i in range(6)
    }
    with pytest.raises(DataError, match=r"(?s)--data .*6 × no class that this classifier knows: test1/0.jpg"):
        open_labelled_names(tmp_path, ("dog", "cat"), CATS)


def test_what_lies_in_a_folder_of_another_split_is_not_train(tmp_path):
    for name in ("cat.0", "cat.1", "dog.0", "dog.1"):
        save(tmp_path / f"{name}.png")
    for name in ("cat.9", "dog.9"):
        save(tmp_path / "test" / f"{name}.png")
    splits = opened(tmp_path, label_pattern=r"^(\w+)\.").splits
    assert sorted(splits["test"].files) == ["test/cat.9.png", "test/dog.9.png"]
    assert not [file for name in ("train", "validation") for file in splits[name].files if "9" in file]


def test_splits_further_down_are_not_mixed(tmp_path):
    for split in ("train", "val"):
        for name in ("cat.0", "cat.1", "dog.0", "dog.1"):
            save(tmp_path / "imgs" / split / f"{name}.png")
    save(tmp_path / "other" / "cat.5.png")
    refused(tmp_path, "may be a split", "--config.data.train_dir=FOLDER", label_pattern=r"^(\w+)\.")
    named = opened(tmp_path, label_pattern=r"^(\w+)\.", train_dir="imgs/train", validation_dir="imgs/val").splits
    assert {name: len(split) for name, split in named.items()} == {"train": 4, "validation": 4}


def test_names_below_a_folder_elsewhere_are_whole(tmp_path):
    (tmp_path / "home").mkdir()
    for part in ("s1", "s2"):
        for name in ("cat.0", "dog.0"):
            save(tmp_path / "away" / part / f"{name}.png")
    away = str(tmp_path / "away")
    data = opened(tmp_path / "home", label_pattern=r"^(\w+)\.", train_dir=away, validation_fraction=0.0)
    assert sorted(data.splits["train"].files)[0] == "train/s1/cat.0.png"
    assert len(set(data.splits["train"].files)) == 4


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (["train/part1", "train/part2"], ""),
        (["train1", "train2"], "train1"),
        (["train_part0", "train_part1"], "train_part0"),
        (["train/train"], ""),
        (["TRAIN-01", "TRAIN-02", "TRAIN-03"], "TRAIN-01"),
    ],
)
def test_several_folders_of_one_split(train, said, tmp_path, caplog):
    for folder in train:
        for name in ("cat", "dog"):
            for number in range(4):
                save(tmp_path / folder / f"{name}.{number}.png", 50 * number + len(name))
    for number in range(3):
        save(tmp_path / "test1" / "test1" / f"{number}.png", number)
    data = opened(tmp_path, label_pattern=CATS)
    assert set(labels(data)) == {
        f"{folder}/{name}.{i}.png" for folder in train for name in ("cat", "dog") for i in range(4)
    }
    assert (f"the train split is in {len(train)} folders: {tmp_path}/{said}" in caplog.text) == bool(said)


@pytest.mark.parametrize("names", [("train", "train_masks"), ("train_256", "train_512"), ("test_cats", "test_dogs")])
def test_folders_that_are_not_surely_one_split(names, tmp_path):
    for folder in {*names, "train"}:
        for name in ("cat.0", "cat.1", "dog.0", "dog.1"):
            save(tmp_path / folder / f"{name}.png")
    split = names[0].partition("_")[0]
    refused(tmp_path, f"are both the {split} split", f"into one folder called {split}", label_pattern=CATS)
