"""Suspicious labels, against confident learning written plainly."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcat.objectives.label_errors import FACTOR, flipped, found_among, suspects


def probabilities(count: int, classes: int, *, sharp: float, seed: int = 0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    logits = random.standard_normal((count, classes))
    logits[np.arange(count), labels] += sharp
    found = np.exp(logits)
    return found / found.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("classes", [2, 5])
def test_confident_joint_as_the_paper_writes_it(classes):
    rows, labels = probabilities(300, classes, sharp=2.0)
    labels, _ = flipped(labels, share=0.1, classes=classes, seed=1)
    found = suspects(rows, labels)
    thresholds = [rows[labels == j, j].mean() for j in range(classes)]
    joint, wrong = np.zeros((classes, classes), int), []
    for i in range(300):
        above = [j for j in range(classes) if rows[i, j] >= thresholds[j]]
        if above:
            j = max(above, key=lambda j: rows[i, j])
            joint[labels[i], j] += 1
            if j != labels[i] and rows[i, j] > FACTOR * rows[i, labels[i]]:
                wrong.append(i)
                assert found.suggested[i] == j
    np.testing.assert_array_equal(found.joint, joint)
    assert np.flatnonzero(found.confident).tolist() == wrong
    assert len(wrong) >= 10
    margins = [rows[i, labels[i]] - max(np.delete(rows[i], labels[i])) for i in range(300)]
    np.testing.assert_allclose(found.margins, margins)
    assert (np.diff(np.array(margins)[found.order]) >= 0).all()


def test_noise_lists_nothing():
    random = np.random.default_rng(0)
    share = 0.5 + 0.03 * random.standard_normal(1000)
    assert not suspects(np.stack([share, 1 - share], axis=1), random.integers(0, 2, 1000)).confident.any()


def test_flips_are_seeded_and_all_change():
    labels = np.random.default_rng(0).integers(0, 3, 200)
    changed, where = flipped(labels, share=0.05, classes=3, seed=4)
    assert len(where) == 10
    assert np.flatnonzero(changed != labels).tolist() == where.tolist()
    assert changed.max() <= 2
    np.testing.assert_array_equal(flipped(labels, share=0.05, classes=3, seed=4)[0], changed)
    assert found_among(np.array([5, 1, 9, 3]), np.array([1, 3]), 2) == 0.5


def test_a_class_without_records():
    rows = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    found = suspects(rows, np.array([0, 1, 1]))
    assert found.suggested[2] == 2
    assert not found.confident[2]  # nothing shows how probable class 2 is for its own records
