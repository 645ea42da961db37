"""Folders as archives unpack them: splits are found under their usual names, and never become classes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from test_data import counts, flat, opened, refused, save

from jaxcat.config import default
from jaxcat.data.indexing.layout import split_roots
from jaxcat.data.indexing.split_folders import suggested
from jaxcat.data.indexing.split_names import split_name
from jaxcat.data.sources import open_data
from jaxcat.errors import ConfigError, DataError
from jaxcat.training.place import check_place

CLASSES = {"cat": 5, "dog": 5}


def splits(root: Path, *names: str) -> Path:
    """`root/NAME/{cat,dog}/…` for each of `names`."""
    for name in names:
        flat(root / name, **CLASSES)
    return root


def found(root: Path, **settings) -> dict[str, str]:
    """The folder of each split, relative to `root`."""
    data = default().data
    data.update(settings)
    return {name: path.relative_to(root).as_posix() for name, path in split_roots(root, data).items()}


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("Training", "", "Testing"),
        ("training_set", "", "test_set"),
        ("seg_train", "", "seg_test"),
        ("Train_Data", "Val_Data", ""),
        ("train", "valid", "test"),
        ("TRAIN", "DEV", "TEST"),
        ("train", "eval", "test"),
        ("trainset", "valset", "testset"),
        ("train-images", "val-images", "test-images"),
        ("images_train", "images_validation", "images_test"),
        ("train2017", "val2017", "test2017"),
        ("TrainData", "ValidationData", "TestData"),
        ("Training Images", "Validation Images", "Testing Images"),
        ("dataset-train", "dataset-valid", "dataset-test"),
        ("asl_alphabet_train", "", "asl_alphabet_test"),
        ("flowers.train", "flowers.val", "flowers.test"),
        ("train_val", "", "test"),
        ("01_train", "02_val", "03_test"),
        ("train", "", "holdout"),
        ("training", "evaluation", ""),
        ("train_256", "valid_256", ""),
        ("trn", "val", "tst"),
    ],
)
def test_usual_names_of_splits(train, validation, test, tmp_path):
    named = {"train": train, "validation": validation, "test": test}
    expected = {name: folder for name, folder in named.items() if folder}
    splits(tmp_path, *expected.values())
    assert found(tmp_path) == expected
    data = opened(tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.splits.keys() == {"train", "validation", *expected}
    assert sum(map(len, data.splits.values())) == 10 * len(expected)
    for name, folder in expected.items():
        assert {file.split("/")[0] for file in data.splits[name].files} == {folder}


@pytest.mark.parametrize(
    "name",
    ["cat", "test tube", "steam_train", "trains", "valley", "devil", "latest", "contest", "train-test-split", "trail"],
)
def test_names_that_say_nothing_or_something_else(name):
    parsed = split_name(name)
    assert parsed is None or parsed.rest, name


@pytest.mark.parametrize(
    ("folders", "train", "test"),
    [
        (["data/data/{}"], "data/data", ""),
        (["a/b/c/{}"], "a/b/c", ""),
        (
            ["seg_train/seg_train/{}", "seg_test/seg_test/{}", "seg_pred/seg_pred"],
            "seg_train/seg_train",
            "seg_test/seg_test",
        ),
        (["training_set/training_set/{}", "test_set/test_set/{}"], "training_set/training_set", "test_set/test_set"),
        (
            ["archive/chest_xray/train/{}", "archive/chest_xray/test/{}"],
            "archive/chest_xray/train",
            "archive/chest_xray/test",
        ),
        (["images/train/{}", "images/test/{}", "labels/train", "labels/test"], "images/train", "images/test"),
        (["train/images/{}", "test/images/{}"], "train/images", "test/images"),
        (["images/Images/{}", "labels/Annotation/cat", "labels/Annotation/dog"], "images/Images", ""),
        (["data/Training/{}", "data/Testing/{}", "__MACOSX/data/Training/{}"], "data/Training", "data/Testing"),
        (["chest/train/{}", "chest/test/{}", "chest/chest/train/{}"], "chest/train", "chest/test"),
        (
            ["fruits/Training/{}", "fruits/Test/{}", "fruits/test-multiple_images-master"],
            "fruits/Training",
            "fruits/Test",
        ),
        (["train/{}", "test/{}", "predictions"], "train", "test"),
    ],
)
def test_levels_of_an_unpacked_archive(folders, train, test, tmp_path):
    for folder in folders:
        if "{}" in folder:
            flat(tmp_path / folder.removesuffix("/{}"), **CLASSES)
        elif folder.startswith("labels"):
            (tmp_path / folder).mkdir(parents=True)
            (tmp_path / folder / "1.txt").touch()
        else:
            save(tmp_path / folder / "1.png")
    (tmp_path / "README.md").touch()
    assert found(tmp_path) == {"train": train} | ({"test": test} if test else {})
    data = opened(tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.splits["train"].files[0].startswith(f"{train}/cat/")


@pytest.mark.parametrize(
    "classes",
    [
        ("train", "bus", "car"),
        ("steam_train", "bullet_train", "bus"),
        ("valid", "invalid"),
        ("train1", "train2", "train3"),
        ("dev", "ops"),
        ("test_tube", "flask"),
        ("training", "match"),
    ],
)
def test_classes_that_are_called_as_splits_are(classes, tmp_path):
    flat(tmp_path, **dict.fromkeys(classes, 3))
    assert opened(tmp_path).classes == tuple(sorted(classes))


@pytest.mark.parametrize(
    "names",
    [("train", "test", "rest"), ("train", "val", "test", "labels"), ("cat", "dog", "test"), ("a", "b", "unlabeled")],
)
def test_what_may_be_flat_splits_is_no_class_without_being_asked_for(names, tmp_path):
    flat(tmp_path, **dict.fromkeys(names, 3))
    refused(tmp_path, f"--config.data.train_dir={tmp_path}")
    assert opened(tmp_path, train_dir=".").classes == tuple(sorted(names))


def test_flat_splits_beside_other_files_are_not_classes_either(tmp_path):
    flat(tmp_path, train=3, val=3)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "all.json").write_text("{}")
    refused(tmp_path, "may be splits or classes")


@pytest.mark.parametrize(
    ("images", "others"),
    [("images", ["meta"]), ("101_ObjectCategories", ["Annotations"]), ("images", ["attributes", "parts", "labels"])],
)
def test_what_lies_beside_the_images_is_no_class(images, others, tmp_path):
    flat(tmp_path / images, **CLASSES)
    for name in others:
        (tmp_path / name).mkdir()
        (tmp_path / name / "list.txt").write_text("x")
    assert found(tmp_path) == {"train": images}
    assert opened(tmp_path).classes == ("cat", "dog")


def test_evaluation_beside_validation_is_the_test_split(tmp_path):
    splits(tmp_path, "training", "validation", "evaluation")
    assert found(tmp_path) == {"train": "training", "validation": "validation", "test": "evaluation"}


def test_an_empty_class_brings_advice_that_helps(tmp_path):
    splits(tmp_path, "train", "val")
    (tmp_path / "train" / "cow").mkdir()
    (tmp_path / "val" / "cow").mkdir()
    refused(tmp_path, "train/cow", "--config.data.min_per_class=1")
    flat(tmp_path / "train", cow=3)
    assert "min_per_class" not in refused(tmp_path, "val/cow", "--config.data.classes")


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (["simpsons/simpsons/{}", "kaggle_simpson_testset/kaggle_simpson_testset"], "simpsons/simpsons"),
        (["simpsons/{}", "simpsons/simpsons/{}", "heroes/heroes"], "simpsons/simpsons"),  # a second copy
        (["dl/simpsons/{}", "dl/kaggle_testset"], "dl/simpsons"),
        (["Digits-master/Dataset/{}", "Digits-master/Examples"], "Digits-master/Dataset"),
        (["raw/{}", "processed"], "raw"),
        (["Birds/{}", "samples", "figures"], "Birds"),
        (["images/{}", "trees", "lakes"], "images"),
        (["train/birds/{}", "train/more", "test/birds/{}"], "train/birds"),
    ],
)
def test_folders_of_classes_beside_folders_of_images_are_no_classes(folders, classes, tmp_path):
    for folder in folders:
        if "{}" in folder:
            flat(tmp_path / folder.removesuffix("/{}"), **CLASSES)
        else:
            flat(tmp_path / folder / "..", **{Path(folder).name: 3})
    message = refused(
        tmp_path, "images only. If the folders in", f"are the classes, --config.data.train_dir={tmp_path}"
    )
    train, whole = re.findall(r"train_dir=(\S+?)(?:;|\s|$)", message)
    assert train == str(tmp_path / classes)
    assert opened(tmp_path, train_dir=train).classes == ("cat", "dog")
    assert len(opened(tmp_path, train_dir=whole).classes) >= 2


def test_the_settings_that_a_refusal_names_keep_the_other_splits(tmp_path):
    flat(tmp_path / "train" / "sorted", **CLASSES)
    flat(tmp_path / "train", more=3)
    splits(tmp_path, "validation", "test")
    message = refused(tmp_path, "images only")
    inner, outer = (dict(re.findall(r"data\.(\w+)=([^\s;]+)", part)) for part in message.split("; "))
    assert inner.keys() == outer.keys() == {"train_dir", "validation_dir", "test_dir"}
    assert opened(tmp_path, **inner).splits["validation"].files[0] == "validation/cat/000.png"


def test_a_run_by_older_rules_keeps_such_classes(tmp_path, caplog):
    flat(tmp_path / "tiles", tumor=3, stroma=3)
    flat(tmp_path, larger=3)
    config = default()
    config.data.dir = str(tmp_path)
    for rules in (2, 3):
        assert open_data(config, rules=rules).classes == ("larger", "tiles")
    assert f"set --config.data.train_dir={tmp_path / 'tiles'}" in caplog.text
    for rules in (4, 5):
        with pytest.raises(DataError, match="images only"):
            open_data(config, rules=rules)


@pytest.mark.parametrize("classes", [("cat", "dog", "fox"), ("0", "1", "2")])
def test_classes_made_of_folders_are_told_of(tmp_path, caplog, classes):
    flat(tmp_path / classes[0], indoor=3, outdoor=3)
    flat(tmp_path, **dict.fromkeys(classes[1:], 3))
    assert opened(tmp_path).classes == classes
    assert f"set --config.data.train_dir={tmp_path / classes[0]}" in caplog.text


def test_a_folder_of_archives(tmp_path):
    (tmp_path / "cats.zip").write_bytes(b"PK")
    refused(
        tmp_path,
        f"there is cats.zip: unpack each into a folder of its own, or, if cats.zip holds the class folders, set "
        f"--config.data.dir={tmp_path}/cats.zip",
    )
    for name in ("birds.tar.gz", "ants.TGZ"):
        (tmp_path / name).write_bytes(b"\x1f\x8b")
    refused(tmp_path, "there are ants.TGZ, birds.tar.gz, cats.zip: unpack", "if cats.zip holds the class folders")
    (tmp_path / "cats.zip").unlink()
    assert "data.dir=" + str(tmp_path) not in refused(tmp_path, "there are ants.TGZ, birds.tar.gz: unpack each into")


@pytest.mark.parametrize("split", ["", "train"])
def test_images_and_masks_in_every_class(tmp_path, split):
    for name in ("COVID", "Normal"):
        flat(tmp_path / split / name, images=3, masks=3)
    message = refused(tmp_path, "all hold images, masks, which are parts of a data set", "--config.data.source=table")
    assert "validation_dir" not in message
    assert f"--config.data.train_dir={tmp_path / split}" in message
    assert opened(tmp_path, train_dir=split or ".").classes == ("COVID", "Normal")


def test_images_and_annotations_without_images_in_every_class(tmp_path):
    for name in ("cat", "dog"):
        flat(tmp_path / "train" / name, images=3)
        (tmp_path / "train" / name / "annotations").mkdir()
        (tmp_path / "train" / name / "annotations" / "0.xml").write_text("<a/>")
    assert opened(tmp_path).classes == ("cat", "dog")


def test_a_run_by_older_rules_keeps_images_and_masks_below_a_split(tmp_path):
    for name in ("COVID", "Normal"):
        flat(tmp_path / "train" / name, images=3, masks=3)
    config = default()
    config.data.dir = str(tmp_path)
    assert open_data(config, rules=3).classes == ("COVID", "Normal")


def test_numbered_folders_of_one_split(tmp_path):
    splits(tmp_path / "a", "train1", "train2")
    splits(tmp_path / "b", "train_part1", "train_part2")
    for root in (tmp_path / "a", tmp_path / "b"):
        pattern = shlex.split(refused(root, "to take all").partition("--config.data.label_pattern=")[2])[0]
        data = opened(root, label_pattern=pattern)
        assert (data.classes, sum(map(len, data.splits.values()))) == (("cat", "dog"), 20)


def test_numbered_folders_are_not_all_taken_where_the_pattern_would_find_other_classes(tmp_path):
    for split in ("train1", "train2"):
        flat(tmp_path / "deeper" / split / "cat", indoor=3, outdoor=3)
        flat(tmp_path / "deeper" / split, dog=3)
    splits(tmp_path / "unsorted", "train")
    flat(tmp_path / "unsorted", test1=3, test2=3)
    for root in (tmp_path / "deeper", tmp_path / "unsorted"):
        assert "label_pattern" not in refused(root, "split by their names; keep one")


def test_two_images_never_have_one_name(tmp_path):
    flat(tmp_path / "here" / "train", **CLASSES)
    flat(tmp_path / "away", **CLASSES)
    refused(tmp_path / "here", "would have this name", train_dir=str(tmp_path / "away"), validation_dir="train")


@pytest.mark.parametrize("names", [("Alpha", "Beta"), ("set 1", "set 2", "set 3"), ("entrenamiento", "prueba")])
def test_classes_that_all_hold_the_same_folders_are_refused(names, tmp_path):
    splits(tmp_path, *names)
    message = refused(tmp_path, *names, "all hold the folders cat, dog", "--config.data.train_dir=")
    assert "--config.data.validation_dir=" in message
    first, *others = names
    assert opened(tmp_path, train_dir=first, validation_dir=others[0]).classes == ("cat", "dog")
    data = opened(tmp_path, train_dir=".")  # they are the classes
    assert data.classes == tuple(sorted(names))


def test_folders_in_classes_that_are_no_splits(tmp_path):
    for name in ("cat/2019/a", "cat/2020", "dog/2020", "dog/extra", "fox"):
        save(tmp_path / name / "1.png", 1)
        save(tmp_path / name / "2.png", 2)
    assert opened(tmp_path).classes == ("cat", "dog", "fox")


def test_splits_within_classes_are_refused(tmp_path):
    for name in ("cat", "dog"):
        flat(tmp_path / name, train=3, test=3)
    refused(tmp_path, "SPLIT/CLASS", "cat holds", "test, train")
    assert opened(tmp_path, train_dir=str(tmp_path)).classes == ("cat", "dog")


@pytest.mark.parametrize(
    "names",
    [
        ("train_cats", "train_dogs", "test_cats", "test_dogs"),
        ("trainA", "trainB", "testA", "testB"),
    ],
)
def test_a_split_and_a_class_in_one_name(names, tmp_path):
    flat(tmp_path, **dict.fromkeys(names, 3))
    refused(tmp_path, "a split and a class", "--config.data.train_dir=")


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "Testing"),
        ("seg_train", "seg_test", "seg_pred"),
        ("train", "test"),
        ("train_data", "test_data", "more"),
    ],
)
def test_splits_without_class_folders_are_never_classes(names, tmp_path):
    flat(tmp_path, **dict.fromkeys(names, 3))
    message = refused(tmp_path, "no class folders")
    assert message.endswith(f"is {names[0]} a class? Then set --config.data.train_dir={tmp_path}")
    assert opened(tmp_path, train_dir=str(tmp_path)).classes == tuple(sorted(names))


def test_a_train_folder_beside_others_with_images_is_not_taken_for_granted(tmp_path):
    flat(tmp_path / "train", steam=3, diesel=3)
    flat(tmp_path, bus=3, car=3)
    refused(tmp_path, "may be splits or classes", "bus, car", "--config.data.train_dir=")
    assert opened(tmp_path, train_dir="train").classes == ("diesel", "steam")
    assert opened(tmp_path, train_dir=".").classes == ("bus", "car", "train")


@pytest.mark.parametrize("name", ["birds_train", "Birds Testing", "val_birds"])
def test_a_folder_with_a_splits_name_and_classes_in_it_is_no_class(name, tmp_path):
    flat(tmp_path / name, **CLASSES)
    flat(tmp_path, more=3)
    refused(
        tmp_path, "may be a split or a class", f"_dir='{tmp_path}/{name}'" if " " in name else f"_dir={tmp_path}/{name}"
    )
    assert opened(tmp_path, train_dir=name).classes == ("cat", "dog")
    assert opened(tmp_path, train_dir=".").classes == tuple(sorted([name, "more"]))


@pytest.mark.parametrize(
    "names",
    [
        ("images", "annotations"),
        ("JPEGImages", "SegmentationClass", "Annotations"),
        ("image", "mask"),
        ("images", "labels"),
        ("HAM10000_images_part_1", "HAM10000_images_part_2"),
        ("images_001", "images_002", "images_003"),
        ("batch1", "batch2"),
        ("fold 1", "fold 2", "fold 3"),
    ],
)
def test_parts_of_a_data_set_are_no_classes(names, tmp_path):
    flat(tmp_path / "data", **dict.fromkeys(names, 3))
    refused(tmp_path / "data", *names, "parts of a data set", "--config.data.train_dir=")
    flat(tmp_path / "splits" / "train", **dict.fromkeys(names, 3))
    flat(tmp_path / "splits" / "test", **dict.fromkeys(names, 3))
    refused(tmp_path / "splits", "parts of a data set")
    assert opened(tmp_path / "data", train_dir=".").classes == tuple(sorted(names))


@pytest.mark.parametrize(
    "names",
    [("Type_1", "Type_2"), ("class1", "class2"), ("0", "1"), ("grade 0", "grade 1"), ("mask", "no mask"), ("1a", "2a")],
)
def test_numbered_classes_and_classes_with_such_words(names, tmp_path):
    flat(tmp_path, **dict.fromkeys(names, 3))
    assert opened(tmp_path).classes == tuple(sorted(names))


def test_a_second_copy_within_the_first(tmp_path):
    flat(tmp_path / "flowers", rose=3, daisy=3, tulip=3)
    flat(tmp_path / "flowers" / "flowers", rose=3, daisy=3, tulip=3)
    refused(tmp_path, "flowers/flowers holds daisy, rose, tulip again", "second copy", "--config.data.train_dir=")
    assert opened(tmp_path, train_dir="flowers/flowers").classes == ("daisy", "rose", "tulip")


def test_two_folders_for_one_split(tmp_path):
    splits(tmp_path, "train", "val", "dev")
    message = refused(tmp_path, "both the validation split")
    assert "--config.data.train_dir=" in message
    data = opened(tmp_path, train_dir="train", validation_dir="dev")
    assert data.splits["validation"].files[0] == "dev/cat/000.png"


def test_a_better_folder_is_suggested(tmp_path):
    splits(tmp_path / "Plants (Augmented)" / "Plants", "train", "valid")
    flat(tmp_path / "test", test=5)
    refused(tmp_path, "no train folder", f"did you mean --config.data.dir='{tmp_path}/Plants (Augmented)/Plants'?")
    assert suggested(tmp_path) == tmp_path / "Plants (Augmented)" / "Plants"


# Named splits


def test_named_splits(tmp_path):
    splits(tmp_path / "data", "Alpha", "Beta", "test")
    splits(tmp_path, "elsewhere")
    data = opened(tmp_path / "data", train_dir="Alpha", validation_dir="Beta/", test_dir=str(tmp_path / "elsewhere"))
    assert {name: split.files[0] for name, split in data.splits.items()} == {
        "train": "Alpha/cat/000.png",
        "validation": "Beta/cat/000.png",
        "test": "test/cat/000.png",  # the split's name stands for a folder elsewhere
    }
    assert data.splits["test"].stored(0) == tmp_path / "elsewhere/cat/000.png"
    assert opened(tmp_path / "data", train_dir="Alpha").splits.keys() == {"train", "validation"}, "only what is named"


def test_a_named_test_beside_what_is_found(tmp_path):
    flat(tmp_path, **CLASSES)
    splits(tmp_path, "later")
    data = opened(tmp_path, test_dir="later")
    assert data.classes == ("cat", "dog")
    assert counts(data.splits["test"]) == [5, 5]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train_dir": "nowhere"}, "--config.data.train_dir=nowhere: there is no folder"),
        ({"test_dir": "train/cat/000.png"}, "--config.data.test_dir=train/cat/000.png: there is no folder"),
        ({"test_dir": "~nobody_of_that_name/x"}, "--config.data.test_dir: ~nobody_of_that_name/x: there is no user"),
        ({"test_dir": "gs://bucket/x"}, "--config.data.test_dir: gs://bucket/x is a URL"),
        ({"train_dir": "a\0b"}, "--config.data.train_dir: a\\x00b"),
        ({"train_dir": "x" * 300}, "there is no folder"),
        ({"train_dir": "train", "validation_dir": "../data/train"}, "this folder is the train split already"),
    ],
)
def test_named_splits_that_cannot_be(settings, words, tmp_path):
    splits(tmp_path / "data", "train", "test")
    refused(tmp_path / "data", words, kind=ConfigError, **settings)


def test_a_home_directory_in_a_named_split(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    flat(tmp_path / "home" / "my [test]", **CLASSES)
    splits(tmp_path / "data", "one")
    data = opened(tmp_path / "data", train_dir="one/", test_dir="~/my [test]")
    assert data.splits["test"].stored(0) == tmp_path / "home/my [test]/cat/000.png"


def test_loops_of_links_end(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data").symlink_to(tmp_path / "data")
    refused(tmp_path / "data", "")


def test_what_was_found_is_said_unless_it_is_where_it_usually_is(tmp_path, caplog):
    splits(tmp_path / "plain", "train", "Val", "test")
    flat(tmp_path / "flat", **CLASSES)
    for root in ("plain", "flat"):
        opened(tmp_path / root)
        assert "usually" not in caplog.text
    splits(tmp_path / "data", "Training", "Testing")
    opened(tmp_path / "data")
    assert f"train is {tmp_path}/data/Training, test is {tmp_path}/data/Testing" in caplog.text
    caplog.clear()
    flat(tmp_path / "deep" / "data" / "data", **CLASSES)
    opened(tmp_path / "deep")
    assert f"train is {tmp_path}/deep/data/data" in caplog.text


@pytest.mark.parametrize("splits", [False, True])
def test_a_new_run_among_the_class_folders_is_refused(tmp_path, splits):
    """It would be taken for a class when it goes on: nothing of it could be used."""
    data = tmp_path / "data"
    for split in ("train", "validation") if splits else (".",):
        flat(data / split, cat=3, dog=3)
    config = default()
    config.data.dir, config.bottleneck.views = str(data), 0
    inside = data / "train" if splits else data
    (tmp_path / "link").symlink_to(inside)
    for place in (inside, inside / "run", inside / "cat" / "run", tmp_path / "link" / "run"):
        with pytest.raises(ConfigError, match=f"class folders in {inside}, and would take a run.*{data}-run"):
            check_place(config, place)
    for place in (tmp_path / "data-run", tmp_path, *([data / "run"] if splits else [])):
        check_place(config, place)
    (inside / "old" / "checkpoints" / "7").mkdir(parents=True)
    check_place(config, inside / "old")  # one of an older version goes on as it did


def test_a_run_near_its_data_that_cannot_be_taken_for_a_class(tmp_path, monkeypatch):
    data = flat(tmp_path / "data", cat=3, dog=3)
    config = default()
    config.data.dir, config.bottleneck.views = str(data), 0
    check_place(config, data / ".runs" / "first")
    check_place(config, data / "cat" / ".runs" / "first")
    config.data.classes = "cat,dog"
    check_place(config, data / "runs" / "first")
    with pytest.raises(ConfigError, match="looks for class folders in"):
        check_place(config, data / "cat" / "first")
    config.data.classes, config.data.train_dir = "", "missing"
    check_place(config, data / "runs")  # that it is missing is said where the data are opened
    config.data.train_dir, config.data.dir = "", "."
    monkeypatch.chdir(data)
    with pytest.raises(ConfigError, match=f"such as {data}-run"):
        check_place(config, Path("runs"))
    config.data.dir = ""
    check_place(config, Path("runs"))


def test_a_run_that_is_there_needs_no_place_for_bottlenecks_to_say_that_it_is_finished(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxcat.training.place.cannot_be_made", lambda folder: "read-only")
    config = default()
    config.data.dir, config.bottleneck.views = str(tmp_path), 1
    with pytest.raises(ConfigError, match="set JAXCAT_CACHE to another one"):
        check_place(config, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "7").mkdir(parents=True)
    check_place(config, tmp_path / "run")


@pytest.mark.parametrize("split", ["", "train"])
def test_a_new_run_beside_the_only_folder_of_the_data_is_refused(split, tmp_path):
    """With the run beside it, that folder is no longer the only one, and would be a class."""
    flat(tmp_path / "data" / "archive" / split, cat=3, dog=3)
    config = default()
    config.data.dir, config.bottleneck.views = str(tmp_path / "data"), 0
    for place in ("run", "runs/first"):
        with pytest.raises(ConfigError, match=f"class folders in {tmp_path}/data, and would take a run there"):
            check_place(config, tmp_path / "data" / place)
    check_place(config, tmp_path / "data" / ".run")
    check_place(config, tmp_path / "run")
    config.data.train_dir = str(Path("archive") / split)
    check_place(config, tmp_path / "data" / "run")
    flat(tmp_path / "other" / "train", cat=3, dog=3)
    config.data.dir, config.data.train_dir = str(tmp_path / "other"), ""
    check_place(config, tmp_path / "other" / "run")


# Folders in classes that are groups

PATIENTS = "(patient[0-9]+)/"


def patients(root: Path, *, shared: bool) -> Path:
    """`root/{ill,well}/patientN/…`: the same five patients in both classes, or others in each."""
    for place, name in enumerate(("ill", "well")):
        start = 0 if shared else 5 * place
        flat(root / name, **{f"patient{number}": 2 for number in range(start, start + 5)})
    return root


@pytest.mark.parametrize("split", ["", "train/", "archive/"])
@pytest.mark.parametrize("shared", [False, True])
def test_groups_that_the_pattern_finds_are_neither_classes_nor_splits(shared, split, tmp_path, caplog):
    patients(tmp_path / split, shared=shared)
    data = opened(tmp_path, group_pattern=PATIENTS)
    assert data.classes == ("ill", "well")
    of_split = [{file.split("/")[-2] for file in each.files} for each in data.splits.values()]
    assert not of_split[0] & of_split[1]
    assert len(of_split[0] | of_split[1]) == (5 if shared else 10)
    assert "lie in" not in caplog.text


@pytest.mark.parametrize("shared", [False, True])
def test_each_advice_about_folders_in_classes_does_what_it_says(shared, tmp_path, caplog):
    patients(tmp_path, shared=shared)
    if shared:
        said = refused(tmp_path, "the folders ill, well all hold the folders patient0")
    else:
        opened(tmp_path)
        said = caplog.text
        assert "'ill' lie in 5 folders, such as patient0; " in said
    setting = {name: shlex.split(value)[0] for name, value in re.findall(r"--config\.data\.(\w+)=('[^']+')", said)}
    caplog.clear()
    grouped = opened(tmp_path, group_pattern=setting["group_pattern"])
    assert grouped.classes == ("ill", "well")
    assert {*grouped.splits["train"].groups} | {*grouped.splits["validation"].groups} == {
        f"patient{number}" for number in range(5 if shared else 10)
    }
    assert "lie in" not in caplog.text
    inner = opened(tmp_path, label_pattern=setting["label_pattern"])
    assert inner.classes == tuple(f"patient{number}" for number in range(5 if shared else 10))


@pytest.mark.parametrize("pattern", ["^([^/]+)/", r"/(\d+)\.png$", "(pateint[0-9]+)/"])
def test_a_group_elsewhere_in_the_path_does_not_say_what_the_folders_are(pattern, tmp_path):
    refused(splits(tmp_path, "Alpha", "Beta"), "all hold the folders cat, dog", group_pattern=pattern)


def test_groups_are_not_suggested_where_the_pattern_would_find_others(tmp_path, caplog):
    flat(tmp_path / "ill" / "hospital", patient0=3, patient1=3)
    flat(tmp_path / "ill" / "home", patient2=3)
    flat(tmp_path / "well" / "school", patient3=3)
    flat(tmp_path / "well" / "clinic", patient4=3)
    opened(tmp_path)
    assert "lie in 2 folders" in caplog.text
    assert "group_pattern" not in caplog.text
    assert "label_pattern" not in caplog.text


def test_one_class_folder_is_named_with_the_place_of_the_others(tmp_path):
    flat(tmp_path, cat=3)
    refused(tmp_path, f"found: 'cat'; put the folder of each other class beside it, into {tmp_path}")
