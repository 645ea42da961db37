"""Slope, offsets and intervals, against SciPy's minimiser, plain formulas and made-up sets of known answers."""

from __future__ import annotations

import numpy as np
import pytest
from exact_data import parts_of, planted
from scipy.optimize import minimize
from scipy.special import log_softmax

from jaxcat.objectives.exact import calibration
from jaxcat.objectives.exact.calibration import _derivatives, _Problem, _wanted, calibrate, fit, frequencies
from jaxcat.objectives.exact.parts import Groups
from jaxcat.objectives.exact.solve import solve_head
from jaxcat.objectives.intervals import accuracy_interval


def smoothed(labels: np.ndarray, classes: int) -> np.ndarray:
    """Platt's targets, record by record; the other classes share what is left to them."""
    counts = [int(np.sum(labels == c)) for c in range(classes)]
    own = [(counts[y] + 1) / (counts[y] + 2) for y in labels]
    rows = [
        [p if c == y else (1 - p) / (classes - 1) for c in range(classes)] for p, y in zip(own, labels, strict=True)
    ]
    return np.array(rows)


def loss_plainly(values, scores, labels, weights) -> float:
    classes = scores.shape[1]
    return float(-weights @ (smoothed(labels, classes) * log_softmax(values[0] * scores + values[1:], axis=1)).sum(1))


def scores_and_labels(classes: int, *, records: int = 200, seed: int = 0, bias: float = 0.0):
    random = np.random.default_rng(seed)
    chances = np.ones(classes)
    chances[0] += bias
    labels = random.choice(classes, records, p=chances / chances.sum())
    scores = random.standard_normal((records, classes)) + 1.5 * np.eye(classes)[labels]
    return scores, labels, random.uniform(0.5, 2, records)


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("with_offsets", [False, True])
def test_fit_is_the_minimum(classes, with_offsets):
    scores, labels, weights = scores_and_labels(classes, bias=3.0)
    slope, offsets = fit(scores, labels, weights, with_offsets=with_offsets)

    def loss(values):
        whole = np.concatenate([values, np.zeros(classes)])[: classes + 1]
        return loss_plainly(whole, scores, labels, weights)

    start = np.zeros(classes + 1 if with_offsets else 1)
    found = minimize(loss, start, method="BFGS", options={"gtol": 1e-7})
    assert slope == pytest.approx(found.x[0], rel=1e-4)
    assert loss(np.array([slope, *offsets])[: len(start)]) <= found.fun + 1e-9
    problem = _Problem(scores, labels, weights)
    at = np.array([slope, *offsets])
    own_loss = _derivatives(problem, _wanted(problem), at, with_offsets=with_offsets)[0]
    assert own_loss == pytest.approx(found.fun, rel=1e-9)
    if with_offsets:
        np.testing.assert_allclose(offsets, found.x[1:] - found.x[1:].mean(), atol=1e-4)
    else:
        assert not offsets.any()


@pytest.mark.parametrize("classes", [2, 5])
def test_offsets_without_a_slope_are_the_minimum(classes):
    scores, labels, weights = scores_and_labels(classes, bias=3.0)
    slope, offsets = fit(-scores, labels, weights, with_offsets=True)
    found = minimize(lambda tried: loss_plainly([0, *tried], scores, labels, weights), np.zeros(classes), tol=1e-7)
    assert slope == 0
    np.testing.assert_allclose(offsets, found.x - found.x.mean(), atol=1e-4)


@pytest.mark.parametrize("with_offsets", [False, True])
def test_start_changes_nothing_but_the_steps(with_offsets):
    scores, labels, weights = scores_and_labels(4, bias=3.0)
    found = fit(scores, labels, weights, with_offsets=with_offsets)
    start = 3.0, np.array([1.0, -1, 0, 0]) if with_offsets else np.zeros(4)
    again = fit(scores, labels, weights, with_offsets=with_offsets, start=start)
    assert again[0] == pytest.approx(found[0], rel=1e-5)
    np.testing.assert_allclose(again[1], found[1], atol=1e-5)


@pytest.mark.slow
def test_many_classes_of_different_size_take_few_steps(monkeypatch):
    """3,000 records of 200 classes, whose calibration took 15 s."""
    random = np.random.default_rng(0)
    labels = np.concatenate([np.repeat(np.arange(200), 2), random.integers(0, 20, 2600)])
    scores = 0.1 * random.standard_normal((3000, 200)) + 0.5 * np.eye(200)[labels] - 1
    sizes = []

    def counted(*given, **settings):
        found = _derivatives(*given, **settings)
        sizes.append(len(found[2]))
        return found

    monkeypatch.setattr(calibration, "_derivatives", counted)
    groups = Groups(None, records=3000)
    made = calibrate(scores, labels, classes=200, weights=np.ones(3000), groups=groups, seed=0)
    assert made.offsets is not None
    assert set(sizes) == {1, 201}  # the slope alone has no curvature of 200 classes
    assert sizes.count(201) < 35
    assert sizes.count(1) < 45


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_of_rounding_give_the_frequencies(classes):
    labels = np.arange(60) % classes
    scores = 1e-15 * (2.0 * np.eye(classes)[labels] - 1)
    scores = scores[:, 1:] if classes == 2 else scores - 0.3
    made = calibrate(scores, labels, classes=classes, weights=np.ones(60), groups=Groups(None, records=60), seed=0)
    assert made.slope == 0


