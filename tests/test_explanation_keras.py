"""Grad-CAM against Keras's layers and TensorFlow's GradientTape, with equal random numbers, on every kind of head."""

from __future__ import annotations

import numpy as np
import pytest
import small
from small_export import classifier_of

from jaxcat.models.preprocessing import BGR_MINUS_MEANS, Conventions

pytest.importorskip("keras")
from explaining.double import maps_in_float64
from explaining.keras_oracle import KerasGradCam
from explaining.randomized import numbers_of
from small_keras import built_once

TOLERANCE = 1e-5  # of the largest value of a map
DEEPER = {"model__cut": "mixed3"}
SEVERAL = {"model__cut": "mixed1"} | {"model__pool_from": "stem"}
VGG = {"model__backbone": "vgg19", "model__cut": "block3", "data__image_size": 32}


@pytest.fixture(scope="module", autouse=True)
def one_network_of_each_kind():
    with built_once("InceptionV3", "VGG19"):
        yield


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "block", "classes"), [
    ({}, "", 2),
    (SEVERAL | {"model__pool": "avg_std"}, "mixed0", 3),
    ({"model__pool_grid": 2, "model__pool": "avg_std"}, "", 3),
    ({"model__pool": "flatten", "model__hidden": 7}, "stem", 2),
    (DEEPER | {"model__pool": "max", "model__pool_from": "mixed1", "model__train_from": "mixed0"}, "mixed1", 3),
    (VGG | {"model__pool_from": "block2", "model__pool": "avg_std", "model__hidden": 5}, "block2", 2),
    (VGG | {"model__pool": "flatten", "model__train_from": "block2"}, "block1", 3),
], ids=["average", "several", "grid", "flattened, hidden", "maximum, trained", "vgg", "vgg trained"])  # fmt: skip
def test_maps_are_those_of_keras(settings, block, classes):
    """In float64, because in float32 rounding now and then decides whether ReLU lets a value near 0 through."""
    conventions = Conventions(BGR_MINUS_MEANS) if "model__backbone" in settings else None
    names = ("a", "b", "c")[:classes]
    classifier = classifier_of(conventions, classes=names, model__width=1.0, **settings)
    model, images = classifier.config.model, small.images(4, classifier.config.data.image_size)
    labels, block = np.arange(4) % classes, block or model.cut
    params, stats = numbers_of(classifier)
    oracle = KerasGradCam(classifier.config, params, stats, hidden=("hidden",) if model.hidden else (), dtype="float64")
    inputs = classifier.meta.conventions.preprocessing.normalize(images)
    expected = oracle.maps(inputs, labels, block=block)
    largest = expected.max(axis=(1, 2))
    assert (largest > 0).sum() >= 2

    def differences(found: np.ndarray) -> np.ndarray:
        assert found.shape == expected.shape
        return np.abs(found - expected).max(axis=(1, 2)) / np.where(largest > 0, largest, 1)

    assert differences(maps_in_float64(classifier, images, labels, block=block)).max() <= TOLERANCE
    shown = np.stack(list(classifier.xla.raw_maps(images, labels, block=block)))
    assert np.sort(differences(shown))[-2] <= 1e-3  # of all images but one
