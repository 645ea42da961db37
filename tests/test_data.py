"""A folder becomes the same splits on every machine, and what is wrong with it is said before any long work."""

import os
import random
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcat.config import default
from jaxcat.data.indexing.folder import open_labelled_folder
from jaxcat.data.indexing.skipped import Reason, Skipped
from jaxcat.data.indexing.walking import image_files
from jaxcat.data.records import fingerprint
from jaxcat.data.sources import open_data
from jaxcat.errors import ConfigError, DataError


def save(path: Path, colour: int = 0) -> None:
    """Every folder of images, such as train/cat, has colours of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    of_folder = zlib.crc32("/".join(path.parts[-3:-1]).encode("utf-8", "surrogateescape"))
    Image.new("RGB", (4, 6), (colour, of_folder & 255, of_folder >> 8 & 255)).save(path)


def flat(root: Path, **counts: int) -> Path:
    """`root/CLASS/NNN.png`, as many as named for each class."""
    for name, count in counts.items():
        for i in range(count):
            save(root / name / f"{i:03}.png", i)
    return root


def opened(root: Path, **settings):
    config = default()
    config.data.dir = str(root)
    config.seed = settings.pop("seed", 0)
    config.data.update(settings)
    return open_data(config)


def names(data) -> dict[str, tuple[str, ...]]:
    return {name: split.files for name, split in data.splits.items()}


def counts(split, classes: int = 2) -> list[int]:
    return np.bincount(split.labels, minlength=classes).tolist()


def refused(root: Path, *fragments: str, kind=DataError, **settings) -> str:
    with pytest.raises(kind) as caught:
        opened(root, **settings)
    message = str(caught.value)
    for fragment in fragments:
        assert fragment in message
    return message


# Folders with splits


@pytest.mark.parametrize("spelling", ["validation", "val", "Valid", "dev"])
def test_folders_of_splits(spelling, tmp_path):
    flat(tmp_path / "train", dog=3, cat=2)
    flat(tmp_path / spelling, dog=1, cat=2)
    flat(tmp_path / "test", dog=1, cat=1)
    data = opened(tmp_path)
    assert data.classes == ("cat", "dog")
    assert {name: counts(split) for name, split in data.splits.items()} == {
        "train": [2, 3],
        "validation": [2, 1],
        "test": [1, 1],
    }
    assert data.splits["validation"].files[0] == f"{spelling}/cat/000.png"
    train = data.splits["train"]
    for index, (file, label) in enumerate(zip(train.files, train.labels, strict=True)):
        assert file.split("/")[1] == data.classes[label]
        np.testing.assert_array_equal(train.fetch(index), np.asarray(Image.open(tmp_path / file)))


def test_without_a_validation_folder_some_of_train_is_held_out(tmp_path):
    flat(tmp_path / "train", cat=10, dog=20)
    flat(tmp_path / "test", cat=1, dog=1)
    data = opened(tmp_path)
    assert counts(data.splits["train"]) == [8, 16]
    assert counts(data.splits["validation"]) == [2, 4]
    assert counts(data.splits["test"]) == [1, 1]


@pytest.mark.parametrize("classes", [("train", "bus", "car"), ("valid", "invalid")])
def test_classes_may_be_called_as_splits_are(classes, tmp_path):
    flat(tmp_path, **dict.fromkeys(classes, 3))
    assert opened(tmp_path).classes == tuple(sorted(classes))


def test_a_class_that_train_has_and_validation_has_not(tmp_path):
    flat(tmp_path / "train", cat=2, dog=2, fox=2)
    flat(tmp_path / "validation", cat=2, dog=2)
    refused(tmp_path, "validation", "'fox'")
    assert opened(tmp_path, classes="cat,dog").classes == ("cat", "dog")  # the missing class is not asked for


def test_a_class_that_is_new_in_validation_names_the_nearest(tmp_path):
    flat(tmp_path / "train", cat=2, dog=2)
    flat(tmp_path / "validation", cat=2, dog=2, dogs=1)
    refused(tmp_path, "'dogs'", "did you mean 'dog'")


def test_splits_without_train_or_twice(tmp_path):
    flat(tmp_path / "val", cat=2, dog=2)
    refused(tmp_path, "no train folder")
    flat(tmp_path / "train", cat=2, dog=2)
    flat(tmp_path / "validation", cat=2, dog=2)
    refused(tmp_path, "both the validation split")


def test_empty_class(tmp_path):
    flat(tmp_path, cat=2, dog=2)
    (tmp_path / "fox").mkdir()
    (tmp_path / "fox" / "notes.txt").write_text("soon")
    refused(tmp_path, str(tmp_path / "fox"), "no image")


def test_directories_that_cannot_be_data(tmp_path):
    refused(tmp_path, str(tmp_path), "no class folders", "DIR/CLASS")
    save(tmp_path / "loose.png")
    refused(tmp_path, "no class folders")
    flat(tmp_path, cat=3)
    refused(tmp_path, "two classes", "'cat'")
    refused(tmp_path / "nowhere", f"--config.data.dir={tmp_path / 'nowhere'}", "no such folder")
    refused(tmp_path / "loose.png", "--config.data.dir=")
    refused("", "--config.data.dir=DIR")


def test_images_directly_in_train(tmp_path):
    save(tmp_path / "train" / "cat.0.png")
    save(tmp_path / "test" / "1.png")
    refused(tmp_path, str(tmp_path / "train"), "no class folders")


# What counts as an image


def test_suffixes_nested_folders_and_what_is_passed_over(tmp_path, caplog):
    flat(tmp_path, cat=2, dog=1)
    save(tmp_path / "dog" / "deep" / "er" / "UPPER.PNG")
    for name in ("cat/.hidden.png", "cat/Thumbs.db", "cat/._1.jpg", "cat/notes.txt", "dog/list.csv", "loose.png"):
        (tmp_path / name).write_bytes(b"x")
    data = opened(tmp_path)
    everything = {file for files in names(data).values() for file in files}
    assert everything == {"cat/000.png", "cat/001.png", "dog/000.png", "dog/deep/er/UPPER.PNG"}
    assert [(reason, data.skipped.count(reason)) for reason in Reason if data.skipped.count(reason)] == [
        (Reason.LEFT, 2),  # Thumbs.db and ._1.jpg
        (Reason.HIDDEN, 1),
        (Reason.UNLABELLED, 1),
        (Reason.OTHER, 2),
    ]
    assert [line for line in data.skipped.lines() if line in caplog.text] == data.skipped.lines()
    assert "2 files skipped: files that are no images" in caplog.text
    assert "cat/notes.txt" in caplog.text


def test_links(tmp_path):
    """A link back to an enclosing folder ends the walk; one to another folder or file is followed; a dead one shows."""
    flat(tmp_path / "data", cat=1, dog=1)
    save(tmp_path / "elsewhere" / "far.png")
    cat = tmp_path / "data" / "cat"
    (cat / "loop").symlink_to(tmp_path / "data" / "cat")
    (cat / "up").symlink_to(tmp_path / "data")
    (cat / "outside").symlink_to(tmp_path / "elsewhere")
    (cat / "dead.png").symlink_to(tmp_path / "none.png")
    (cat / "file.png").symlink_to(tmp_path / "elsewhere" / "far.png")
    found = [path.relative_to(cat).as_posix() for path in image_files(cat, Skipped())]
    assert found == ["000.png", "dead.png", "file.png", "outside/far.png"]


def test_names_that_are_not_utf8(tmp_path):
    flat(tmp_path, cat=3, dog=3)
    os.rename(os.fsencode(tmp_path / "cat/000.png"), os.fsencode(tmp_path / "cat") + b"/caf\xe9.png")
    data = opened(tmp_path)
    split, index = next((split, i) for split in data.splits.values() for i, f in enumerate(split.files) if "caf" in f)
    assert os.fsencode(split.files[index]) == b"cat/caf\xe9.png"
    assert split.fetch(index).shape == (6, 4, 3)
    (tmp_path / split.files[index]).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        split.fetch(index)
    str(caught.value).encode()  # can be printed


def test_class_names_that_are_not_utf8_are_refused(tmp_path):
    flat(tmp_path, cat=3, dog=3)
    os.rename(os.fsencode(tmp_path / "cat"), os.fsencode(tmp_path) + b"/caf\xe9")
    refused(tmp_path, "UTF-8", "udce9").encode()


# The seeded split


def test_split_does_not_depend_on_listing_order_or_place(tmp_path, monkeypatch):
    here = flat(tmp_path / "here", cat=30, dog=20)
    expected = names(opened(here))
    listdir, generator = os.listdir, random.Random(0)

    def shuffled(directory):
        entries = listdir(directory)
        generator.shuffle(entries)
        return entries

    monkeypatch.setattr(os, "listdir", shuffled)
    assert names(opened(here)) == expected
    for file in reversed([file for files in expected.values() for file in files]):
        (tmp_path / "there" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(here / file, tmp_path / "there" / file)
    assert names(opened(tmp_path / "there")) == expected


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_split_is_stratified_complete_and_disjoint(fraction, tmp_path):
    flat(tmp_path, cat=40, dog=10)
    data = opened(tmp_path, validation_fraction=fraction)
    train, validation = data.splits["train"], data.splits["validation"]
    assert counts(validation) == [40 * fraction, 10 * fraction]
    assert len(set(train.files) | set(validation.files)) == len(train) + len(validation) == 50


def test_split_follows_the_seed(tmp_path):
    flat(tmp_path, cat=30, dog=30)
    first, again, other = (set(opened(tmp_path, seed=seed).splits["validation"].files) for seed in (0, 0, 1))
    assert first == again
    assert len(first & other) < len(first) / 2


def test_a_new_image_moves_at_most_one_other(tmp_path):
    flat(tmp_path, cat=50, dog=50)
    before = set(opened(tmp_path).splits["validation"].files)
    for i in range(20):
        save(tmp_path / "cat" / f"new{i}.png")
        after = set(opened(tmp_path).splits["validation"].files)
        assert len((before ^ after) - {f"cat/new{i}.png"}) <= 1
        before = after


def test_every_class_is_on_either_side(tmp_path):
    flat(tmp_path, cat=2, dog=50)
    for fraction in (0.01, 0.9):
        data = opened(tmp_path, validation_fraction=fraction)
        assert all(min(counts(split)) >= 1 for split in data.splits.values())
    flat(tmp_path, fox=1)
    flat(tmp_path, elk=1)
    refused(tmp_path, "'elk' (1), 'fox' (1)", "--config.data.min_per_class=2")


# Subsets


def test_subsets_are_balanced_nested_and_seeded(tmp_path):
    flat(tmp_path, cat=40, dog=25)
    small, large = (opened(tmp_path, train_size=size, validation_size=4) for size in (10, 31))
    assert counts(small.splits["train"]) == [5, 5]
    assert counts(large.splits["train"]) == [16, 15]
    assert counts(small.splits["validation"]) == [2, 2]
    assert set(small.splits["train"].files) < set(large.splits["train"].files)
    assert small.splits["validation"].files == large.splits["validation"].files
    assert not set(large.splits["train"].files) & set(opened(tmp_path).splits["validation"].files)
    assert names(opened(tmp_path, train_size=10, validation_size=4)) == names(small)
    assert names(opened(tmp_path, train_size=10, validation_size=4, seed=1)) != names(small)


def test_a_subset_that_cannot_be(tmp_path):
    flat(tmp_path, cat=40, dog=25)
    refused(tmp_path, "--config.data.train_size=42", "'dog'", "20", "2 to 40", train_size=42)
    refused(tmp_path, "--config.data.validation_size=12", "'dog'", "2 to 10", validation_size=12)
    refused(tmp_path, "--config.data.train_size=1", train_size=1)
    assert counts(opened(tmp_path, train_size=40).splits["train"]) == [20, 20]


def test_chosen_classes(tmp_path):
    flat(tmp_path, cat=5, dog=5, fox=5)
    data = opened(tmp_path, classes="fox, cat")
    assert data.classes == ("cat", "fox")  # whatever order the flag has
    for split in data.splits.values():
        assert [data.classes[label] for label in split.labels] == [file.split("/")[0] for file in split.files]
    refused(tmp_path, "--config.data.classes=cat,foz", "'foz'", "fox", kind=ConfigError, classes="cat,foz")
    refused(tmp_path, "--config.data.classes=cat", "two classes", classes="cat")


def test_unknown_source():
    config = default()
    config.data.source = "s3"
    with pytest.raises(ConfigError, match="folder, table, tfds, digits, glyphs"):
        open_data(config)


def test_tables_of_choices_have_meanings_and_import_no_framework():
    code = """
