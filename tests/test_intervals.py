"""Intervals of accuracies and of the figures of classes, and the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import precision_recall_fscore_support

from jaxcat.objectives.bootstrap import drawn_sums
from jaxcat.objectives.intervals import accuracy_interval, class_intervals


@pytest.mark.parametrize("count", [1, 2, 3, 17, 1000])
def test_independent_records_have_the_interval_of_scipy(count):
    for right in {0, 1, count // 3, count - 1, count}:
        expected = binomtest(right, count).proportion_ci(0.95, method="wilson")
        assert accuracy_interval(np.arange(count) < right) == pytest.approx(tuple(expected), abs=1e-12)


def answers(count: int = 400, classes: int = 4, *, groups: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions, labels and groups; all records of a group are right, or all are wrong in the same way."""
    random = np.random.default_rng(3)
    names = random.integers(0, groups, count) if groups else np.arange(count)
    labels = random.integers(0, classes, names.max() + 1)
    wrong = random.random(len(labels)) < 0.2
    predicted = np.where(wrong, (labels + 1) % classes, labels)
    return predicted[names], labels[names], names


def test_precision_and_recall_of_classes_have_the_interval_of_scipy():
    predicted, labels, _ = answers()
    found = class_intervals(predicted, labels, classes=5)
    for label in range(4):
        hits = int(((predicted == label) & (labels == label)).sum())
        for intervals, of in ((found.precision, predicted), (found.recall, labels)):
            expected = binomtest(hits, int((of == label).sum())).proportion_ci(0.95, method="wilson")
            assert intervals[label] == pytest.approx(tuple(expected), abs=1e-12)
    for intervals in found:
        assert tuple(intervals[4]) == (0, 1), "a class without a record and without an answer"


@pytest.mark.slow
def test_the_interval_of_f1_is_that_of_a_bootstrap():
    predicted, labels, _ = answers(2000)
    found = class_intervals(predicted, labels, classes=4).f1
    f1 = precision_recall_fscore_support(labels, predicted)[2]

    def drawn(rows: np.ndarray) -> float:
        return precision_recall_fscore_support(labels[rows], predicted[rows], labels=[0])[2][0]

    result = bootstrap(
        (np.arange(2000),), drawn, n_resamples=300, vectorized=False, method="percentile", random_state=0
    )
    assert found[0] == pytest.approx(tuple(result.confidence_interval), abs=0.006)
    assert ((found[:, 0] < f1) & (f1 < found[:, 1])).all()


def test_groups_widen_the_intervals_of_classes_as_they_should():
    predicted, labels, groups = answers(4000, groups=400)
    alone = class_intervals(predicted, labels, classes=4)
    together = class_intervals(predicted, labels, classes=4, groups=groups)
    for narrow, wide in zip(alone, together, strict=True):
        ratio = np.ptp(wide, axis=1) / np.ptp(narrow, axis=1)
        # Ten equal answers in a group: about sqrt(10), and more as groups differ in size.
        assert (ratio > 2.5).all()
        assert (ratio < 4.5).all()
    same = class_intervals(predicted, labels, classes=4, groups=np.arange(4000))
    assert all(np.array_equal(one, other) for one, other in zip(same, alone, strict=True))


def test_drawn_sums_have_the_mean_and_spread_of_samples():
    random = np.random.default_rng(0)
    values, groups = random.normal(1, 1, (300, 2)), random.integers(0, 60, 300)
    for of in (None, groups):
        sums = drawn_sums(values, of, seed=1, draws=4000)
        each = values if of is None else np.stack([values[of == g].sum(axis=0) for g in np.unique(of)])
        assert sums.mean(axis=0) == pytest.approx(values.sum(axis=0), abs=4 * sums.std() / 4000**0.5)
        assert sums.std(axis=0) == pytest.approx(each.std(axis=0) * len(each) ** 0.5, rel=0.05)
    assert np.array_equal(drawn_sums(values, groups, draws=3), drawn_sums(values, groups, draws=3))
