"""Near duplicates and outliers among made-up features."""

from __future__ import annotations

import numpy as np
import pytest
from exact_data import parts_of
from sklearn.decomposition import PCA

from jaxcat.objectives.near_duplicates import pairs_alike, whiten


def features(count: int, width: int = 80, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((width, width)) * np.linspace(1, 0.05, width)[:, None]
    return (random.standard_normal((count, width)) @ mixing + 5).astype(np.float32)


def whitened(rows: np.ndarray, *, at: int = 0):
    """Whitened in two splits, of which the first has `at` records."""
    splits = [rows[:at], rows[at:]] if at else [rows]
    return whiten([parts_of({"a": each}) for each in splits], [len(each) for each in splits])


def test_whitening_equals_that_of_scikit_learn():
    rows = features(400)
    found = whitened(rows, at=150)
    expected = PCA(n_components=50, whiten=True, svd_solver="full").fit_transform(rows.astype(np.float64))
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    wanted = (expected / lengths) @ (expected / lengths).T
    np.testing.assert_allclose(found.directions @ found.directions.T, wanted, atol=1e-6)
    np.testing.assert_allclose(found.distances, lengths[:, 0] / np.sqrt(50) * np.sqrt(400 / 399), rtol=1e-5)


def test_planted_copies_are_found_and_few_others():
    rows = features(1500)
    random = np.random.default_rng(9)
    rows[1400:1430] = rows[:30] + 0.02 * random.standard_normal((30, 80)).astype(np.float32) * rows.std(axis=0)
    found = pairs_alike(whitened(rows).directions)
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    planted = {(i, 1400 + i) for i in range(30)}
    assert len(pairs & planted) == 30
    assert len(pairs - planted) <= 5
    assert found.all == 1500 * 1499 // 2
    assert (np.diff(found.cosines) <= 0).all()
    assert (found.cosines > found.threshold).all()
    assert (found.first < found.second).all()


@pytest.mark.parametrize("wanted", [1.0, 50.0])
def test_the_stated_number_of_false_pairs_is_about_right(wanted):
    counts = [
        len(pairs_alike(whitened(features(1000, seed=seed)).directions, false_pairs=wanted).first) for seed in range(8)
    ]
    assert np.mean(counts) <= 3 * wanted + 1
    assert np.mean(counts) >= wanted / 10 - 0.1


def test_images_that_are_all_the_same_have_no_pairs_and_no_outliers():
    found = whitened(np.full((60, 20), 3.0, np.float32))
    assert not found.distances.any()
    assert not len(pairs_alike(found.directions).first)


def test_an_image_unlike_all_others_is_the_farthest():
    rows = features(500)
    rows[77] += 6 * rows.std(axis=0) * np.random.default_rng(0).choice([-1, 1], 80)
    assert whitened(rows).distances.argmax() == 77


def test_very_few_images():
    assert not len(pairs_alike(whitened(features(4)).directions).first)
