"""Every setting that changes a prediction is in the exported file: a walk over all settings, also future ones."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from small_export import classifier_of

from jaxcat.config import default, flatten
from jaxcat.errors import JaxcatError
from jaxcat.export.description import description_of
from jaxcat.flags import choices_of
from jaxcat.inference.classifier import Classifier
from jaxcat.models.plan import plan_of
from jaxcat.runs.restore import network_of
from jaxcat.settings import SETTINGS

# Settings whose other values need more than one change.
OTHERS = {
    "model.backbone": ["vgg19"],
    "model.cut": ["mixed1"],
    "model.train_from": ["mixed0"],
    "model.pool_from": ["stem"],
    "data.grey_bits": [12],
    "data.max_pixels": [100],
    "data.image_size": [90],
    "model.width": [1 / 8],
}
IMAGES = [
    np.random.default_rng(0).integers(0, 256, (90, 140, 3), np.uint8),
    np.random.default_rng(1).integers(0, 4096, (80, 50), np.uint16),
]


def others(name: str) -> list:
    """Other values of a setting, which a run may have."""
    setting = SETTINGS[name]
    if name in OTHERS:
        return OTHERS[name]
    if choices := choices_of(name):
        return [value for value in choices if value != setting.default]
    if isinstance(setting.default, bool):
        return [not setting.default]
    if isinstance(setting.default, str):
        return ["something"]
    more = setting.default + 1 if setting.default + 1 <= setting.high else setting.high / 2
    return [type(setting.default)(more)]


@pytest.fixture(scope="module")
def classifier():
    return classifier_of()


@pytest.fixture(scope="module")
def expected(classifier):
    return classifier.predict(IMAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", flatten(default()))
def test_a_setting_that_changes_answers_is_carried(name, classifier, expected):
    changing = 0
    for value in others(name):
        config = classifier.config.copy_and_resolve_references()
        config.update_from_flattened_dict({name: value})
        changed = dataclasses.replace(classifier.meta, config=config)
        if not answers_change(classifier, changed, expected):
            continue
        changing += 1
        assert carried(classifier, classifier.meta) != carried(classifier, changed), f"{name}={value} is not carried"
    if name in ("data.image_size", "data.resize", "data.grey_bits", "data.max_pixels", "model.pool", "model.cut"):
        assert changing, "this test finds no change where there is one"


def test_a_temperature_that_changes_answers_is_carried(classifier, expected):
    calibrated = classifier_of(temperature=2.0)
    assert np.abs(calibrated.predict(IMAGES) - expected).max() > 0.01
    found = [description_of(each, format="onnx", weights="float32", parity={}) for each in (classifier, calibrated)]
    assert found[0] != found[1]


def answers_change(classifier: Classifier, meta, expected: np.ndarray) -> bool:
    """Whether the same arrays give other answers, or fit no more."""
    restored = classifier.xla.run
    try:
        network = network_of(meta)
        if network.shapes() != restored.network.shapes():
            return True
        frozen, trained = network.split(classifier.params, classifier.stats)
        restored = restored._replace(meta=meta, network=network, frozen=frozen, trained=trained)
        changed = Classifier(meta, restore=lambda: restored)
        return not np.allclose(changed.predict(IMAGES), expected, atol=1e-6)
    except (JaxcatError, KeyError, ValueError):
        return True


def carried(classifier: Classifier, meta) -> str:
    """All that a file of that meta says."""
    changed, size = Classifier(meta, restore=lambda: classifier.xla.run), meta.config.data.image_size
    described = description_of(changed, format="onnx", weights="float32", parity={})
    try:
        layers = plan_of(meta.config.model, image_size=size, conventions=meta.conventions, classes=2).digest()
    except (JaxcatError, KeyError, ValueError):
        layers = "impossible"
    return json.dumps(described) + layers