import sys
from jaxcat.data.augmentation.table import AUGMENTATIONS
from jaxcat.data.images.resizing import RESIZES
from jaxcat.data.sources import SOURCES
for table in (AUGMENTATIONS, RESIZES, SOURCES):
    assert all(choice.meaning and "\\n" not in choice.meaning for choice in table.values())
print(sorted({"jax", "flax", "optax", "tensorflow", "tensorflow_datasets", "sklearn"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


# A folder for evaluation


def test_labelled_folder(tmp_path):
    flat(tmp_path, zebra=1, cat=2)
    split = open_labelled_folder(tmp_path, ("dog", "zebra", "cat"))
    assert dict(zip(split.files, split.labels, strict=True)) == {"cat/000.png": 2, "cat/001.png": 2, "zebra/000.png": 1}
    assert split.fetch(0).shape == (6, 4, 3)
    for root, message in ((tmp_path, "'zebra'"), (tmp_path / "none", "no such folder"), (tmp_path / "cat", "images")):
        with pytest.raises(DataError, match=message):
            open_labelled_folder(root, ("cat", "dog"))


def test_a_labelled_folder_may_be_a_level_higher_and_the_one_that_is_meant_is_named(tmp_path):
    flat(tmp_path / "archive" / "data", cat=2, dog=1)
    split = open_labelled_folder(tmp_path / "archive", ("cat", "dog"))
    assert split.files == ("data/cat/000.png", "data/cat/001.png", "data/dog/000.png")
    for name in ("train", "test"):
        flat(tmp_path / "splits" / name, cat=2, dog=1)
    with pytest.raises(DataError, match=f"'test', 'train' are no classes.*did you mean --data {tmp_path}/splits/test"):
        open_labelled_folder(tmp_path / "splits", ("cat", "dog"))


def test_what_is_passed_over_in_a_labelled_folder_is_said(tmp_path, caplog):
    flat(tmp_path, a=2, b=1)
    (tmp_path / "a" / "scan.psd").touch()
    (tmp_path / "unlabelled.png").touch()
    assert len(open_labelled_folder(tmp_path, ("a", "b"))) == 3
    assert "1 file skipped: images outside the class folders" in caplog.text
    assert "1 file skipped: images in a format that jaxcat does not read" in caplog.text


def test_records_have_a_fingerprint_of_names_and_labels(tmp_path):
    first = fingerprint(opened(flat(tmp_path / "data", a=3, b=3)).splits)
    moved = (tmp_path / "data").rename(tmp_path / "moved")
    assert fingerprint(opened(moved).splits) == first
    assert fingerprint(opened(moved, seed=1).splits) != first  # others are held out
    (moved / "a").rename(moved / "c")
    assert fingerprint(opened(moved).splits) != first
