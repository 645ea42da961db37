"""What a study concludes from made-up features: noise, classes that are far apart, groups, and many records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from measure_study_speed import made_up, study

from jaxcat.objectives.learning_curve import Prediction
from jaxcat.study import ranking
from jaxcat.study.curve import LearningCurve, in_words
from jaxcat.study.images import hardest
from jaxcat.study.ranking import front_of
from jaxcat.study.summary import lines

WIDTHS = [6, 10, 14]


@pytest.mark.slow
def test_noise_gives_chance_a_flat_curve_and_no_wrong_labels():
    for seed in range(3):
        collected = made_up(240, 2, [width + seed for width in WIDTHS], signal=0.0)
        found = study(collected)
        assert found.accuracy.low < found.chance < 0.55
        assert found.accuracy.high < 0.72
        assert not found.learned
        assert not found.suspects.confident.any()
        assert found.curve.flat
        assert "the curve is flat" in in_words(found.curve)
        assert not found.curve.predictions


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        ((0.042, 0.0, 0.052), "a gain of 4.2 points (0.0 to 5.2), so perhaps none"),
        ((0.042, 0.01, 0.052), "a gain of 4.2 points (1.0 to 5.2)."),
        ((0.002, -0.001, 0.052), "the curve is flat"),
    ],
)
def test_a_curve_is_called_flat_only_if_a_small_gain_is_expected(gain, words):
    some = (Prediction(100, 0.906, 0.88, 0.93), Prediction(200, 0.948, 0.91, 0.97))
    curve = LearningCurve(points=(), curve=None, predictions=some, gain=gain, per_class={}, choices=1)
    assert words in in_words(curve)
    assert curve.flat == ("flat" in words)


def test_classes_far_apart_are_not_called_certain():
    found = study(made_up(200, 3, WIDTHS, signal=3.0))
    assert found.learned
    assert found.accuracy.accuracy > 0.98
    assert found.accuracy.low < 0.995
    assert len(found.rows) == 12
    assert found.validation is None
    assert not found.suspects.confident.any()


@pytest.mark.slow
def test_groups_are_left_out_whole():
    """Records of a group are copies of each other, and groups have nothing to do with classes."""
    collected = made_up(60, 2, WIDTHS, signal=0.0)
    four = [part._replace(read=_repeated(part.read(0, 60))) for part in collected.parts["train"]]
    split = collected.splits["train"].take(np.arange(60).repeat(4))
    alone = collected._replace(splits={"train": split}, parts={"train": four}, groups={"train": np.arange(240)})
    whole = alone._replace(groups={"train": np.arange(60).repeat(4)})
    assert study(alone).accuracy.accuracy > 0.9
    found = study(whole)
    assert found.accuracy.accuracy < 0.65
    assert found.accuracy.high - found.accuracy.low > 0.2


def _repeated(rows: np.ndarray):
    repeated = rows.repeat(4, axis=0)
    return lambda start, stop: repeated[start:stop]


@pytest.mark.slow
def test_many_records_solve_the_best_in_full(monkeypatch):
    monkeypatch.setattr(ranking, "FULL", 150)
    monkeypatch.setattr(ranking, "LEAST", 100)
    monkeypatch.setattr(ranking, "MOST", 120)
    monkeypatch.setattr(ranking, "IN_FULL", {200: 2})
    collected = made_up(300, 3, WIDTHS, signal=0.5)
    found = study(collected)
    assert found.ranked_on <= 120
    assert [row.records for row in found.rows][:2] == [300, found.ranked_on]
    assert found.winner is found.rows[0]
    assert found.curve.points[-1][0] == 300
    monkeypatch.setattr(ranking, "FULL", 300)
    whole = study(collected)
    same = next(row for row in whole.rows if row.candidate == found.winner.candidate)
    assert same.accuracy == pytest.approx(found.winner.accuracy, abs=0.02)


@pytest.mark.slow
def test_front():
    found = study(made_up(200, 2, WIDTHS, signal=0.3))
    front = front_of(found.rows)
    assert front == found.front
    costs = [row.milliseconds for row in front]
    assert costs == sorted(set(costs))
    for row in front:
        ends = [each for each in found.rows if each.candidate.blocks[-1] == row.candidate.blocks[-1]]
        assert row.squared_error == min(each.squared_error for each in ends)


def test_hardest_pairs():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    predicted = np.array([1, 0, 0, 0, 1, 2, 2, 2, 2, 0])
    first, second = hardest(predicted, labels, ("a", "b", "c"))
    assert (first.first, first.second, first.wrong, first.share) == ("a", "b", 2, 0.4)
    assert (second.first, second.second, second.wrong) == ("a", "c", 1)


def test_pairs_of_two_labels_are_counted_though_they_are_left_out_together():
    collected = made_up(100, 2, WIDTHS)
    labels, groups = collected.splits["train"].labels, np.arange(100)
    first, second = (int(np.flatnonzero(labels == label)[0]) for label in (0, 1))
    groups[second] = groups[first]

    def copied(part):
        rows = part.read(0, 100).copy()
        rows[second] = rows[first]
        return part._replace(read=lambda start, stop: rows[start:stop])

    parts = [copied(part) for part in collected.parts["train"]]
    found = study(collected._replace(parts={"train": parts}, groups={"train": groups}))
    assert "1 with two labels" in "\n".join(lines(found, Path("study")))
