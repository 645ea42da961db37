"""A classifier made from published weights with their own classification layers, without training."""

from __future__ import annotations

from jaxcat.config import default
from jaxcat.inference.classifier import Classifier
from jaxcat.models.backbone import BACKBONES
from jaxcat.models.completion import complete
from jaxcat.runs.first_meta import new_meta
from jaxcat.runs.restore import Restored, network_of
from jaxcat.system.devices import make_mesh, place_replicated
from jaxcat.weights.load import load_pretrained


def published_classifier(weights: str) -> Classifier:
    """A classifier of the classes that published weights know, such as ImageNet's 1,000.

    Images are resized and cropped as in the published evaluation of the weights. If that is not known, as for Keras's,
    images are squashed to the image size of the backbone.

    Args:
        weights: a name in `weights.registry.REGISTRY`, or a file with all layers. It determines the backbone.

    Raises:
        WeightsError: see `load_pretrained`.
    """
    mesh = make_mesh()
    loaded = load_pretrained(weights, backbone=None, with_top=True)
    config, row = default(), BACKBONES[loaded.backbone]
    config.model.backbone, config.model.weights = loaded.backbone, weights
    complete(config)
    config.data.image_size = loaded.evaluation.image_size if loaded.evaluation else row.image_size
    config.data.resize = loaded.evaluation.resize if loaded.evaluation else "squash"
    classes = loaded.classes or tuple(f"class {i}" for i in range(loaded.params["logits"]["bias"].size))
    meta = new_meta(config, classes, conventions=loaded.conventions, provenance=loaded.provenance)
    network = network_of(meta, top=row.top)
    params, stats = ({stage: tree.get(stage, {}) for stage in network.stages} for tree in (loaded.params, loaded.stats))
    frozen, trained = place_replicated(mesh, network.split(params, stats))
    restored = Restored(meta, network, frozen, trained)
    return Classifier(meta, restore=lambda: restored)


def describe(classifier: Classifier) -> str:
    """One line about the weights, and the size and scaling of the images."""
    provenance, data = classifier.meta.provenance, classifier.config.data
    pixels = f"{data.image_size}×{data.image_size} {data.resize}"
    preprocessing = classifier.meta.conventions.preprocessing
    return f"{provenance['source']}: sha256 {provenance['sha256'][:16]}…, {pixels}, {preprocessing}"
