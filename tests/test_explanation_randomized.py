"""The test with random numbers: Grad-CAM passes; explanations that look only at the image, or at nothing, fail."""

from __future__ import annotations

import numpy as np
import pytest
import small
from explaining import randomized
from small_export import classifier_of

COUNT = 50


@pytest.fixture(scope="module")
def classifier():
    return classifier_of(model__cut="mixed1", model__pool_from="mixed0", model__pool="avg_std")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    generator = np.random.default_rng(0)
    return np.stack([np.asarray(small.draw(small.SHAPES[i % 3], generator, 75)) for i in range(COUNT)])


def found_with(explainer, classifier) -> list[randomized.Step]:
    return list(randomized.steps(explainer, classifier.network, *randomized.numbers_of(classifier), seed=1))


@pytest.mark.slow
def test_grad_cam_depends_on_the_numbers_of_the_network(classifier, pixels):
    labels = classifier.predict(list(pixels)).argmax(axis=1)
    explainer = randomized.grad_cam_of(classifier, pixels, labels, block="mixed1")
    found = found_with(explainer, classifier)
    assert [step.replaced for step in found] == ["logits", "mixed1", "mixed0", "stem"]
    print(found)
    assert all(step.uniform < 0.5 for step in found)
    assert randomized.depends(found)
    true = explainer(*randomized.numbers_of(classifier))
    np.testing.assert_array_equal(true, explainer(*randomized.numbers_of(classifier)))


def test_an_edge_detector_fails(classifier, pixels):
    found = found_with(randomized.edges_of(pixels, 7), classifier)
    assert [step.correlation for step in found] == pytest.approx([1] * 4)
    assert not randomized.depends(found)


def test_maps_of_one_value_fail(classifier):
    found = found_with(lambda params, stats: np.zeros((COUNT, 7, 7)), classifier)
    assert {step.uniform for step in found} == {1}
    assert not randomized.depends(found)


def test_the_correlation_is_that_of_ranks(classifier):
    """Maps that grow are of rank correlation 1 with each other, and -1 with those that fall."""
    maps = iter([np.arange(49), np.exp(np.arange(49) / 9), -np.arange(49), np.arange(49) ** 3, -np.ones(49)])
    found = found_with(lambda params, stats: next(maps).reshape(1, 7, 7), classifier)
    assert [step.correlation for step in found][:3] == pytest.approx([1, -1, 1])
    assert found[3].uniform == 1
