"""Coefficients and leave-one-out residuals of the exact solver, against scikit-learn and plain refits."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from exact_data import fitted_plainly, left_out_plainly, parts_of, planted, scaled_plainly, signs_of
from sklearn.linear_model import Ridge, RidgeClassifierCV

from jaxcat.errors import ConfigError
from jaxcat.objectives.exact import choice, leave_one_out, solve
from jaxcat.objectives.exact.choice import FIRST, relative
from jaxcat.objectives.exact.solve import solve_head

WIDE = {"a": 60, "b": 40, "c": 100}  # more columns than records
NARROW = {"a": 5, "b": 12, "c": 3}
RECORDS = 90
WEIGHTS = np.array([0.5, 2.0, 1.3])


def scores_of(solution) -> np.ndarray:
    """Leave-one-out scores before slope and offsets."""
    offsets = 0 if solution.offsets is None else solution.offsets
    return (solution.leave_one_out - offsets) / solution.slope


def all_on(features, labels, classes, **settings):
    return solve_head(parts_of(features), labels, classes=classes, ranges=[tuple(features)], **settings)


@pytest.fixture(params=["eigen", "cholesky"])
def way(request, monkeypatch):
    """With and without the limit passed, from which on every penalty takes a Cholesky decomposition."""
    if request.param == "cholesky":
        monkeypatch.setattr(solve, "LIMIT", 2)
        monkeypatch.setattr(solve, "LEAST_RANKED", 2)
    return request.param


@pytest.mark.parametrize("widths", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_coefficients_are_those_of_ridge(widths, classes, weighted, way):
    features, labels = planted(RECORDS, widths, classes=classes, signal=["b"])
    class_weights = WEIGHTS[:classes] if weighted else None
    weights = np.ones(RECORDS) if class_weights is None else class_weights[labels]
    found = all_on(features, labels, classes, class_weights=class_weights, penalty=0.7)
    ridge = Ridge(alpha=0.7, solver="cholesky").fit(
        scaled_plainly(list(features.values()), weights), signs_of(labels, classes), sample_weight=weights
    )
    raw = np.hstack(list(features.values())).astype(np.float64)
    rows = scaled_plainly(list(features.values()), weights)
    expected = rows @ ridge.coef_.reshape(-1, rows.shape[1]).T + ridge.intercept_
    offsets = 0 if found.offsets is None else found.offsets
    np.testing.assert_allclose(
        (raw @ found.kernel + found.bias - offsets) / found.slope, expected, rtol=1e-6, atol=1e-8
    )
    scales = [np.linalg.norm(r - np.average(r, axis=0, weights=weights), axis=1) for r in features.values()]
    scales = [np.sqrt(np.average(norms**2, weights=weights)) for norms in scales]
    coefficients = ridge.coef_.reshape(-1, rows.shape[1]).T / np.repeat(scales, list(widths.values()))[:, None]
    np.testing.assert_allclose(found.kernel / found.slope, coefficients, rtol=1e-6, atol=1e-9 * abs(coefficients).max())


@pytest.mark.parametrize("widths", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("group", [1, 2, 7, 30])
def test_left_out_scores_are_those_of_refits_with_scaling_held(widths, classes, group, way):
    features, labels = planted(RECORDS, widths, classes=classes, signal=["a"])
    groups = np.random.default_rng(3).integers(0, RECORDS // group, RECORDS) if group > 1 else np.arange(RECORDS)
    class_weights = WEIGHTS[:classes]
    weights = class_weights[labels]
    found = all_on(
        features, labels, classes, groups=groups if group > 1 else None, class_weights=class_weights, penalty=0.2
    )
    rows = scaled_plainly(list(features.values()), weights)
    expected = left_out_plainly(rows, signs_of(labels, classes), weights, 0.2, groups)
    np.testing.assert_allclose(scores_of(found), expected, atol=1e-8)


def test_scaling_is_fitted_with_the_record_that_is_left_out():
    """Refits that also scale without the record differ: here scores by 0.0006 at most, 0.0001 on average."""
    features, labels = planted(RECORDS, WIDE, signal=["a"])
    found = scores_of(all_on(features, labels, 2, penalty=0.5))
    targets, differences = signs_of(labels, 2), []
    for out in range(RECORDS):
        weights = (np.arange(RECORDS) != out) * 1.0
        rows = scaled_plainly(list(features.values()), weights)
        coefficients, intercept = fitted_plainly(rows, targets, weights, 0.5)
        differences.append(abs(rows[out] @ coefficients + intercept - found[out]).max())
    assert 0 < np.mean(differences) < 2e-4
    assert max(differences) < 1e-3


@pytest.mark.parametrize("widths", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("classes", [2, 3])
def test_leave_one_out_and_penalty_are_those_of_ridge_classifier_cv(widths, classes):
    features, labels = planted(RECORDS, widths, classes=classes, signal=["b"], size=0.5)
    found = all_on(features, labels, classes)
    grid = np.array([relative(exponent) for exponent in FIRST]) * len(widths)
    rows = scaled_plainly(list(features.values()), np.ones(RECORDS))
    theirs = RidgeClassifierCV(alphas=grid, store_cv_results=True).fit(rows, labels)
    errors = theirs.cv_results_.reshape(RECORDS, -1, len(grid)).mean(axis=(0, 1))
    row = found.candidates[0]
    assert found.penalty == pytest.approx(theirs.alpha_, rel=1e-12)
    assert row["squared_error"] == pytest.approx(errors.min(), rel=1e-8)
    assert row["accuracy"] == pytest.approx(
        np.mean((scores_of(found)[:, 0] > 0) == labels if classes == 2 else scores_of(found).argmax(1) == labels)
    )


def test_given_penalty_gives_the_head_that_chose_it():
    features, labels = planted(RECORDS, WIDE, classes=3, signal=["b"])
    chosen = all_on(features, labels, 3)
    again = all_on(features, labels, 3, penalty=chosen.penalty)
    np.testing.assert_array_equal(again.kernel, chosen.kernel)
    np.testing.assert_array_equal(again.leave_one_out, chosen.leave_one_out)


@pytest.mark.parametrize("penalty", [1e-6, 1e-3, 1.0, 1e4])
def test_dual_and_primal_agree_where_columns_are_as_many_as_records(penalty):
    """One column more or less decides between them; a part that is nearly constant adds nothing."""
    features, labels = planted(40, {"a": 20, "b": 19}, signal=["a"])
    more = {**features, "c": np.eye(40)[:, :1] * 0 + 5.0}
    primal = all_on(features, labels, 2, penalty=penalty)
    dual = all_on({"a": np.hstack([features["a"], np.zeros((40, 1))]), "b": features["b"]}, labels, 2, penalty=penalty)
    np.testing.assert_allclose(dual.leave_one_out, primal.leave_one_out, rtol=1e-6, atol=1e-9)
    assert all_on(more, labels, 2, penalty=penalty).candidates[0]["columns"] == 39


@pytest.mark.parametrize("penalty", [1e-8, 1e-6, 1e-2])
@pytest.mark.parametrize("widths", [WIDE, {"a": 85}], ids=["wide", "as many"])
def test_labels_do_not_leak(widths, penalty, way):
    """Noise, fitted exactly: without the intercept's share of the hat matrix leave-one-out would be right always."""
    features, labels = planted(RECORDS, widths, seed=4)
    found = all_on(features, labels, 2, penalty=penalty)
    assert found.candidates[-1]["accuracy"] < 0.68
    rows, targets = scaled_plainly(list(features.values()), np.ones(RECORDS)), signs_of(labels, 2)
    coefficients, intercept = fitted_plainly(rows, targets, np.ones(RECORDS), penalty)
    assert (((rows @ coefficients + intercept) > 0) == (targets > 0)).mean() > 0.95


