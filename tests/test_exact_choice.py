"""What the exact solver chooses, on sets small and odd, and with several processes."""

from __future__ import annotations

import json

import measure_exact
import numpy as np
import pytest
import small
from exact_data import parts_of, planted, together

from jaxcat.errors import DataError
from jaxcat.objectives.exact import solve
from jaxcat.objectives.exact.choice import best_of, search
from jaxcat.objectives.exact.parts import Groups, Part
from jaxcat.objectives.exact.solve import solve_head
from jaxcat.objectives.exact.stratified import folds, subset

BLOCKS = dict.fromkeys("abcdef", 12)
RANGES = [tuple("abcdef"), tuple("abc"), tuple("bcd"), tuple("cd"), tuple("def"), tuple("f")]


@pytest.fixture
def many(monkeypatch):
    """Sets of these tests count as large: a subset ranks, and the chosen range takes Cholesky decompositions."""
    monkeypatch.setattr(solve, "LIMIT", 60)
    monkeypatch.setattr(solve, "LEAST_RANKED", 60)
    monkeypatch.setattr(solve, "OF_CLASS", 1)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(
    ("signal", "chosen"), [("f", "f"), ("abc", "abc"), ("a", "abc"), ("cd", "cd"), ("af", "abcdef")]
)
def test_shortest_range_with_the_signal_is_chosen(signal, chosen, classes):
    features, labels = planted(150, BLOCKS, classes=classes, signal=signal, size=0.7)
    found = solve_head(parts_of(features), labels, classes=classes, ranges=RANGES)
    assert found.blocks == tuple(chosen)
    assert found.kernel.shape == (12 * len(chosen), 1 if classes == 2 else classes)
    assert len(json.loads(json.dumps(found.candidates))) == len(RANGES)


def test_ties_go_to_the_fewest_blocks():
    features, labels = planted(80, {"a": 10, "b": 10}, signal="b")
    features["a"][:] = 7.0
    features["c"] = np.zeros((80, 4))
    found = solve_head(
        parts_of(features), labels, classes=2, ranges=[tuple("abc"), tuple("ab"), tuple("b"), tuple("bc")]
    )
    assert found.blocks == ("b",)
    assert len({round(row["squared_error"], 12) for row in found.candidates}) == 1


def _row(blocks: str, error: float) -> dict:
    return {"blocks": list(blocks), "columns": 10 * len(blocks), "squared_error": error}


def test_errors_of_rounding_are_ties():
    assert best_of([_row("abc", 6.925221e-20), _row("b", 6.925258e-20), _row("ab", 0.0)]) == 1
    assert best_of([_row("abc", 1e-9), _row("b", 2e-9)]) == 0

    def averages(penalties):
        return np.array([[0.25 + (1e-15 if penalty > 0.5 else 0), 0.5] for penalty in penalties])

    found = search(averages, 1.0, 0.0)
    assert np.isfinite(found[-1, 0])  # the largest of equal penalties wins, and so the grid goes on to its end


def test_constant_parts_are_left_out_and_said():
    features, labels = planted(60, {"a": 8}, signal="a")
    constant = np.full((60, 5), 0.1) + np.random.default_rng(0).standard_normal((60, 5)) * 1e-9
    parts = [*parts_of(features), *parts_of({"a": constant}, "deviation")]
    found, alone = (solve_head(some, labels, classes=2, ranges=[("a",)]) for some in (parts, parts[:1]))
    assert "a (deviation)" in found.notes[0]
    assert not found.kernel[8:].any()
    np.testing.assert_allclose(found.kernel[:8], alone.kernel)
    np.testing.assert_allclose(found.bias, alone.bias)


def test_winner_at_an_end_of_the_grid_extends_it():
    labels = np.arange(60) % 2
    clear = (labels * 2.0 - 1)[:, None] + np.random.default_rng(0).standard_normal((60, 1)) * 1e-3
    found = solve_head(parts_of({"a": clear}), labels, classes=2, ranges=[("a",)])
    assert found.candidates[0]["relative_penalty"] < 1e-4
    features, labels = planted(60, {"a": 8}, seed=1)
    found = solve_head(parts_of(features), labels, classes=2, ranges=[("a",)])
    assert found.candidates[0]["relative_penalty"] == pytest.approx(1e6)
    assert any(f"{found.penalty:.3g} is the largest" in note for note in found.notes)


