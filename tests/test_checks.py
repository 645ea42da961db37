"""Data that are odd without being wrong are named before training."""

from __future__ import annotations

import shutil

import pytest
from test_data import flat, opened, save

from jaxcat.config import default
from jaxcat.data.sources import open_data
from jaxcat.errors import DataError
from jaxcat.train import train


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "jaxcat.data.checks"]


def split_folders(tmp_path, **train: int):
    flat(tmp_path / "train", **train)
    for index, name in enumerate(train):
        for i in range(2):
            save(tmp_path / "validation" / name / f"{i}.png", 100 + 10 * index + i)
    return tmp_path


def test_ordinary_data_bring_no_warning(tmp_path, caplog):
    folder = split_folders(tmp_path, cat=9, dog=9)
    for i in range(9):
        save(folder / "train" / "dog" / f"{i:03}.png", 50 + i)
    opened(folder)
    assert warnings(caplog) == []


def test_the_same_image_in_train_and_validation(tmp_path, caplog):
    folder = split_folders(tmp_path, cat=9, dog=9)
    shutil.copy(folder / "train/cat/003.png", folder / "validation/cat/renamed.png")
    opened(folder)
    (message,) = warnings(caplog)
    assert message.startswith("1 image of validation is in train too, so validation looks better than it is")
    assert "train/cat/003.png ('cat') = validation/cat/renamed.png ('cat')" in message


@pytest.mark.parametrize("name", ["validation", "Val"])
def test_shuffled_labels_are_an_error(tmp_path, name):
    folder = split_folders(tmp_path, cat=9, dog=9)
    for i in range(2, 7):
        shutil.copy(folder / f"train/cat/00{i}.png", folder / f"validation/dog/renamed{i}.png")
    (folder / "validation").rename(folder / name)
    with pytest.raises(DataError, match=f"5 of 5 images .* another class .*train/cat/002.png and {name}/dog"):
        opened(folder, classes="cat,dog")


def test_one_placeholder_in_several_classes_is_a_warning(tmp_path, caplog):
    folder = split_folders(tmp_path, cat=9, dog=9)
    for i in range(8):
        shutil.copy(folder / "train/cat/003.png", folder / f"validation/dog/placeholder{i}.png")
    opened(folder, classes="cat,dog")
    assert warnings(caplog)[0].startswith("1 image is in two classes")


def test_extreme_imbalance_names_class_weight(tmp_path, caplog):
    folder = split_folders(tmp_path, cat=40, dog=4)
    opened(folder)
    (message,) = warnings(caplog)
    for words in ("'cat' has 40", "'dog' has 4", "--config.optim.class_weight=balanced"):
        assert words in message
    caplog.clear()
    config = default()
    config.data.dir, config.optim.class_weight = str(folder), "balanced"
    open_data(config)
    assert warnings(caplog) == []


def test_a_class_with_one_image(tmp_path, caplog):
    opened(split_folders(tmp_path, cat=5, dog=1))
    assert any("1 class has one image in train: dog" in message for message in warnings(caplog))


@pytest.mark.parametrize("content", [b"", b"<html>"])
def test_files_that_are_no_images_do_not_stop_the_comparison(tmp_path, caplog, content):
    """Empty files are all alike; they are no image, and decoding names them."""
    folder = split_folders(tmp_path, cat=9, dog=9)
    for split in ("train", "validation"):
        (folder / split / "cat" / "bad.png").write_bytes(content)
        (folder / split / "cat" / "dead.png").symlink_to("nowhere")
    opened(folder)
    assert len(warnings(caplog)) == (1 if content else 0)


def test_what_is_no_image_is_named_before_weights_are_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("jaxcat.training.loop.find_origin", lambda *_, **__: pytest.fail("weights are asked for"))
    folder = split_folders(tmp_path / "data", cat=3, dog=3)
    (folder / "train/cat/000.png").write_text("<html>404</html>")
    (folder / "validation/dog/0.png").write_bytes(b"")
    config = default()
    config.data.dir = str(folder)
    with pytest.raises(DataError, match=r"(?s)2 of 10 images.*000.png: not an image.*HTML.*0.png: the file is empty"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "cache").exists()
