"""`predict --explain`: images with heat maps, the table that names them, and directories that are refused."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import small
from hostile_names import HOSTILE_NAMES
from PIL import Image
from small_export import classifier_of

from jaxcat import predict
from jaxcat.errors import ConfigError
from jaxcat.inference.classifier import Classifier
from jaxcat.inference.explanation import normalized, overlay, placed


@pytest.fixture
def used(monkeypatch) -> Classifier:
    classifier = classifier_of(data__resize="center_crop")
    monkeypatch.setattr("jaxcat.inference.classifier.load", lambda *_, **__: classifier)
    return classifier


@pytest.fixture
def photographs(tmp_path, monkeypatch) -> Path:
    """A directory of images of different shapes, one of which is none."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number, (height, width) in enumerate([(90, 140), (120, 80), (60, 60)]):
        wide = np.asarray(Image.fromarray(small.images(1, seed=number)[0]).resize((width, height)))
        Image.fromarray(wide).save(folder / f"{number}.png")
    (folder / "1b.png").write_bytes(b"no image")
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "explanations.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def test_each_image_is_drawn_with_its_map_and_the_table_says_which_is_which(used, photographs, tmp_path, capsys):
    found = tmp_path / "maps"
    assert predict.main(["--workdir", "x", str(photographs), "--explain", "maps"]) == 1  # for the one that is none
    said = capsys.readouterr()
    assert "1b.png" in said.err
    assert len(said.out.splitlines()) == 3
    rows = rows_of(found)
    assert [Path(row["file"]).name for row in rows] == ["0.png", "1.png", "2.png"]
    assert sorted(path.name for path in found.iterdir()) == sorted(
        ["explanations.csv", *(row["explanation"] for row in rows)]
    )
    files = [row["file"] for row in rows]
    labels = used.predict(files).argmax(axis=1)
    assert [row["label"] for row in rows] == [used.classes[label] for label in labels]
    raws = used.xla.raw_maps([used.prepare(file) for file in files], labels)
    for row, raw in zip(rows, raws, strict=True):
        image = used.decode(row["file"])
        heat = placed(normalized(raw), shape=image.shape[:2], size=75, mode="center_crop")
        np.testing.assert_array_equal(Image.open(found / row["explanation"]), overlay(image, heat))


def test_an_image_that_its_camera_turned_is_drawn_upright(used, photographs, tmp_path):
    upright = small.draw("disc", np.random.default_rng(0), 120).crop((0, 0, 120, 90))
    turned, exif = upright.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6  # shown after a turn by 90° clockwise
    upright.save(tmp_path / "upright.png")
    turned.save(tmp_path / "turned.png", exif=exif)
    assert predict.main(["--workdir", "x", "upright.png", "turned.png", "--explain", "maps"]) == 0
    drawn = [np.asarray(Image.open(tmp_path / "maps" / row["explanation"])) for row in rows_of(tmp_path / "maps")]
    assert drawn[0].shape == (90, 120, 3)
    np.testing.assert_array_equal(*drawn)
    assert (drawn[0] != np.asarray(upright)).any()
    assert (drawn[0][:, :15] == np.asarray(upright)[:, :15]).all()  # left of the square that the network saw


def test_a_large_image_is_drawn_smaller(used, photographs, tmp_path):
    Image.new("RGB", (3000, 1000), "red").save("large.png")
    assert predict.main(["--workdir", "x", "large.png", "--explain", "maps"]) == 0
    assert Image.open(tmp_path / "maps" / "00001-large.png").size == (1024, 341)


def test_names_neither_collide_nor_leave_the_directory(used, photographs, tmp_path, capsys):
    names = [f"{name.replace('/', '∕')[:80]}.png" for name in (*HOSTILE_NAMES, "..", "-", "\udcff")]
    images = small.images(len(names))
    paths = []
    for number, name in enumerate(names):
        for folder in (f"a{number}", f"b{number}"):  # the same name twice
            Path(folder).mkdir()
            paths.append(Path(folder) / name)
            Image.fromarray(images[number]).save(paths[-1], format="PNG")
    before = set(tmp_path.iterdir())
    assert predict.main(["--workdir", "x", *map(str, paths), "--explain", "maps"]) == 0
    assert set(tmp_path.iterdir()) - before == {tmp_path / "maps"}
    rows = rows_of(tmp_path / "maps")
    assert [row["file"] for row in rows] == [str(path) for path in paths]
    drawn = [row["explanation"] for row in rows]
    assert len({name.casefold() for name in drawn}) == len(paths)
    assert {*drawn, "explanations.csv"} == set(os.listdir(tmp_path / "maps"))
    assert all(
        len(name.encode()) < 255 and name.isprintable() and not set(name) & set("/\\:*?\"'<>|$ ") for name in drawn
    )


def test_a_name_that_a_spreadsheet_would_run_has_an_apostrophe(used, photographs, tmp_path):
    Image.fromarray(small.images(1)[0]).save("=1+1.png")
    assert predict.main(["--workdir", "x", "./=1+1.png", "--explain", "maps"]) == 0
    assert rows_of(tmp_path / "maps")[0]["file"] == "'=1+1.png"


def test_another_block(used, photographs, tmp_path):
    for name, more in (("last", []), ("stem", ["--block", "stem"])):
        assert predict.main(["--workdir", "x", "photographs/0.png", "--explain", name, *more]) == 0
    last, stem = (Image.open(tmp_path / name / "00001-0.png") for name in ("last", "stem"))
    assert (np.asarray(last) != np.asarray(stem)).any()


@pytest.mark.parametrize(("more", "said"), [
    (["--explain", "photographs"], "--explain .*photographs: is not empty; give a new or an empty directory"),
    (["--explain", "photographs/0.png"], "--explain .*: is no directory"),
    (["--explain", "photographs/maps"], "lies in photographs, which is searched for images"),
    (["--explain", "link/maps"], "lies in photographs, which is searched for images"),
    (["--explain", "nowhere/maps"], "there is no directory .*nowhere; make it"),
    (["--explain", "maps", "--block", "mixed7"], "--block mixed7 comes after mixed0"),
    (["--explain", "maps", "--block", "x"], "--block x: must be one of stem"),
], ids=lambda words: words[-1] if isinstance(words, list) else "")  # fmt: skip
def test_what_cannot_work_is_refused_before_the_work(used, photographs, tmp_path, monkeypatch, more, said):
    (tmp_path / "link").symlink_to(photographs)
    monkeypatch.setattr(Classifier, "decode", lambda *_: pytest.fail("work began"))
    with pytest.raises(ConfigError, match=said):
        predict.main(["--workdir", "x", "photographs", *more])
    assert not (tmp_path / "maps").exists()


def test_a_block_without_a_directory(capsys):
    with pytest.raises(SystemExit) as caught:
        predict.main(["--workdir", "x", "a.png", "--block", "stem"])
    assert caught.value.code == 2
    assert "--block needs --explain DIR" in capsys.readouterr().err


def test_an_empty_directory_is_used(used, photographs, tmp_path):
    (tmp_path / "maps").mkdir()
    assert predict.main(["--workdir", "x", "photographs/0.png", "--explain", "maps"]) == 0
    assert len(rows_of(tmp_path / "maps")) == 1