def test_penalty_at_the_small_end_is_said():
    labels = np.arange(60) % 2
    found = solve_head(parts_of({"a": labels[:, None] * 2.0}), labels, classes=2, ranges=[("a",)])
    assert not any("penalty" in note for note in found.notes)  # no smaller one lowers an error of rounding's size
    rows = np.column_stack([labels * 1e-3, np.random.default_rng(0).standard_normal(60)])
    found = solve_head(parts_of({"a": rows}), labels, classes=2, ranges=[("a",)])
    assert found.candidates[0]["relative_penalty"] == pytest.approx(1e-8)
    assert any(f"{found.penalty:.3g} is the smallest" in note and "usual" in note for note in found.notes)


def _finite(found) -> None:
    for array in (found.kernel, found.bias, found.leave_one_out):
        assert np.isfinite(array).all()


@pytest.mark.parametrize("records", [2, 3, 8])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_tiny_sets(records, classes, way_of_tiny):
    features, labels = planted(records, {"a": 50, "b": 1}, classes=classes)
    found = solve_head(parts_of(features), labels, classes=classes, ranges=[("a", "b"), ("b",)])
    _finite(found)
    assert found.kernel.shape[1] == (1 if classes == 2 else classes)


@pytest.fixture(params=[4000, 2], ids=["small", "large"])
def way_of_tiny(request, monkeypatch):
    monkeypatch.setattr(solve, "LIMIT", request.param)
    monkeypatch.setattr(solve, "LEAST_RANKED", request.param)
    monkeypatch.setattr(solve, "OF_CLASS", 1)


def test_eight_records_that_differ_are_told_apart():
    labels = np.array([0, 1] * 4)
    rows = np.random.default_rng(0).standard_normal((8, 30)) * 0.1 + labels[:, None]
    found = solve_head(parts_of({"a": rows}), labels, classes=2, ranges=[("a",)])
    assert ((rows @ found.kernel + found.bias > 0)[:, 0] == labels).all()
    assert ((found.leave_one_out > 0)[:, 0] == labels).all()
    assert abs(found.leave_one_out).max() < 5  # separable, but of eight records: no certainty


def test_one_feature_of_one_block():
    labels = np.arange(40) % 2
    rows = labels[:, None] + 0.1 * np.random.default_rng(0).standard_normal((40, 1))
    found = solve_head(parts_of({"a": rows}), labels, classes=2, ranges=[("a",)])
    assert found.kernel.shape == (1, 1)
    assert found.kernel[0, 0] > 0


@pytest.mark.parametrize("labels", [[0] * 6 + [1] * 2, [0, 1] * 4, [1] * 8])
def test_records_that_are_all_the_same_give_the_frequencies(labels):
    labels = np.array(labels)
    found = solve_head(
        parts_of({"a": np.full((8, 3), 1 / 3)}), labels, classes=2, ranges=[("a",)], groups=np.zeros(8, int)
    )
    _finite(found)
    assert not found.kernel.any()
    assert "one group" in found.notes[0]
    assert any("same for every record" in note for note in found.notes)


def test_one_group_is_said_and_records_are_left_out_alone():
    features, labels = planted(40, {"a": 5}, signal="a")
    found = solve_head(parts_of(features), labels, classes=2, ranges=[("a",)], groups=np.ones(40, int))
    alone = solve_head(parts_of(features), labels, classes=2, ranges=[("a",)])
    assert "too good" in found.notes[0]
    np.testing.assert_array_equal(found.kernel, alone.kernel)


def _notes(labels, groups=None, names=(), width=5):
    features = np.random.default_rng(0).standard_normal((len(labels), width))
    found = solve_head(
        parts_of({"a": features}), labels, classes=int(labels.max()) + 1, ranges=[("a",)], groups=groups, names=names
    )
    _finite(found)
    return found, " ".join(found.notes)


@pytest.mark.parametrize("classes", [2, 5])
def test_one_group_for_each_class_leaves_records_out_alone(classes):
    labels = np.arange(40) % classes
    found, notes = _notes(labels, groups=labels)
    alone, _ = _notes(labels)
    assert "one group" in notes
    assert "same pixels" in notes
    assert "too good" in notes
    assert "cannot judge" not in notes
    np.testing.assert_array_equal(found.leave_one_out, alone.leave_one_out)
    assert found.candidates[0]["squared_error"] < 4 / classes


