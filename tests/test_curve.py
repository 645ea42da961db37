"""The learning curve that a trained run leaves: what is drawn, and that it is an image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from jaxcat.training.reporting import learning_curve  # imported before conftest.py puts empty files in its place


def entry(epoch: int, *, validated: bool = True, **more) -> dict:
    measured = {"validation/loss": 2 / epoch, "validation/accuracy": 0.1 * epoch}
    return {
        "epoch": epoch,
        "train/loss": 1 / epoch,
        "train/accuracy": 0.2 * epoch,
        **(measured if validated else dict.fromkeys(measured)),
        **more,
    }


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws a history; returns the lines of each of the two plots by their label, as pairs of arrays (x, y)."""

    def draw(history: list[dict]) -> list[dict]:
        figures = []
        save = Figure.savefig

        def saved(figure, *given, **more):
            figures.append(figure)
            save(figure, *given, **more)

        monkeypatch.setattr(Figure, "savefig", saved)
        learning_curve(history, tmp_path / "curve.png")
        with Image.open(tmp_path / "curve.png") as image:
            assert (image.format, image.size) == ("PNG", (1080, 432))
            assert len(np.unique(np.asarray(image.convert("L")))) > 10, "an empty page"
        (figure,) = figures
        assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy"]
        return [{line.get_label(): line.get_data() for line in axes.get_lines()} for axes in figure.axes]

    return draw


def test_loss_and_accuracy_of_both_splits_by_epoch(drawn):
    loss, accuracy = drawn([entry(1), entry(2), entry(3)])
    assert loss.keys() == accuracy.keys() == {"train", "validation"}
    np.testing.assert_allclose(loss["train"], [[1, 2, 3], [1, 1 / 2, 1 / 3]])
    np.testing.assert_allclose(loss["validation"], [[1, 2, 3], [2, 1, 2 / 3]])
    np.testing.assert_allclose(accuracy["train"], [[1, 2, 3], [0.2, 0.4, 0.6]])
    np.testing.assert_allclose(accuracy["validation"], [[1, 2, 3], [0.1, 0.2, 0.3]])


def test_without_validation_there_is_no_line_for_it(drawn):
    for lines in drawn([entry(1, validated=False), entry(2, validated=False)]):
        assert lines.keys() == {"train"}


def test_a_dotted_line_where_a_stage_begins(drawn):
    for lines in drawn([entry(1, stage=2), entry(2, stage=2), entry(3, stage=3)]):
        (later,) = (label for label in lines if "stage 3" in label)
        np.testing.assert_allclose(lines[later][0], 2.5)


def test_of_a_run(finished: Path, drawn):
    history = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    loss, accuracy = drawn(history)
    assert list(loss["validation"][1]) == [of_epoch["validation/loss"] for of_epoch in history]
    assert list(accuracy["train"][1]) == [of_epoch["train/accuracy"] for of_epoch in history]
