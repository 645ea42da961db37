"""`jaxcat check DIR` shows what is in a folder, and refuses exactly what train would refuse."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rich.console import Console
from small import image_folder
from test_data import flat, save

from jaxcat import check
from jaxcat.config import default
from jaxcat.data.sources import open_data
from jaxcat.data.streaming import decode_all, stores_of
from jaxcat.errors import DataError, JaxcatError

REPOSITORY = Path(__file__).resolve().parent.parent


def run(*arguments: object) -> subprocess.CompletedProcess:
    """Runs the command from the root of the repository, as README says."""
    return subprocess.run(
        [sys.executable, "-m", "jaxcat.check", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        timeout=60,
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    return image_folder(tmp_path / "data", train=3, validation=2)


@pytest.fixture
def checked(capsys):
    """A function that runs the command in this process: (exit status, lines on standard output)."""

    def call(*arguments: object) -> tuple[int, list[str]]:
        capsys.readouterr()
        status = check.main([str(argument) for argument in arguments])
        return status, capsys.readouterr().out.splitlines()

    return call


def test_images_in_the_folder_itself_and_in_one_of_a_split(checked, tmp_path):
    _, lines = checked(flat(tmp_path / "one", cat=5, dog=5))
    assert "train: 8 images" in lines
    flat(tmp_path / "two" / "train", cat=5, dog=5)
    _, lines = checked(tmp_path / "two")
    assert "train: 8 images, train" in lines


def test_good_images(folder):
    (folder / "train" / "notes.txt").write_text("x")
    done = run(folder, "--jobs", 2)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert done.stdout.decode().splitlines() == [
        "train: 6 images, train",
        "validation: 4 images, validation",
        "class   train  validation",
        "disc        3           2",
        "square      3           2",
        "10 images, 0 unreadable; 10 PNG",
        "width × height: 90×90 (train/disc/000.png) to 90×90 (train/disc/000.png), median 90×90",
        f"1 file skipped: files that are no images ({folder}/train/notes.txt)",
        "train would accept this folder",
    ]


def test_every_bad_image_is_named_in_order(folder):
    bad = [folder / "train/disc/001.png", folder / "train/square/000.png", folder / "validation/disc/001.png"]
    bad[0].write_bytes(b"")
    bad[1].write_bytes(bad[1].read_bytes()[:-500])
    bad[2].write_bytes(b"<html>")
    os.rename(folder / "train/square/002.png", os.fsencode(folder) + b"/train/square/caf\xe9.png")
    done = run(folder)
    assert done.returncode == 1
    lines = [line for line in done.stdout.decode().splitlines() if line.startswith("unreadable: ")]
    assert [line.split(": ")[1] for line in lines] == [str(path) for path in bad]
    for line, reason in zip(lines, ("empty", "truncated", "HTML"), strict=True):
        assert reason in line
    assert "10 images, 3 unreadable; 7 PNG" in done.stdout.decode()
    assert "3 of 10 images for training and validation cannot be read" in done.stdout.decode()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: there is no such folder"),
        (["images", "--config.data.classes=cat,elk"], "no class 'elk'"),
        pytest.param(["empty"], "empty: no class folders", marks=pytest.mark.slow),
        pytest.param(["empty", "--jobs", 0], "--jobs 0", marks=pytest.mark.slow),
        pytest.param(["empty", "--config.data.classe=a"], "did you mean data.classes?", marks=pytest.mark.slow),
        pytest.param(["empty", "--config.data.source=digits"], "--config.data.source=digits", marks=pytest.mark.slow),
        pytest.param(
            ["images", "--config.data.train_dir=none"], "--config.data.train_dir=none", marks=pytest.mark.slow
        ),
    ],
)
def test_requests_that_cannot_work(arguments, message, tmp_path):
    (tmp_path / "empty").mkdir()
    flat(tmp_path / "images", cat=2, dog=2)
    done = run(tmp_path / arguments[0], *arguments[1:])
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert not done.stdout


def test_it_imports_no_framework(folder):
    code = (
        "import sys\nfrom jaxcat import check\n"
        f"check.main([{str(folder)!r}])\n"
        "assert not sys.modules.keys() & {'jax', 'flax', 'optax', 'orbax', 'tensorflow'}"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# What train refuses


def spoiled(folder: Path, kind: str) -> Path:
    """A folder with one thing wrong, or odd."""
    flat(folder / "train", cat=4, dog=4)
    flat(folder / "validation", cat=2, dog=2)
    if kind == "a class less":
        shutil.rmtree(folder / "validation/cat")
    elif kind == "a class more":
        flat(folder / "validation", elk=1)
    elif kind == "an empty class":
        (folder / "train/elk").mkdir()
    elif kind == "an unreadable image":
        (folder / "train/cat/000.png").write_bytes(b"x")
    elif kind == "an unreadable class":
        for path in (folder / "train/cat").iterdir():
            path.write_bytes(b"x")
    elif kind == "an unreadable image in test":
        flat(folder / "test", cat=2)
        (folder / "test/cat/000.png").write_bytes(b"x")
    elif kind == "a test folder without labels":
        save(folder / "test/0.png")
    elif kind == "the same folders in all":
        (folder / "train").rename(folder / "one")
        (folder / "validation").rename(folder / "two")
    elif kind == "shuffled labels":
        flat(folder / "train", cat=9, dog=9)
        for number in range(6):
            shutil.copy(folder / f"train/cat/{number:03}.png", folder / f"validation/dog/x{number}.png")
    elif kind == "no classes":
        for split in ("train", "validation"):
            shutil.rmtree(folder / split)
        save(folder / "a.png")
    elif kind == "one class":
        for split in ("train", "validation"):
            shutil.rmtree(folder / split / "cat")
    elif kind == "too few to hold out":
        shutil.rmtree(folder / "validation")
        flat(folder / "train", elk=1)
    return folder


KINDS = (
    *("nothing", "a class less", "a class more", "an empty class", "an unreadable image", "an unreadable class"),
    *("an unreadable image in test", "a test folder without labels", "the same folders in all", "shuffled labels"),
    *("no classes", "one class", "too few to hold out"),
)


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_it_refuses_exactly_what_train_refuses(kind, skip_bad, tmp_path, checked):
    folder = spoiled(tmp_path / "data", kind)
    config = default()
    config.data.dir, config.data.image_size, config.data.skip_bad = str(folder), 32, skip_bad
    try:  # what loop.train does before it needs a network
        data = open_data(config)
        decode_all(stores_of(config, data.splits), Console(quiet=True), classes=data.classes, skip_bad=skip_bad)
        refused = False
    except JaxcatError:
        refused = True
    status, lines = checked(folder, f"--config.data.skip_bad={skip_bad}")
    assert (status == 1) == refused
    assert lines[-1].startswith("train would refuse" if refused else "train would accept")


def test_twins_with_two_labels_come_first(tmp_path, checked):
    flat(tmp_path / "train", cat=4, dog=4)
    flat(tmp_path / "test", cat=4, dog=4)
    shutil.copy(tmp_path / "train/cat/000.png", tmp_path / "train/cat/same.png")
    shutil.copy(tmp_path / "train/cat/001.png", tmp_path / "test/cat/same.png")
    Image.open(tmp_path / "train/cat/002.png").save(tmp_path / "test/dog/same.bmp")
    status, lines = checked(tmp_path)
    assert status == 0
    assert [line for line in lines if line.startswith("the same image")] == [
        "the same image in two classes: train/cat/002.png ('cat') = test/dog/same.bmp ('dog')",
        "the same image: train/cat/001.png ('cat') = test/cat/same.png ('cat')",
        "the same image: train/cat/000.png ('cat') = train/cat/same.png ('cat')",
    ]


def test_formats_sizes_classes_in_order_and_the_files_that_are_named_wrongly(tmp_path, checked):
    flat(tmp_path, **{"10": 4, "9": 4})
    Image.new("RGB", (300, 200), "red").save(tmp_path / "9" / "large.jpg")
    Image.new("RGB", (3, 2), "blue").save(tmp_path / "9" / "small.png", "GIF")
    status, lines = checked(tmp_path)
    assert status == 0
    assert [line.split()[0] for line in lines[3:5]] == ["9", "10"]
    assert lines[5] == "10 images, 0 unreadable; 8 PNG, 1 JPEG, 1 GIF"
    assert lines[6] == "width × height: 3×2 (9/small.png) to 300×200 (9/large.jpg), median 4×6"
    assert "1 with another format's suffix: 9/small.png (GIF)" in lines


def test_layout_problems_and_the_folder_that_is_meant(tmp_path, checked):
    flat(tmp_path / "a" / "dataset" / "train", cat=3, dog=3)
    flat(tmp_path / "test", x=3)
    status, lines = checked(tmp_path)
    assert status == 1
    assert f"did you mean --config.data.dir={tmp_path}/a/dataset?" in lines[-1]
    assert "9 images, not decoded, as train would refuse them unread" in lines
    status, lines = checked(tmp_path / "a" / "dataset" / "train" / "cat")
    assert status == 1
    assert f"is cat a class? Then set --config.data.dir={tmp_path}/a/dataset/train" in lines[-1]


def test_a_config_decides_what_is_looked_at(tmp_path, checked):
    flat(tmp_path, cat=3, dog=3, elk=1)
    assert checked(tmp_path)[0] == 1
    assert checked(tmp_path, "--config.data.min_per_class=2")[0] == 0
    assert checked(tmp_path, "--config", REPOSITORY / "configs/folder.py", "--config.data.classes=cat,dog")[0] == 0


def test_16_bit_images_are_named_with_the_scale_that_train_would_choose(tmp_path, checked):
    flat(tmp_path, cat=3, dog=3)
    for number in range(6):
        values = np.full((8, 8), 4000 + number, np.uint16)
        Image.fromarray(values).save(tmp_path / "cat" / f"scan{number}.png")
    status, lines = checked(tmp_path)
    assert status == 0
    (line,) = [line for line in lines if "16-bit" in line]
    assert line.startswith("6 16-bit images, their values become levels as 12 bits (data.grey_bits): cat/scan")
    assert line.endswith(", …")


def test_large_metadata_do_not_stop_the_check(tmp_path, checked):
    flat(tmp_path, cat=3, dog=3)
    texts = PngInfo()
    texts.add_text("note", "x" * 3 * 2**20, zip=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "large.png", pnginfo=texts)
    status, lines = checked(tmp_path)
    assert (status, lines.count("7 images, 0 unreadable; 7 PNG")) == (0, 1)


def test_archives_and_tables_are_found_as_they_are_typed(tmp_path, checked, monkeypatch):
    flat(tmp_path / "data" / "train", cat=3, dog=3)
    shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "data")
    (tmp_path / "t.csv").write_text(
        "path,label\n"
        + "".join(
            f"data/train/{name}/{path.name},{name}\n"
            for name in ("cat", "dog")
            for path in sorted((tmp_path / "data" / "train" / name).iterdir())
        )
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    for typed in ("~/a.zip", f"{tmp_path}/a.zip/", f"{tmp_path}/a.zip/train", "~/t.csv", "~/data/"):
        status, lines = checked(typed)
        assert (status, lines.count("6 images, 0 unreadable; 6 PNG")) == (0, 1), typed


def test_a_layout_that_train_would_refuse_is_refused_before_images_are_decoded(tmp_path, checked, monkeypatch):
    def decoded(*_arguments, **_options):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr("jaxcat.data.inspection.decode_all", decoded)
    flat(tmp_path, cat=3)
    status, lines = checked(tmp_path)
    assert lines[-1].startswith(f"train would refuse {tmp_path}: a classifier needs")
    assert (status, lines[0]) == (1, "3 images, not decoded, as train would refuse them unread")


def test_an_image_in_two_classes_is_named_once(tmp_path, checked):
    flat(tmp_path, cat=5, dog=5)
    shutil.copy(tmp_path / "cat/000.png", tmp_path / "dog/same.png")
    _, lines = checked(tmp_path)
    assert len([line for line in lines if "same.png" in line]) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [("cat/000.png", "an image; name the folder of the class folders"), ("a.zip", "there is no such file")],
)
def test_a_file_that_is_no_data(name, message, tmp_path, checked):
    flat(tmp_path, cat=1)
    with pytest.raises(DataError, match=re.escape(message)):
        checked(tmp_path / name)