def test_classes_of_one_group_are_named():
    labels = np.repeat(np.arange(3), 20)
    groups = np.where(labels == 1, 100, np.arange(60) // 2)
    found, notes = _notes(labels, groups=groups, names=["bird", "cat", "dog"])
    assert "In 1 of 3 classes" in notes
    assert "(cat)" in notes
    assert "too good" not in notes
    assert (found.leave_one_out.argmax(1)[labels == 1] != 1).all()
    assert "(number 1)" in _notes(labels, groups=groups)[1]
    assert "judge" not in _notes(labels, groups=np.arange(60) // 2)[1]
    labels = np.array([*range(9), 9, 9])
    assert "In 9 of 10 classes" in _notes(labels)[1]
    assert "number 4, 4 more)" in _notes(labels)[1]
    alone = _notes(np.array([0, 0, 0, 1]), groups=np.array([0, 0, 0, 1]))[1]
    assert "too good" in alone
    assert "(number 1)" in alone


@pytest.mark.parametrize("classes", [2, 4])
def test_one_record_of_each_class_is_said(classes):
    _, notes = _notes(np.arange(classes))
    assert "No class has more than one record" in notes
    assert "tell nothing" not in notes
    assert "do not rise with the right class" in notes


@pytest.mark.parametrize("width", [20, 300], ids=["primal", "dual"])
@pytest.mark.parametrize("classes", [2, 3])
def test_rounding_is_not_an_answer(width, classes):
    """Of every image one copy for each class, left out together: without them the classes differ by rounding."""
    rows = np.repeat(np.random.default_rng(0).standard_normal((50, width)), classes, axis=0)
    labels, groups = np.tile(np.arange(classes), 50), np.repeat(np.arange(50), classes)
    found = solve_head(parts_of({"a": rows}), labels, classes=classes, ranges=[("a",)], groups=groups)
    assert found.candidates[0]["accuracy"] == pytest.approx(1 / classes)
    assert found.slope == 0
    assert not found.kernel.any()
    np.testing.assert_allclose(found.leave_one_out, 0 if classes == 2 else -np.log(3))
    assert any("frequencies" in note for note in found.notes)


def test_twins_in_one_group_do_not_vouch_for_each_other():
    features, labels = planted(30, {"a": 60}, seed=2)
    twice = {"a": np.repeat(features["a"], 2, axis=0)}
    labels = np.repeat(labels, 2)
    apart = solve_head(parts_of(twice), labels, classes=2, ranges=[("a",)])
    grouped = solve_head(parts_of(twice), labels, classes=2, ranges=[("a",)], groups=np.repeat(np.arange(30), 2))
    assert apart.candidates[0]["accuracy"] == 1.0
    assert grouped.candidates[0]["accuracy"] < 0.7


def test_class_of_one_record_and_class_without_any():
    features, labels = planted(50, {"a": 10}, classes=3, signal="a", size=2)
    labels[labels == 2] = 0
    labels[0] = 2
    found = solve_head(parts_of(features), labels, classes=4, ranges=[("a",)])
    _finite(found)
    assert found.kernel.shape == (10, 4)
    assert (found.leave_one_out.argmax(1) != 3).all()


def test_one_record_and_values_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="2 or more"):
        solve_head(parts_of({"a": np.ones((1, 2))}), np.array([0]), classes=2, ranges=[("a",)])
    with pytest.raises(DataError, match="block a .*finite"):
        solve_head(parts_of({"a": np.full((4, 2), np.nan)}), np.array([0, 1] * 2), classes=2, ranges=[("a",)])


def test_too_little_memory_is_said_before_the_work(monkeypatch):
    features, labels = planted(60, BLOCKS)
    monkeypatch.setattr("jaxcat.system.memory.available", lambda: 1e4)
    with pytest.raises(DataError, match="--config.data.train_size"):
        solve_head(parts_of(features), labels, classes=2, ranges=RANGES)
    monkeypatch.setattr(solve, "LIMIT", 10)
    monkeypatch.setattr(solve, "LEAST_RANKED", 10)
    monkeypatch.setattr(solve, "OF_CLASS", 1)
    with pytest.raises(DataError, match="--config.data.train_size"):
        solve_head(parts_of(features), labels, classes=2, ranges=[tuple("abcdef")], penalty=1.0)


@pytest.mark.parametrize("records", [70, 400], ids=["dual", "primal"])
def test_many_records_are_ranked_on_a_subset_and_solved_on_all(records, many):
    features, labels = planted(records, {**BLOCKS, "c": 40, "d": 40}, classes=3, signal="cd", size=0.5)
    options = {"classes": 3, "ranges": RANGES, "groups": np.arange(records) // 2}
    found = solve_head(parts_of(features), labels, **options)
    assert found.blocks == ("c", "d")
    ranked, final = found.candidates[:-1], found.candidates[-1]
    assert {row["records"] for row in ranked} == {60}
    assert final["records"] == records
    chosen = next(row["relative_penalty"] for row in ranked if row["blocks"] == ["c", "d"])
    assert abs(np.log10(final["relative_penalty"] / chosen)) < 0.51
    given = solve_head(parts_of(features), labels, **(options | {"ranges": [("c", "d")], "penalty": found.penalty}))
    np.testing.assert_allclose(given.kernel, found.kernel, rtol=1e-9)
    errors = [
        solve_head(
            parts_of(features), labels, **(options | {"ranges": [("c", "d")], "penalty": chosen * 2 * factor})
        ).candidates[-1]["squared_error"]
        for factor in (10**-0.5, 1, 10**0.5)
    ]
    assert final["squared_error"] == pytest.approx(min(errors), rel=1e-9)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("records", small.slow_except([50], [50, 70, 200]))
@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_processes_give_the_same_head(count, records, limited, grouped, monkeypatch):
    """Dual, primal and mixed ranges; the sums that processes take, and their number, are the same in each."""
    if limited:
        monkeypatch.setattr(solve, "LIMIT", 30)
        monkeypatch.setattr(solve, "LEAST_RANKED", 30)
        monkeypatch.setattr(solve, "OF_CLASS", 1)
    monkeypatch.setattr("jaxcat.objectives.exact.scaling.BLOCK_BYTES", 8 * 40 * 72)
    features, labels = planted(records, BLOCKS, classes=3, signal="cd", size=0.5)
    groups = np.random.default_rng(0).integers(0, records // 3, records) if grouped else None
    options = {"classes": 3, "ranges": RANGES, "groups": groups, "class_weights": np.array([1.0, 2.0, 0.7])}
    alone = solve_head(parts_of(features), labels, **options)
    for found in together(count, lambda some: solve_head(parts_of(features), labels, processes=some, **options)):
        assert found.blocks == alone.blocks
        assert found.penalty == pytest.approx(alone.penalty, rel=1e-9)
        np.testing.assert_allclose(found.kernel, alone.kernel, rtol=1e-6, atol=1e-6 * abs(alone.kernel).max())
        np.testing.assert_allclose(found.bias, alone.bias, rtol=1e-6)
        np.testing.assert_allclose(found.leave_one_out, alone.leave_one_out, rtol=1e-6, atol=1e-6)


def test_rows_are_read_in_blocks(monkeypatch):
    features, labels = planted(200, {"a": 10})
    monkeypatch.setattr("jaxcat.objectives.exact.scaling.BLOCK_BYTES", 8 * 10 * 3 * 32)
    asked = []

    def read(start, stop):
        asked.append(stop - start)
        return features["a"][start:stop]

    solve_head([Part("a", "average", 10, read)], labels, classes=2, ranges=[("a",)])
    assert max(asked) <= 96


@pytest.mark.parametrize("classes", [2, 7])
def test_subsets_have_whole_groups_of_every_class(classes):
    random = np.random.default_rng(0)
    labels = np.sort(random.choice(classes, 1000, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()))
    names = labels * 1000 + random.integers(0, 60, 1000)
    groups = Groups(names, records=1000)
    chosen = subset(labels, groups, most=300, seed=0)
    assert 250 < len(chosen) <= 300
    assert set(names[chosen]).isdisjoint(np.delete(names, chosen))
    shares = np.bincount(labels[chosen], minlength=classes) / np.bincount(labels)
    np.testing.assert_allclose(shares, 0.3, atol=0.15)
    np.testing.assert_array_equal(chosen, subset(labels, groups, most=300, seed=0))
    assert not np.array_equal(chosen, subset(labels, groups, most=300, seed=1))
    large = subset(labels, Groups(labels, records=1000), most=100, seed=0)
    assert len(large) >= 50
    fold = folds(labels, groups, number=5, seed=0)
    for name in np.unique(names):
        assert len(set(fold[names == name])) == 1
    for label in range(classes):
        assert np.bincount(fold[labels == label], minlength=5).max() < 0.45 * np.sum(labels == label)


def test_script_measures_every_stage(capsys):
    measure_exact.main(["--records", "60", "--first", "0", "--last", "0", "--to", "600"])
    printed = capsys.readouterr().out
    for words in ("means", "scale", "Gram matrix", "solving", "memory: at most", "600 records"):
        assert words in printed
