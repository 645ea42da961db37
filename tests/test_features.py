"""What the head sees, and the tables of predict: wide ones, and cells that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import small
from PIL import Image

import jaxcat
from jaxcat import predict
from jaxcat.data.indexing.table import class_columns
from jaxcat.data.records import Split
from jaxcat.errors import ConfigError, JaxcatError
from jaxcat.escaping import from_cell
from jaxcat.inference import features_file
from jaxcat.inference.classifier import Classifier
from jaxcat.inference.evaluation import write_predictions
from jaxcat.models.preprocessing import Conventions
from jaxcat.runs.first_meta import new_meta
from jaxcat.runs.restore import Restored


def classifier_of(classes: tuple[str, ...] = ("a", "b", "c"), **model) -> Classifier:
    """An untrained one."""
    config = small.tiny_config()
    for name, value in model.items():
        config.model[name] = value
    network = small.network(config, classes=len(classes))
    frozen, trained = network.split(*network.initialize(0))
    meta = new_meta(config, classes, conventions=Conventions(), provenance={"source": "scratch"})
    return Classifier(meta, restore=lambda: Restored(meta, network, frozen, trained))


@pytest.mark.parametrize("train_from", ["head", "mixed0"])
@pytest.mark.parametrize("grid", small.slow_except([2], [1, 2]))
def test_features_are_the_averages_of_the_maps(train_from, grid):
    """The maps of another network with the same numbers, averaged by NumPy."""
    images = small.images(3)
    whole = classifier_of(pool="flatten")
    channels = classifier_of(pool="avg").network.features
    side = int(np.sqrt(whole.network.features // channels))
    maps = whole.features(list(images)).reshape(3, side, side, channels)
    cells = [(i * side // grid, -(-(i + 1) * side // grid)) for i in range(grid)]
    expected = [maps[:, a:b, c:d].mean(axis=(1, 2), dtype=np.float64) for a, b in cells for c, d in cells]
    found = classifier_of(pool="avg", pool_grid=grid, train_from=train_from).features(list(images), batch_size=2)
    assert found.dtype == np.float32
    assert found.shape == (3, channels * grid**2)
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), rtol=1e-4, atol=1e-5)


def test_probabilities_are_the_softmax_of_a_line_of_the_features():
    classifier, images = classifier_of(), list(small.images(5))
    kernel, bias = (np.asarray(classifier.params["logits"][name], np.float64) for name in ("kernel", "bias"))
    logits = classifier.features(images) @ kernel + bias
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.predict(images), expected, rtol=1e-4)


def test_no_images_and_one_image_in_place_of_a_list():
    classifier = classifier_of()
    assert classifier.features([]).shape == (0, classifier.network.features)
    with pytest.raises(TypeError, match=r"features takes a list of images: features\(\[image\]\)"):
        classifier.features("cat.jpg")


CLASSES = ("=cmd|' /C calc'!A0", "label", "file", "../x", "label (class)", "@ü,\n")


@pytest.fixture
def used(monkeypatch) -> Classifier:
    classifier = classifier_of(CLASSES)
    monkeypatch.setattr("jaxcat.inference.classifier.load", lambda *_, **__: classifier)
    return classifier


@pytest.fixture
def pictures(tmp_path, monkeypatch) -> list[str]:
    """Relative paths, one that a spreadsheet would run, one that is no image."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("=1+1.png", "b.png", "c.png")):
        Image.fromarray(small.images(1, seed=number)[0]).save(name)
    Path("bad.png").write_bytes(b"no image")
    return ["./b.png", "=1+1.png", "bad.png", "c.png"]


READABLE = ["b.png", "=1+1.png", "c.png"]


def test_a_wide_table_has_a_column_for_each_class_and_no_formula(used, pictures, capsys):
    assert predict.main(["--workdir", "x", *pictures, "--output", "csv", "--wide"]) == 1
    out = capsys.readouterr().out
    (header, *rows) = csv.reader(io.StringIO(out, newline=""))
    assert header[:3] == ["file", "label", "probability"]
    assert header[3:] == [
        "'" + CLASSES[0],
        "label (class 2)",
        "file (class)",
        "../x",
        "label (class)",
        "'" + CLASSES[5],
    ]
    assert not [cell for row in (header, *rows) for cell in row if cell[:1] in "=+-@\t\r\n"]
    assert [from_cell(row[0]) for row in rows] == READABLE
    expected = used.predict(READABLE)
    np.testing.assert_allclose([[float(cell) for cell in row[3:]] for row in rows], expected, atol=1e-5)
    for row, probabilities in zip(rows, expected, strict=True):
        assert from_cell(row[1]) == CLASSES[probabilities.argmax()]
        assert float(row[2]) == pytest.approx(probabilities.max(), abs=1e-5)