def test_one_score_is_a_sigmoid():
    scores, labels, weights = scores_and_labels(2)
    one = scores[:, 1:] - scores[:, :1]
    made = calibrate(one, labels, classes=2, weights=weights, groups=Groups(None, records=200), seed=0)
    target = smoothed(labels, 2)[:, 1]

    def loss(slope):
        return np.sum(weights * (np.logaddexp(0, slope * one[:, 0]) - target * slope * one[:, 0]))

    assert made.offsets is None
    assert made.slope == pytest.approx(minimize(loss, 0.0, method="BFGS").x[0], rel=1e-4)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("classes", [2, 3])
def test_separable_scores_give_no_certainty(classes, size):
    labels = np.arange(60) % classes
    scores = size * (2.0 * np.eye(classes)[labels] - 1)
    scores = scores[:, 1:] if classes == 2 else scores
    made = calibrate(scores, labels, classes=classes, weights=np.ones(60), groups=Groups(None, records=60), seed=0)
    logits = made.logits(scores)
    logits = np.hstack([np.zeros((60, 1)), logits]) if classes == 2 else logits
    count = 60 // classes
    np.testing.assert_allclose(np.exp(log_softmax(logits, 1).max(1)), (count + 1) / (count + 2), rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_against_the_labels_give_the_frequencies(classes):
    labels = np.repeat(np.arange(classes), [10, 20, 30][:classes])
    scores = -(2.0 * np.eye(classes)[labels] - 1)
    scores = scores[:, 1:] if classes == 2 else scores
    groups = Groups(None, records=len(labels))
    made = calibrate(
        scores - scores.mean(), labels, classes=classes, weights=np.ones(len(labels)), groups=groups, seed=0
    )
    assert made.slope == 0
    shares = np.bincount(labels) / len(labels)
    expected = [np.log(shares[1] / shares[0])] if classes == 2 else np.log(shares)
    np.testing.assert_allclose(made.offsets, expected)
    np.testing.assert_allclose(made.logits(scores), np.broadcast_to(expected, scores.shape))


def test_frequencies_are_weighted_and_finite():
    labels = np.array([0, 0, 0, 2])
    found = np.exp(frequencies(labels, classes=3, weights=np.array([1.0, 1, 1, 3])))
    np.testing.assert_allclose(found, [0.5, 0.125, 0.5])


@pytest.mark.parametrize("classes", [2, 4])
def test_offsets_only_where_classes_differ_in_size_and_they_help(classes):
    """Scores without the classes' frequencies need them added; scores of classes of one size do not."""

    def made(bias, records=600):
        scores, labels, weights = scores_and_labels(classes, bias=bias, records=records)
        scores = scores[:, 1:] - scores[:, :1] if classes == 2 else scores
        ones = np.ones(records)
        return calibrate(scores, labels, classes=classes, weights=ones, groups=Groups(None, records=records), seed=0)

    assert made(0.0).offsets is None
    offsets = made(12.0).offsets
    assert offsets is not None
    if classes == 2:
        assert offsets[0] == pytest.approx(-np.log(13), abs=0.6)
    else:
        assert offsets[0] - offsets[1:].mean() == pytest.approx(np.log(13), abs=0.8)


def test_kernel_and_bias_have_slope_and_offsets():
    """An imbalanced set whose offsets help: probabilities of the head agree with the frequencies of its classes."""
    features, labels = planted(400, {"a": 6}, signal="a", size=0.4)
    keep = (labels == 0) | (np.arange(400) % 10 == 1)
    found = solve_head(
        parts_of({"a": features["a"][keep]}),
        labels[keep],
        classes=2,
        ranges=[("a",)],
    )
    raw = features["a"][keep].astype(np.float64)
    logits = (raw @ found.kernel + found.bias)[:, 0]
    # with 6 features of many records, leaving one out changes little
    np.testing.assert_allclose(logits, found.leave_one_out[:, 0], atol=0.2 * np.ptp(logits))
    assert np.mean(1 / (1 + np.exp(-logits))) == pytest.approx(np.mean(labels[keep]), abs=0.03)


@pytest.mark.parametrize(
    ("right", "records", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval(right, records, low, high):
    """The figures of R. Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    found = accuracy_interval(np.arange(records) < right)
    assert found == pytest.approx((low, high), abs=6e-5)
    assert accuracy_interval(np.arange(records) < right, np.arange(records)) == found


def test_interval_of_groups_is_that_of_their_number():
    random = np.random.default_rng(0)
    of_group = random.random(60) < 0.7
    correct, groups = np.repeat(of_group, 10), np.repeat(np.arange(60), 10)
    low, high = accuracy_interval(correct, groups)
    by_group = accuracy_interval(of_group)
    assert high - low == pytest.approx(by_group[1] - by_group[0], rel=0.15)
    assert (low, high) == accuracy_interval(correct, groups)
    assert high - low > 2.5 * np.subtract(*accuracy_interval(correct)[::-1])
    assert accuracy_interval(np.ones(60), groups[:60]) == accuracy_interval(np.ones(60))
    assert accuracy_interval(np.zeros(0)) == (0.0, 1.0)
