"""The same image in two classes or two splits is named: by the bytes of its files, and by its decoded pixels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from test_checks import warnings
from test_data import opened

from jaxcat.config import default
from jaxcat.data import records, twins
from jaxcat.data.records import Split
from jaxcat.data.streaming import decode_all, stores_of, warn_of_known_pixels


def noise(seed: int, height: int = 40, width: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def fill(root: Path, *, count: int = 4) -> Path:
    """`root/{train,validation,test}/{cat,dog}/N.png`, all different."""
    for number, folder in enumerate(
        f"{split}/{name}" for split in ("train", "validation", "test") for name in ("cat", "dog")
    ):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(noise(100 * number + i)).save(root / folder / f"{i}.png")
    return root


@pytest.fixture
def folder(tmp_path) -> Path:
    return fill(tmp_path)


def test_different_images_bring_no_warning(folder, caplog):
    opened(folder)
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("train/cat", "train/dog"),
        ("train/dog", "validation/cat"),
        ("train/cat", "test/dog"),
        ("validation/cat", "validation/dog"),
        ("test/cat", "test/dog"),
        ("validation/cat", "test/dog"),
    ],
)
def test_one_file_in_two_classes_within_and_across_splits(one, other, folder, caplog):
    shutil.copy(folder / one / "2.png", folder / other / "renamed.png")
    opened(folder)
    (message,) = warnings(caplog)
    assert message.startswith("1 image is in two classes, so at least one label is wrong: ")
    for place in (f"{one}/2.png ('{one[-3:]}')", f"{other}/renamed.png ('{other[-3:]}')"):
        assert place in message
    assert "looks better" not in message


def test_two_class_folders_of_one_held_out_split(tmp_path, caplog):
    fill(tmp_path)
    shutil.copy(tmp_path / "train/cat/1.png", tmp_path / "train/dog/x.png")
    opened(tmp_path / "train")
    assert [message.partition(":")[0] for message in warnings(caplog)] == [
        "1 image is in two classes, so at least one label is wrong"
    ]


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ("train/cat", "validation/cat", "1 image of validation is in train too, so validation looks better than it is"),
        ("train/dog", "test/dog", "1 image of test is in train or validation too, so test looks better than it is"),
        ("validation/dog", "test/dog", "1 image of test is in train or validation too"),
        ("train/cat", "train/cat", None),
        ("test/cat", "test/cat", None),
    ],
)
def test_one_file_in_two_splits(one, other, says, folder, caplog):
    shutil.copy(folder / one / "0.png", folder / other / "renamed.png")
    opened(folder)
    assert [message.partition(":")[0].startswith(says) for message in warnings(caplog)] == ([True] if says else [])


def test_groups_by_bytes_are_those_of_a_comparison_of_all_pairs(tmp_path):
    """Files of few sizes, many with the same end, some equal: against comparing every file with every other."""
    generator, contents = np.random.default_rng(0), []
    for number in range(60):
        size, kind = int(generator.integers(1, 4)) * 5000, int(generator.integers(0, 3))
        contents.append(bytes([kind]) * 10 + bytes(size) if number % 2 else bytes([kind]) + bytes(size - 1))
    for number, content in enumerate(contents):
        (tmp_path / f"{number:02}").write_bytes(content)
    paths = [tmp_path / f"{number:02}" for number in range(60)]
    split = Split("train", tuple(path.name for path in paths), np.zeros(60, np.int32), paths.__getitem__)
    found = {frozenset(record.number for record in group) for group in twins.by_bytes({"train": split})}
    expected = {frozenset(i for i in range(60) if contents[i] == content) for content in contents}
    assert found == {group for group in expected if len(group) > 1}


def test_few_files_are_read_whole(folder, monkeypatch):
    data, read = opened(folder), []
    digest = Split.digest
    monkeypatch.setattr(Split, "digest", lambda split, index: read.append(split.files[index]) or digest(split, index))
    twins.by_bytes(data.splits)
    assert read == []
    shutil.copy(folder / "train/cat/0.png", folder / "test/cat/x.png")
    twins.by_bytes(opened(folder).splits)
    assert set(read) == {"train/cat/0.png", "test/cat/x.png"}


# By pixels


def decoded(folder: Path, **settings) -> int:
    """Decodes train and validation as a run does; returns the number of images that were decoded."""
    config = default()
    config.data.dir, config.data.image_size = str(folder), 32
    config.data.update(settings)
    data = opened(folder, **settings)
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        decode = records.decode
        patch.setattr(records, "decode", lambda *given, **more: calls.append(given) or decode(*given, **more))
        stores = stores_of(config, data.splits)
        assert decode_all(stores, Console(quiet=True), classes=data.classes, skip_bad=False) == 0
    return len(calls)


@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
@pytest.mark.parametrize("form", ["bmp", "webp", "png"])
def test_the_same_pixels_in_two_classes(form, cache_gb, folder, caplog):
    image = Image.open(folder / "train/cat/1.png")
    options = {"webp": {"lossless": True}, "png": {"compress_level": 1}}.get(form, {})
    image.save(folder / f"validation/dog/copy.{form}", **options)
    assert decoded(folder, cache_gb=cache_gb) == 17  # each once
    (message,) = warnings(caplog)
    assert message.startswith(
        "1 image is in two classes (the same pixels in another file), so at least one label is wrong"
    )
    assert f"train/cat/1.png ('cat') = validation/dog/copy.{form} ('dog')" in message


def test_the_same_pixels_in_train_and_validation(folder, caplog):
    Image.open(folder / "train/cat/1.png").save(folder / "validation/cat/copy.bmp")
    decoded(folder)
    (message,) = warnings(caplog)
    assert message.startswith(
        "1 image of validation is in train too (the same pixels in another file), so validation looks better"
    )


def test_the_cache_knows_the_pixels_of_images_that_were_decoded_before(folder, caplog, monkeypatch, tmp_path):
    """As where a run finds all its bottlenecks."""
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path / "cache"))
    Image.open(folder / "train/cat/1.png").save(folder / "validation/dog/copy.bmp")
    data = opened(folder)
    digests = {name: [split.digest(i) for i in range(len(split))] for name, split in data.splits.items()}
    warn_of_known_pixels(data.splits, digests, classes=data.classes)
    assert warnings(caplog) == []  # nothing was decoded yet
    decoded(folder)
    (first,) = warnings(caplog)
    monkeypatch.setattr(records, "decode", None)
    warn_of_known_pixels(data.splits, digests, classes=data.classes)
    assert warnings(caplog) == [first, first]


def test_no_image_is_decoded_twice_for_copies_that_do_not_matter(folder, caplog):
    Image.open(folder / "train/cat/1.png").save(folder / "train/cat/copy.bmp")
    assert decoded(folder) == 17
    assert warnings(caplog) == []


def test_what_bytes_have_shown_is_not_said_again(folder, caplog):
    shutil.copy(folder / "train/cat/1.png", folder / "train/dog/copy.png")
    decoded(folder)
    assert len(warnings(caplog)) == 1
    Image.open(folder / "train/cat/1.png").save(folder / "train/dog/another.bmp")
    caplog.clear()
    decoded(folder)
    assert len(warnings(caplog)) == 2