def test_the_usual_table_escapes_and_json_lines_do_not(used, pictures, capsys):
    predict.main(["--workdir", "x", *pictures, "--output", "csv", "--top", "6"])
    (_, *rows) = csv.reader(io.StringIO(capsys.readouterr().out, newline=""))
    assert rows[1][0] == "'=1+1.png"
    assert {from_cell(cell) for cell in rows[0][1::2]} == set(CLASSES)
    assert not [cell for row in rows for cell in row if cell[:1] in "=+-@\t\r\n"]
    predict.main(["--workdir", "x", *pictures, "--top", "6"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines] == READABLE
    assert {name for name, _ in lines[0]["top"]} == set(CLASSES)


def test_the_predictions_of_an_evaluation_hold_no_formula_either(tmp_path):
    split = Split("x", ("=a.png", "-b.png"), np.array([0, 1]), None)
    write_predictions(tmp_path / "p.csv", split, np.eye(2), classes=("+yes", "predicted"))
    with open(tmp_path / "p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["'=a.png", "'-b.png"]
    assert [row["label"] for row in rows] == [row["predicted"] for row in rows] == ["'+yes", "predicted"]
    assert [row["predicted (class)"] for row in rows] == ["0.000000", "1.000000"]
    assert [row["'+yes"] for row in rows] == ["1.000000", "0.000000"]


@pytest.mark.parametrize("classes", [("a", "a", "a"), ("file", "file (class)", "file (class 2)", "file")])
def test_no_two_columns_are_named_alike(classes):
    columns = [*(fixed := ["file", "label"]), *class_columns(classes, fixed)]
    assert len(set(columns)) == len(columns) == len(classes) + 2


@pytest.mark.parametrize(
    "more", [["--wide"], ["--wide", "--output", "jsonl"], ["--wide", "--output", "csv", "--top", "3"]]
)
def test_what_does_not_go_with_wide_is_refused(more, capsys):
    with pytest.raises(SystemExit) as caught:
        predict.main(["--workdir", "x", "a.png", *more])
    assert caught.value.code == 2
    assert "--wide" in capsys.readouterr().err


def test_a_features_file_has_a_row_for_each_printed_row(used, pictures, capsys):
    expected = used.features(READABLE)
    for name in ("f.npy", "f.npz"):
        Path(name).write_text("an older file")
        assert predict.main(["--workdir", "x", *pictures, "--features", name, "--batch-size", "2"]) == 1
        printed = [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()]
        assert printed == READABLE
        found = np.load(name, allow_pickle=False)
        if name == "f.npz":
            assert sorted(found.files) == ["features", "files"]
            assert found["files"].tolist() == READABLE
            found = found["features"]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert not list(Path().glob(".*"))


def test_no_readable_image_gives_no_rows(used, pictures):
    assert predict.main(["--workdir", "x", "bad.png", "--features", "f.npz"]) == 1
    found = np.load("f.npz", allow_pickle=False)
    assert found["features"].shape == (0, used.network.features)
    assert found["files"].shape == (0,)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("features", "must end in .npy"),
        ("f.csv", "must end in .npy"),
        ("nowhere/f.npy", "there is no directory"),
        ("folder.npy", "is a directory"),
    ],
)
def test_a_features_file_that_cannot_be_is_refused_before_anything_is_loaded(tmp_path, name, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder.npy").mkdir()
    monkeypatch.setattr("jaxcat.inference.classifier.load", lambda *_, **__: pytest.fail("too late"))
    with pytest.raises(ConfigError, match=f"--features .*{name}: .*{said}"):
        predict.main(["--workdir", "x", "a.png", "--features", name])


def test_a_features_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "f.npy"
    path.write_text("mine")

    def stopped(path: Path) -> None:
        with features_file.features_file(path, count=3) as add:
            add(Path("a.png"), np.ones(3, np.float32))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped(path)
    assert path.read_text() == "mine"
    with pytest.raises(JaxcatError, match=r"--features /dev/full/f.npy: cannot be written"):
        stopped(Path("/dev/full/f.npy"))
    assert [each.name for each in tmp_path.iterdir()] == ["f.npy"]


@pytest.mark.slow
def test_features_are_written_even_if_nobody_reads_the_rows(tmp_path):
    """As in `predict … | head -1`: the rows end, the file does not."""
    for number in range(3):
        Image.fromarray(small.images(1, seed=number)[0]).save(tmp_path / f"{number}.png")
    code = (
        "import test_features, jaxcat.inference.classifier as c\n"
        "from jaxcat import predict\n"
        "from jaxcat.system import cli\n"
        "c.load = lambda *_, **__: test_features.classifier_of()\n"
        "cli.run(predict.main)\n"
    )
    command = [sys.executable, "-c", code, "--workdir", "x", str(tmp_path), "--features", str(tmp_path / "f.npy")]
    here = Path(__file__).resolve().parent
    environment = {**os.environ, "PYTHONPATH": str(here.parent)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=here, text=True, env=environment
    )
    process.stdout.close()
    assert process.wait(120) == 0, process.stderr.read()
    assert np.load(tmp_path / "f.npy").shape[0] == 3
    process.stderr.close()


def test_the_methods_of_the_contract():
    assert all(callable(getattr(jaxcat.Classifier, name)) for name in ("predict", "features"))


def test_fresh_values_of_a_stage_do_not_depend_on_the_stages_drawn_beside_it():
    network = small.network(small.tiny_config(), classes=3)
    params, stats = network.initialize(7)
    for stages in ([], ["logits"], ["mixed0", "pool"], list(network.stages)):
        some_params, some_stats = network.initialize(7, stages=stages)
        assert set(some_params) == set(some_stats) == set(stages)
        for some, whole in ((some_params, params), (some_stats, stats)):
            jax.tree.map(np.testing.assert_array_equal, some, {stage: whole[stage] for stage in stages})
