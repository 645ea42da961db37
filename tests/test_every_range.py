"""Every range from one Gram matrix per part, and heads of subsets, against the same least squares written plainly."""

from __future__ import annotations

import time

import numpy as np
import pytest
from exact_data import fitted_plainly, left_out_plainly, parts_of, planted, scaled_plainly, signs_of

from jaxcat.errors import DataError
from jaxcat.objectives.exact.decomposition import DualEigen
from jaxcat.objectives.exact.every_range import EXPONENTS, every_range, judge
from jaxcat.objectives.exact.part_grams import Selection, part_grams
from jaxcat.objectives.exact.problem import problem_of, problem_of_some
from jaxcat.objectives.exact.subsets import measure_subsets, measured_by_leaving_out
from jaxcat.objectives.exact.threads import in_parallel

RECORDS = 48


def both(features: dict[str, np.ndarray]):
    """Parts of two statistics for each block; the deviations are another function of the features."""
    averages = parts_of(features, "avg")
    deviations = parts_of({name: np.abs(rows[:, ::2]) for name, rows in features.items()}, "std")
    return [part for pair in zip(averages, deviations, strict=True) for part in pair]


def columns(parts, numbers) -> list[np.ndarray]:
    return [parts[i].read(0, RECORDS) for i in numbers]


@pytest.fixture(params=[2, 3])
def case(request):
    features, labels = planted(RECORDS, {"a": 9, "b": 60, "c": 7}, classes=request.param, signal="b", size=0.5)
    groups = np.random.default_rng(1).integers(0, 30, RECORDS)
    weights = np.linspace(0.5, 2.0, request.param)
    problem = problem_of(labels, classes=request.param, groups=groups, class_weights=weights)
    return both(features), labels, groups, weights[labels], problem


def test_each_candidate_equals_new_fits_without_each_group(case):
    parts, labels, groups, weights, problem = case
    classes = int(labels.max()) + 1
    grams = part_grams(parts, np.arange(RECORDS))
    candidates = every_range(grams)
    assert len(candidates) == 6 * 2
    assert {(c.blocks, c.pool) for c in candidates} >= {(("a", "b"), "avg"), (("c",), "avg_std")}
    judged = judge(grams, problem, candidates)
    targets = signs_of(labels, classes)
    for place in (0, 4, 7, 11):
        rows = scaled_plainly(columns(parts, candidates[place].parts), weights)
        unit = (rows**2 * weights[:, None]).sum() / RECORDS  # the mean diagonal of the Gram matrix
        for number in (3, 9):
            penalty = 10 ** (EXPONENTS[number] / 2) * unit
            assert judged.penalties[place, number] == pytest.approx(penalty)
            scores = left_out_plainly(rows, targets, weights, penalty, groups)
            squared = ((scores - targets) ** 2).mean(axis=1) * weights
            np.testing.assert_allclose(judged.squared[place, number], squared, rtol=2e-4, atol=1e-6)
            answers = (scores[:, 0] > 0).astype(int) if classes == 2 else scores.argmax(axis=1)
            np.testing.assert_array_equal(judged.right[place, number], answers == labels)
    winner, penalty = judged.winner()
    assert "b" in candidates[winner].blocks
    assert judged.errors()[winner, penalty] == judged.errors().min()


def test_head_of_a_subset_answers_the_others_as_a_new_fit_does(case):
    parts, labels, _, weights, problem = case
    grams = part_grams(parts, np.arange(RECORDS))
    chosen, others = np.arange(0, RECORDS, 2), np.arange(1, RECORDS, 2)
    selection = Selection(grams, problem_of_some(problem, chosen), chosen)
    fit = DualEigen(selection.gram([0, 1, 2]), selection.problem).fit(0.7)
    scores = selection.scores_of_others([0, 1, 2], others, fit.dual)
    # the same, scaled by the chosen records alone
    features = [rows.astype(np.float64) for rows in columns(parts, [0, 1, 2])]
    scaled = []
    for rows in features:
        centred = rows - np.average(rows[chosen], axis=0, weights=weights[chosen])
        scaled.append(centred / np.sqrt(np.average((centred[chosen] ** 2).sum(axis=1), weights=weights[chosen])))
    rows, targets = np.hstack(scaled), signs_of(labels, int(labels.max()) + 1)
    coefficients, intercept = fitted_plainly(rows[chosen], targets[chosen], weights[chosen], 0.7)
    np.testing.assert_allclose(scores, rows[others] @ coefficients + intercept, rtol=1e-6, atol=1e-8)


def test_constant_parts_count_for_nothing():
    features, labels = planted(RECORDS, {"a": 9, "b": 9}, signal="b")
    features["a"][:] = 1234.5
    problem = problem_of(labels, classes=2, groups=None, class_weights=None)
    parts = parts_of(features, "avg")
    judged = judge(part_grams(parts, np.arange(RECORDS)), problem, every_range(part_grams(parts, np.arange(RECORDS))))
    found = {"".join(c.blocks): judged.errors()[i].min() for i, c in enumerate(judged.candidates)}
    assert found["ab"] == pytest.approx(found["b"])
    assert found["a"] >= 1  # nothing but the mean, which is of the others
    assert judged.candidates[judged.winner()[0]].blocks == ("b",)


def test_values_that_are_not_finite_are_named():
    features, _ = planted(RECORDS, {"a": 9})
    features["a"][3, 4] = np.nan
    with pytest.raises(DataError, match=r"block a \(avg\)"):
        part_grams(parts_of(features, "avg"), np.arange(RECORDS))


def test_subsets_answer_only_records_of_other_groups():
    features, labels = planted(200, {"a": 9, "b": 9}, signal="b", size=0.6)
    groups = np.arange(200) // 2
    problem = problem_of(labels, classes=2, groups=groups, class_weights=None)
    grams = part_grams(parts_of(features, "avg"), np.arange(200))
    candidates = every_range(grams)
    small, large = measure_subsets(grams, problem, candidates, [20, 140], seed=0)
    assert small.size <= 20
    assert 130 <= large.size <= 140
    assert len(small.wrong) == 10
    assert len(large.wrong) == 4
    for each in (small, large):
        pairs = each.answered.reshape(len(each.answered), 100, 2)
        assert (pairs[..., 0] == pairs[..., 1]).all(), "groups are answered whole"
        assert (each.answered.sum(axis=1) >= 200 - np.ceil(each.size) - 2).all()
    whole = measured_by_leaving_out(judge(grams, problem, candidates), candidates)
    assert whole.answered.all()
    assert small.error() > large.error() >= whole.error() - 0.05


def test_an_interrupted_search_ends():
    began = []

    def chain():
        for step in range(1000):
            yield lambda step=step: (began.append(step), time.sleep(0.01))

    def progress(words: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_parallel([chain] * 3, total=3000, progress=progress)
    assert len(began) < 1000
