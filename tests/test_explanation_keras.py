"""Grad-CAM against Keras's layers and TensorFlow's GradientTape, with equal random numbers, on every kind of head."""

from __future__ import annotations

import numpy as np
import pytest
import small
from small_export import classifier_of

from jaxcat.inference.explanation import raw_maps
from jaxcat.models.preprocessing import BGR_MINUS_MEANS, Conventions

pytest.importorskip("keras")
from explaining.keras_oracle import KerasGradCam

TOLERANCE = 1e-3  # of the largest value of a map
DEEPER = {"model__cut": "mixed3"}
SEVERAL = DEEPER | {"model__pool_from": "stem"}
VGG = {"model__backbone": "vgg19", "model__cut": "block3", "data__image_size": 64}


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "block", "classes"), [
    ({}, "", 2),
    ({"model__pool": "max"}, "stem", 3),
    (SEVERAL, "mixed2", 2),
    (SEVERAL | {"model__pool": "avg_std"}, "mixed2", 3),
    (DEEPER | {"model__pool_grid": 2, "model__pool": "avg_std"}, "", 3),
    (DEEPER | {"model__pool": "flatten", "model__hidden": 7}, "", 2),
    (DEEPER | {"model__pool": "max", "model__pool_from": "mixed1", "model__train_from": "mixed0"}, "mixed1", 3),
    (VGG | {"model__pool_from": "block2", "model__pool": "avg_std", "model__hidden": 5}, "block2", 2),
    (VGG | {"model__pool": "flatten", "model__train_from": "block2"}, "block1", 3),
], ids=["average", "maximum", "several blocks", "deviations", "grid", "flattened, hidden", "trained blocks", "vgg19",
        "vgg19 trained"])  # fmt: skip
def test_maps_are_those_of_keras(settings, block, classes):
    conventions = Conventions(BGR_MINUS_MEANS) if "model__backbone" in settings else None
    names = ("a", "b", "c")[:classes]
    classifier = classifier_of(conventions, classes=names, model__width=1.0, **settings)
    model, images = classifier.config.model, small.images(6, classifier.config.data.image_size)
    labels = np.arange(6) % classes
    oracle = KerasGradCam(
        classifier.config, classifier.params, classifier.stats, hidden=("hidden",) if model.hidden else ()
    )
    inputs = classifier.meta.conventions.preprocessing.normalize(images)
    expected = oracle.maps(inputs, labels, block=block or model.cut)
    found = np.stack(list(raw_maps(classifier, images, labels, block=block)))
    assert found.shape == expected.shape
    largest = expected.max(axis=(1, 2))
    assert (largest > 0).sum() >= 3
    assert (np.abs(found - expected).max(axis=(1, 2)) <= TOLERANCE * largest).all()
