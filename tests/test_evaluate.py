"""Evaluation and prediction: exact counts, figures that can be checked by hand, files that are never the wrong ones."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import small
from scipy.special import log_softmax

import jaxcat
from jaxcat import evaluate, predict
from jaxcat.errors import CheckpointError
from jaxcat.inference import evaluation
from jaxcat.system import files


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return small.image_folder(tmp_path_factory.mktemp("images"), validation=5)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, folder) -> Path:
    return small.one_epoch(folder, tmp_path_factory.mktemp("run"))


def evaluated(workdir: Path, name: str) -> tuple[dict, list[dict]]:
    figures = json.loads((workdir / "evaluation" / f"{name}.json").read_text())
    with open(workdir / "evaluation" / f"{name}.predictions.csv", newline="") as file:
        return figures, list(csv.DictReader(file))


def test_every_image_is_counted_once_and_the_figures_are_those_of_training(workdir, capsys):
    assert evaluate.main(["--workdir", str(workdir), "--batch-size", "3"]) == 0
    figures, rows = evaluated(workdir, "validation")
    trained = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    assert figures["count"] == len(rows) == len({row["file"] for row in rows}) == 10
    assert figures["accuracy"] == trained["validation/accuracy"]
    assert figures["loss"] == pytest.approx(trained["validation/loss"], rel=1e-4)
    assert figures["accuracy"] == np.mean([row["label"] == row["predicted"] for row in rows])
    assert sum(map(sum, figures["confusion"])) == 10
    assert "10 images" in capsys.readouterr().out


def test_another_folder_leaves_the_figures_of_the_run_alone(workdir, folder, tmp_path):
    assert evaluate.main(["--workdir", str(workdir)]) == 0
    before = evaluated(workdir, "validation")
    shutil.copytree(folder / "validation", tmp_path / "others" / "validation")
    (tmp_path / "others" / "validation" / "disc" / "000.png").unlink()
    assert evaluate.main(["--workdir", str(workdir), "--data", str(tmp_path / "others" / "validation")]) == 0
    assert evaluated(workdir, "validation") == before
    assert evaluated(workdir, "others-validation")[0]["count"] == 9


def test_a_single_image_is_not_padded_to_a_whole_batch(workdir, monkeypatch):
    classifier, sizes = jaxcat.load(workdir), []
    xla, compute = classifier.xla, classifier.xla.evaluate_batch
    monkeypatch.setattr(xla, "evaluate_batch", lambda batch: sizes.append(len(batch["image"])) or compute(batch))
    some = list(small.images(37))
    one, all_of_them = classifier.predict(some[:1]), classifier.predict(some)
    assert sizes == [8, 32, 32]  # eight devices, an image each; and the last batch like the one before it
    np.testing.assert_allclose(one, all_of_them[:1], rtol=1e-4)


def test_figures_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    labels = np.array([0, 1, 1, 0])
    figures = evaluation.summarize(np.log(probabilities), labels, ("cat", "dog"))
    assert figures["accuracy"] == 0.5
    assert figures["confusion"] == [[1, 1], [1, 1]]
    assert figures["loss"] == pytest.approx(-np.log([0.9, 0.4, 0.7, 0.2]).mean())
    assert figures["auc"] == 0.5  # of the four pairs of a dog and a cat, two are in the right order
    # each image alone in its bin: |1 - 0.9|, |0 - 0.6|, |1 - 0.7|, |0 - 0.8|
    assert figures["calibration_error"] == pytest.approx((0.1 + 0.6 + 0.3 + 0.8) / 4)
    assert figures["per_class"]["dog"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "count": 2}


def test_accuracy_is_that_of_the_confusion_matrix_even_if_float32_cannot_tell_the_classes_apart():
    summary = evaluation.summarize(log_softmax([[0.0, 1e-9], [0.0, -3.0]], axis=1), np.array([1, 0]), ("a", "b"))
    assert summary["confusion"] == [[1, 0], [0, 1]]
    assert summary["accuracy"] == 1.0


def test_no_area_under_a_curve_where_a_class_has_no_image():
    figures = evaluation.summarize(np.log([[0.9, 0.1]]), np.array([0]), ("cat", "dog"))
    assert figures["auc"] is None
    assert figures["per_class"]["dog"]["recall"] == 0


def test_predictions_agree_with_the_evaluation_and_bad_images_are_named(workdir, folder, tmp_path, capsys):
    assert evaluate.main(["--workdir", str(workdir)]) == 0
    rows = evaluated(workdir, "validation")[1]
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    capsys.readouterr()
    assert predict.main(["--workdir", str(workdir), str(bad), str(folder / "validation")]) == 1
    output = capsys.readouterr()
    found = {record["file"]: record for record in map(json.loads, output.out.splitlines())}
    assert str(bad) in output.err
    assert len(found) == len(rows)
    for row in rows:
        record = found[str(folder / row["file"])]
        assert record["label"] == row["predicted"]
        assert record["probability"] == pytest.approx(float(row[row["predicted"]]), abs=1e-4)


def test_predict_goes_on_after_what_cannot_be_looked_at(workdir, folder, tmp_path, capsys, monkeypatch):
    """A directory that cannot be listed in the midst of others, a mount that is gone, a name longer than any can be."""
    shutil.copytree(folder / "validation", tmp_path / "disk")
    (tmp_path / "disk" / "private").mkdir()
    (tmp_path / "disk" / "mount").mkdir()
    listdir, stat = os.listdir, os.stat

    def refusing(path):
        if Path(path).name == "private":
            raise PermissionError(errno.EACCES, "Permission denied")
        return listdir(path)

    def stale(path, **_):
        if Path(path).name == "mount":
            raise OSError(errno.ESTALE, "Stale file handle")
        return stat(path, **_)

    monkeypatch.setattr(os, "listdir", refusing)
    monkeypatch.setattr(os, "stat", stale)
    endless = str(tmp_path / ("x" * 300 + ".png"))
    assert predict.main(["--workdir", str(workdir), endless, str(tmp_path / "disk")]) == 1
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == len(list((folder / "validation").rglob("*.png")))
    errors = "\n".join(line for line in output.err.splitlines() if line.startswith("error: "))
    assert errors.count("error: ") == 3
    assert "private: Permission denied" in errors
    assert "mount: Stale file handle" in errors
    assert "File name too long" in errors


def test_figures_that_cannot_be_written_are_shown_all_the_same(workdir, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(CheckpointError, match=r"cannot be written: No space left on device"):
        evaluate.main(["--workdir", str(workdir)])
    assert "accuracy" in capsys.readouterr().out
