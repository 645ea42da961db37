"""Reliability diagrams, temperatures, and accuracy by coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from jaxcat.objectives.coverage import by_coverage, refusing
from jaxcat.objectives.reliability import BINS, calibration_error, reliability
from jaxcat.objectives.temperature import fit_temperature, log_loss


def sure(count: int, *, factor: float = 1.0, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, K) that are `factor` times those by which the labels were drawn, and the labels."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (count, classes))
    labels = (softmax(logits, axis=1).cumsum(axis=1) < random.random((count, 1))).sum(axis=1)
    return factor * logits, labels


def confidence_of(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probabilities = softmax(logits, axis=1)
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


def test_the_bins_are_those_of_scikit_learn():
    confidence, correct = confidence_of(*sure(500))
    found = reliability(confidence, correct)
    filled = found.counts > 0
    accuracy, mean = calibration_curve(correct, confidence, n_bins=BINS)
    assert found.accuracy[filled] == pytest.approx(accuracy)
    assert found.confidence[filled] == pytest.approx(mean)
    assert np.isnan(found.accuracy[~filled]).all()
    assert found.counts.sum() == 500
    assert found.error == pytest.approx(np.sum(found.counts[filled] * np.abs(accuracy - mean)) / 500)
    assert found.error == calibration_error(confidence, correct)
    last = int(np.flatnonzero(filled)[-1])
    right = int(round(found.accuracy[last] * found.counts[last]))
    expected = binomtest(right, int(found.counts[last])).proportion_ci(0.95, method="wilson")
    assert found.intervals[last] == pytest.approx(tuple(expected))


def test_a_confidence_of_one_is_in_the_last_bin():
    assert reliability(np.array([1.0, 1.0, 0.0]), np.array([True, False, False])).counts[[0, BINS - 1]].tolist() == [
        1,
        2,
    ]


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_the_interval_holds_the_true_error(factor):
    confidence, correct = confidence_of(*sure(400_000, factor=factor, seed=1))
    true = calibration_error(confidence, correct)  # nearly that of infinitely many
    inside, chance, alone = 0, [], []
    for start in range(0, 20_000, 500):
        some = slice(start, start + 500)
        found = reliability(confidence[some], correct[some])
        inside += found.interval[0] <= true <= found.interval[1]
        assert found.interval[0] <= found.error <= found.interval[1]
        chance.append(found.by_chance)
        alone.append(found.error)
    assert inside >= 0.9 * 40
    if factor == 1:  # nothing but chance
        assert np.mean(chance) == pytest.approx(np.mean(alone), rel=0.05)


def test_groups_widen_the_interval_of_the_error():
    logits, labels = sure(200, factor=2.0)
    confidence, correct = (np.repeat(each, 10) for each in confidence_of(logits, labels))
    groups = np.repeat(np.arange(200), 10)
    wide, narrow = reliability(confidence, correct, groups=groups), reliability(confidence, correct)
    assert np.ptp(wide.interval) > 2 * np.ptp(narrow.interval)
    assert wide.error == narrow.error
    assert np.nanmax(np.ptp(wide.intervals, axis=1) / np.ptp(narrow.intervals, axis=1)) > 2


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_the_temperature_is_the_factor(factor):
    logits, labels = sure(20_000, factor=factor)
    found = fit_temperature(logits, labels)
    assert found.found
    assert found.temperature == pytest.approx(factor, rel=0.04)
    assert len(found.of_folds) == 5
    assert found.loss_before == pytest.approx(log_loss(log_softmax(logits, axis=1), labels))
    if factor != 1:
        assert found.loss_after < found.loss_before
        assert found.error_after < found.error_before / 3
    again = fit_temperature(log_softmax(logits, axis=1), labels)
    assert again.temperature == pytest.approx(found.temperature, rel=1e-4), "log-probabilities are logits too"


def test_one_logit_has_the_temperature_of_scikit_learn():
    random = np.random.default_rng(0)
    logit = random.normal(0, 3, 3000)
    labels = (random.random(3000) < expit(logit / 2)).astype(int)
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(logit[:, None], labels)
    found = fit_temperature(logit[:, None], labels)
    assert 1 / found.temperature == pytest.approx(model.coef_[0, 0], rel=1e-4)


def test_no_record_judges_a_temperature_that_has_seen_its_group():
    """Twins in all folds would make any fit look good; here every group has labels of its own."""
    random = np.random.default_rng(0)
    logits = np.repeat(random.normal(0, 1, (12, 2)), 20, axis=0)
    labels = np.repeat(random.integers(0, 2, 12), 20)
    groups = np.repeat(np.arange(12), 20)
    together = fit_temperature(logits, labels, groups=groups)
    apart = fit_temperature(logits, labels)
    assert together.temperature == apart.temperature
    assert together.loss_after > apart.loss_after


@pytest.mark.parametrize("right", [True, False])
def test_without_a_best_temperature_none_is_found(right):
    labels = np.arange(30) % 2
    logits = np.where((labels[:, None] == [0, 1]) == right, 1.0, -1.0)
    assert not fit_temperature(logits, labels).found


def test_accuracy_by_coverage_by_hand():
    confidence = np.array([0.5, 0.9, 0.7, 0.9, 0.6])
    correct = np.array([False, True, True, False, True])
    found = by_coverage(confidence, correct)
    assert found.shares == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    # The two of 0.9 count half each; then 0.7 right, 0.6 right, 0.5 wrong.
    assert found.accuracies == pytest.approx([0.5, 0.5, 2 / 3, 3 / 4, 3 / 5])
    order = np.array([3, 0, 1, 4, 2])
    assert by_coverage(confidence[order], correct[order]).accuracies == pytest.approx(found.accuracies)


def test_refusing_is_a_threshold():
    confidence = np.array([0.5, 0.9, 0.7, 0.9, 0.6])
    correct = np.array([False, True, True, False, True])
    assert refusing(confidence, correct, share=0.2) == (1, 4, 0.75, 0.6)
    assert refusing(confidence, correct, share=0.39) == (1, 4, 0.75, 0.6)
    assert refusing(confidence, correct, share=0.0) == (0, 5, 0.6, 0.5)
    tied = np.full(5, 0.8)
    assert refusing(tied, correct, share=0.4) == (0, 5, 0.6, 0.8), "a threshold cannot part equals"
    for share in (0.1, 0.5, 0.9):
        found = refusing(*confidence_of(*sure(1000)), share=share)
        assert found.refused == round(1000 * share)
        surest = by_coverage(*confidence_of(*sure(1000)))
        assert found.accuracy == pytest.approx(surest.accuracies[found.answered - 1])
