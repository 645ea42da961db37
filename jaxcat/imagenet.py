"""Published weights with their 1000-class top as a classifier, without any training."""

from __future__ import annotations

from jaxcat.classifier import Classifier, versions
from jaxcat.config import default
from jaxcat.network import Network
from jaxcat.sharding import make_mesh, place_replicated
from jaxcat.weights import load_pretrained

IMAGE_SIZE = 299  # pixels a side, where the weights do not say


def imagenet_classifier(source: str) -> Classifier:
    """A classifier of ImageNet's classes.

    Pictures are resized and cropped as the weights' published evaluation did it; squashed to 299×299 where that is not
    known, as for Keras's.

    Args:
        source: a name in `jaxcat.weights.REGISTRY`, or a file that has the top.

    Raises:
        WeightsError: see `load_pretrained`.
    """
    loaded = load_pretrained(source, cut="mixed10", with_top=True)
    config = default()
    config.model.weights = source
    config.data.image_size = loaded.evaluation.image_size if loaded.evaluation else IMAGE_SIZE
    config.data.resize = loaded.evaluation.resize if loaded.evaluation else "squash"
    classes = loaded.classes or tuple(f"class {i}" for i in range(loaded.params["logits"]["bias"].size))
    network = Network(
        config.model,
        classes=len(classes),
        image_size=config.data.image_size,
        preprocessing=loaded.preprocessing,
        pool_counts_padding=loaded.pool_counts_padding,
    )
    mesh = make_mesh()
    trees = [{stage: tree.get(stage, {}) for stage in network.stages} for tree in (loaded.params, loaded.stats)]
    (frozen_params, trained), (frozen_stats, trained_stats) = map(network.divide, trees)
    meta = {
        "config": config.to_dict(),
        "classes": list(classes),
        "preprocessing": loaded.preprocessing.to_dict(),
        "pool_counts_padding": loaded.pool_counts_padding,
        "provenance": loaded.provenance,
        "versions": versions(),
        "step": 0,
        "history": [],
    }
    return Classifier(
        network,
        meta,
        frozen=place_replicated(mesh, {"params": frozen_params, "stats": frozen_stats}),
        model=place_replicated(mesh, {"params": trained, "stats": trained_stats}),
    )


def describe(classifier: Classifier) -> str:
    """One line: which weights, and what they are fed."""
    provenance, data = classifier.meta["provenance"], classifier.config.data
    pixels = f"{data.image_size}×{data.image_size} {data.resize}"
    return f"{provenance['source']}: sha256 {provenance['sha256'][:16]}…, {pixels}, {classifier.network.preprocessing}"
