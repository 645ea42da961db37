"""`data.corrections`: what its rows change in train, and which commands honour it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import small
from hostile_names import HOSTILE_NAMES
from ml_collections import ConfigDict
from PIL import Image
from test_exact_run import TINY

import jaxcat
from jaxcat import flags
from jaxcat.config import completed, default
from jaxcat.data.sources import open_data
from jaxcat.errors import ConfigError, DataError
from jaxcat.evaluate import main as evaluate
from jaxcat.export.__main__ import main as export
from jaxcat.inference.own_records import listed_records
from jaxcat.predict import main as predict
from jaxcat.serve.corrections import Corrections
from jaxcat.study.collect import collect, studied
from jaxcat.system.console import Console
from jaxcat.system.devices import make_mesh
from jaxcat.system.files import never


@pytest.fixture
def images(tmp_path) -> Path:
    return small.image_folder(tmp_path / "images", train=6, validation=3)


def new_image(path: Path, seed: int = 9) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    small.draw("disc", np.random.default_rng(seed)).save(path)
    return path


def table_of(folder: Path, rows: dict[Path, str], *, name: str = "mine.csv", more: str = "") -> Path:
    """A table of copies of these images, beside which they are; of paths as they are if they lie there already."""
    folder.mkdir(exist_ok=True)
    lines = [f"path,label{more and ',group'}"]
    for number, (path, label) in enumerate(rows.items()):
        copied = path if path.parent == folder else Path(shutil.copy(path, folder / f"{number}{path.suffix}"))
        lines.append(f"{copied.name},{label}{more and ',' + more}")
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def config_of(images: Path, table: Path | str = "", **changes) -> ConfigDict:
    config = default()
    config.data.dir, config.data.corrections = str(images), str(table)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


# what rows change -----------------------------------------------------------------------------------------------------


def test_a_new_image_is_added_at_the_end_of_train(images, tmp_path):
    table = table_of(tmp_path / "kept", {new_image(tmp_path / "new.png"): "square"})
    before, after = (open_data(config_of(images, each)).splits for each in ("", table))
    assert after["train"].files == (*before["train"].files, "mine.csv:0.png")
    assert after["train"].labels.tolist() == [*before["train"].labels.tolist(), 1]
    with Image.open(tmp_path / "new.png") as image:
        np.testing.assert_array_equal(after["train"].fetch(12), np.asarray(image.convert("RGB")))
    assert after["validation"].files == before["validation"].files


def test_the_label_of_an_image_of_train_is_replaced(images, tmp_path):
    wrong = images / "train" / "disc" / "002.png"
    data = open_data(config_of(images, table_of(tmp_path / "kept", {wrong: "square"}))).splits["train"]
    before = open_data(config_of(images)).splits["train"]
    changed = np.flatnonzero(data.labels != before.labels)
    assert data.files == before.files
    assert [data.files[i] for i in changed] == ["train/disc/002.png"]


def test_an_image_that_is_measured_is_left_out_and_said(images, tmp_path, caplog):
    measured = images / "validation" / "disc" / "000.png"
    table = table_of(tmp_path / "kept", {measured: "square", new_image(tmp_path / "new.png"): "disc"})
    data = open_data(config_of(images, table))
    assert len(data.splits["train"]) == 13
    assert data.splits["validation"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert "1 image of validation or test is left out, because accuracy is measured there: line 2" in caplog.text


@pytest.mark.parametrize(("split", "says"), [("validation", "line 2"), ("train", "")])
def test_images_are_known_by_their_pixels_in_another_file(images, tmp_path, caplog, split, says):
    (images / split / "disc" / "damaged.png").write_bytes(b"no image")  # decoding reports it, later
    with Image.open(images / split / "disc" / "002.png") as image:
        image.save(tmp_path / "pasted.bmp")
    before, after = (
        open_data(config_of(images, each)).splits
        for each in ("", table_of(tmp_path / "kept", {tmp_path / "pasted.bmp": "square"}))
    )
    assert [after[name].files for name in after] == [before[name].files for name in before]
    changed = np.flatnonzero(after["train"].labels != before["train"].labels)
    assert [before["train"].files[i] for i in changed] == (["train/disc/002.png"] if split == "train" else [])
    assert says in caplog.text
    assert after["validation"].labels.tolist() == before["validation"].labels.tolist()


def test_validation_that_is_held_out_stays_the_same(images, tmp_path):
    pool = shutil.copytree(images / "train", tmp_path / "pool")
    rows = {new_image(tmp_path / f"{seed}.png", seed): "disc" for seed in range(101, 106)}
    before, after = (open_data(config_of(pool, each)).splits for each in ("", table_of(tmp_path / "kept", rows)))
    assert after["validation"].files == before["validation"].files
    assert len(after["train"]) == len(before["train"]) + 5


def test_a_group_with_images_in_validation_is_left_out_and_others_keep_theirs(images, tmp_path, caplog):
    named = shutil.copytree(images / "train", tmp_path / "pool")
    for number, path in enumerate(sorted(named.rglob("*.png"))):
        path.rename(path.with_name(f"{number}.png"))
    grouped = config_of(named, data__group_pattern=r"(\d+)\.png")
    held = open_data(grouped).splits["validation"].groups[0]
    table = table_of(tmp_path / "kept", {new_image(tmp_path / "new.png"): "disc"}, more=held)
    grouped.data.corrections = str(table)
    data = open_data(grouped).splits["train"]
    assert "line 2" in caplog.text
    table_of(tmp_path / "kept", {new_image(tmp_path / "new.png"): "disc"}, more="a patient")
    assert open_data(grouped).splits["train"].groups == (*data.groups, "a patient")


@pytest.mark.parametrize("source", ["digits", "glyphs"])
def test_every_source_takes_corrections(source, tmp_path):
    config = small.tiny_config()
    config.data.source, config.data.train_size, config.data.validation_size = source, 150, 75
    data = open_data(config)
    table = table_of(tmp_path / "kept", {new_image(tmp_path / "new.png"): data.classes[1]})
    config.data.corrections = str(table)
    assert open_data(config).splits["train"].labels.tolist() == [*data.splits["train"].labels.tolist(), 1]


def test_hostile_names_of_classes_find_their_class(tmp_path):
    names = [name for name in HOSTILE_NAMES if name.isprintable() and "/" not in name and len(name) < 200]
    images = small.image_folder(tmp_path / "images", train=3, validation=1, classes=("disc", "square"))
    for split in ("train", "validation"):
        for name in names:
            shutil.copytree(images / split / "disc", images / split / name)
    kept = Corrections(tmp_path)
    for number, name in enumerate(names):
        kept.keep(new_image(tmp_path / "new.png", 200 + number).read_bytes(), "PNG", name)
    data = open_data(config_of(images, kept.table))
    added = data.splits["train"].labels[-len(names) :]
    assert sorted(data.classes[label] for label in added) == sorted(names)
    assert len(names) > 3


def test_two_rows_of_one_image_count_once(images, tmp_path):
    new = new_image(tmp_path / "new.png")
    rows = {new: "disc", Path(shutil.copy(new, tmp_path / "again.png")): "disc"}
    assert len(open_data(config_of(images, table_of(tmp_path / "kept", rows))).splits["train"]) == 13


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ({"new.png": "hexagon"}, r"1 × a label that is none of the classes: line 2 \(hexagon\)[^/]*disc, square"),
        ({"new.png": "disc", "new2.png": "square"}, "an image that has another label in line 2: line 3"),
        ({"missing.png": "disc"}, r"a file that is missing: line 2 \(missing.png\)"),
    ],
)
def test_rows_that_cannot_be_used_are_refused_with_the_setting_and_the_line(images, tmp_path, rows, says):
    folder = tmp_path / "kept"
    for name in rows:
        if name != "missing.png":
            new_image(folder / name)
    table = table_of(folder, {folder / name: label for name, label in rows.items()})
    with pytest.raises(DataError, match=f"--config.data.corrections={table}") as refused:
        open_data(config_of(images, table))
    assert refused.match(says)


def test_no_class_of_train_may_be_corrected_away(images, tmp_path):
    rows = dict.fromkeys(sorted((images / "train" / "disc").iterdir()), "square")
    with pytest.raises(DataError, match=r"--config.data.corrections=.*no image of train is left of class 'disc'"):
        open_data(config_of(images, table_of(tmp_path / "kept", rows)))


def test_a_table_that_is_not_there_is_named(images, tmp_path):
    with pytest.raises(DataError, match="--config.data.corrections=/nowhere/x.csv: No such file"):
        open_data(config_of(images, "/nowhere/x.csv"))


def test_it_is_a_path_and_was_empty_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert flags.resolve_paths(config_of(tmp_path, "mine.csv")).data.corrections == str(tmp_path / "mine.csv")
    older = default().to_dict()
    del older["data"]["corrections"]
    assert completed(older).data.corrections == ""


# commands -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory) -> tuple[Path, Path]:
    """An exact run on `folder` with two corrections, a new image and a label of train; and its table."""
    root = tmp_path_factory.mktemp("corrected")
    wrong = folder / "train" / "disc" / "000.png"
    table = table_of(root / "kept", {new_image(root / "new.png"): "square", wrong: "square"})
    jaxcat.fit("folder", root / "run", settings={**TINY, "data.dir": folder, "data.corrections": table})
    return root / "run", table


def test_train_solves_the_head_on_them_and_lists_them(made, folder):
    workdir, _ = made
    (event,) = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()][1:]
    assert (event["leave_one_out/count"], event["validation/count"]) == (25, 12)
    classifier = jaxcat.load(workdir)
    listed = listed_records(workdir, classifier.meta)["train"]
    labels = dict(zip(listed.files, listed.labels.tolist(), strict=True))
    assert (labels["mine.csv:0.png"], labels["train/disc/000.png"], labels["train/disc/001.png"]) == (1, 1, 0)


def test_a_run_does_not_go_on_with_another_table(made, folder, tmp_path, capsys):
    workdir, table = made
    asked = {**TINY, "data.dir": folder}
    jaxcat.fit("folder", workdir, settings={**asked, "data.corrections": table})
    assert "this run is finished" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--config.data.corrections="):
        jaxcat.fit("folder", workdir, settings={**asked, "data.corrections": tmp_path / "other.csv"})
    with pytest.raises(ConfigError, match="--config.data.corrections="):
        jaxcat.fit("folder", workdir, settings=asked)


@pytest.mark.slow
def test_a_trained_run_does_not_go_on_with_rows_it_did_not_begin_with(images, tmp_path, monkeypatch):
    from jaxcat.train import train
    from jaxcat.training import loop

    table = table_of(tmp_path / "kept", {new_image(tmp_path / "new.png"): "square"})
    config = small.tiny_config(images)
    config.data.corrections = str(table)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "Interruption", small.InterruptedAt(3))
        assert train(config, tmp_path / "run") == 143
    table.write_text(table.read_text() + f"{new_image(tmp_path / 'kept' / 'more.png', 1).name},disc\n")
    with pytest.raises(ConfigError, match="was trained on 13 images in batches of 8, now there are 14"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize("text", [None, "path,label\nremoved.png,square\n"])
def test_what_is_measured_needs_no_table_of_corrections(made, tmp_path, text):
    workdir, table = made
    before = table.read_text()
    try:
        table.unlink() if text is None else table.write_text(text)
        assert evaluate(["--workdir", str(workdir), "--results-dir", str(tmp_path)]) == 0
    finally:
        table.write_text(before)
    assert json.loads((tmp_path / "validation.json").read_text())["count"] == 12


@pytest.mark.slow
@pytest.mark.parametrize("moved", [False, True])
def test_evaluate_finds_the_images_that_the_run_was_trained_on(made, folder, tmp_path, moved, caplog):
    workdir, table = made
    where = ["--moved-data", str(shutil.copytree(folder, tmp_path / "elsewhere"))] if moved else []
    results = ["--results-dir", str(tmp_path / "results")]
    for split, count in (("train", 25), ("validation", 12)):
        assert evaluate(["--workdir", str(workdir), "--split", split, *results, *where]) == 0
        assert json.loads((tmp_path / "results" / f"{split}.json").read_text())["count"] == count
    before = table.read_text()
    try:  # one more row since then: the run's own images are measured all the same
        table.write_text(before + f"{new_image(table.parent / 'more.png', 1).name},disc\n")
        assert evaluate(["--workdir", str(workdir), "--split", "train", *results, *where]) == 0
        assert json.loads((tmp_path / "results" / "train.json").read_text())["count"] == 25
    finally:
        table.write_text(before)


def test_evaluate_warns_of_corrections_among_other_data(made, tmp_path, caplog):
    workdir, table = made
    for name in ("disc", "square"):
        new_image(tmp_path / "other" / name / "a.png", seed=50 + len(name))
    shutil.copy(table.parent / "0.png", tmp_path / "other" / "square" / "b.png")
    assert evaluate(["--workdir", str(workdir), "--data", str(tmp_path / "other")]) == 0
    assert "1 of 3 images, such as square/b.png: the run was trained on them" in caplog.text


def test_a_study_is_of_them_too(images, tmp_path):
    table = table_of(tmp_path / "kept", {new_image(tmp_path / "new.png"): "square"})
    config = flags.overridden(jaxcat.configs.execute("folder"), [f"--config.data.dir={images}"])
    config.update_from_flattened_dict({**TINY, "data.corrections": str(table)})
    found = collect(studied(config), tmp_path, mesh=make_mesh(), console=Console(quiet=True), stop=never)
    assert (len(found.splits["train"]), len(found.splits["validation"])) == (13, 6)


@pytest.mark.slow
def test_predict_and_export_use_the_head_that_learned_from_them(made, tmp_path, capsys):
    workdir, table = made
    assert predict(["--workdir", str(workdir), str(table.parent / "0.png")]) == 0
    shown = json.loads(capsys.readouterr().out)
    label, probability = shown["label"], shown["probability"]
    row = jaxcat.load(workdir).predict([table.parent / "0.png"])[0]
    assert (label, probability) == (("disc", "square")[row.argmax()], pytest.approx(row.max(), abs=1e-6))
    assert export(["--workdir", str(workdir), "--format", "stablehlo", "--output", str(tmp_path / "it.stablehlo")]) == 0