def test_solving_imports_no_framework():
    code = "import jaxcat.objectives.exact, jaxcat.objectives.intervals, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"jax", "sklearn", "tensorflow"} & set(loaded)


@pytest.mark.parametrize("widths", [WIDE, NARROW], ids=["wide", "narrow"])
def test_large_groups_are_solved_as_small_ones_are(widths, way, monkeypatch):
    features, labels = planted(RECORDS, widths, signal=["a"])
    options = {"groups": np.arange(RECORDS) // 15, "penalty": 0.2}
    stacked = all_on(features, labels, 2, **options)
    monkeypatch.setattr(leave_one_out, "STACKED", 4)
    monkeypatch.setattr(leave_one_out, "STACK_VALUES", 15**2 * 4)
    one_by_one = all_on(features, labels, 2, **options)
    np.testing.assert_allclose(one_by_one.leave_one_out, stacked.leave_one_out, rtol=1e-9)


def test_penalty_too_small_for_float64(monkeypatch):
    """Records twice and wide parts: the Gram matrix has eigenvalues that rounding makes negative."""
    monkeypatch.setattr(solve, "LIMIT", 40)
    monkeypatch.setattr(solve, "LEAST_RANKED", 40)
    features, labels = planted(60, {"a": 200}, signal=["a"])
    twice, labels = {"a": np.repeat(features["a"], 2, axis=0)}, np.repeat(labels, 2)
    with pytest.raises(ConfigError, match="optim.penalty=1e-18"):
        all_on(twice, labels, 2, penalty=1e-18)
    monkeypatch.setattr(choice, "FIRST", range(-40, -39))
    monkeypatch.setattr(choice, "ALL", range(-40, -39))
    found = all_on(twice, labels, 2)
    assert 1e-20 < found.penalty < 1e-9
    assert np.isfinite(found.leave_one_out).all()
