"""What the writers of all formats read of a classifier: its layers as a plan, their arrays, and its classes."""

from __future__ import annotations

import dataclasses

from jaxcat.inference.classifier import Classifier
from jaxcat.models.backbone import BACKBONES, Top
from jaxcat.models.network import Network, Tree
from jaxcat.models.plan import Arrays, Plan, folded, plan_of
from jaxcat.models.pooling import hidden_layers
from jaxcat.runs.restore import network_of

LOGITS, PROBABILITIES = "logits", "probabilities"  # names of the outputs in all formats


@dataclasses.dataclass(frozen=True)
class ExportedNetwork:
    """A network for a writer.

    Attributes:
        plan: from the pixels of a prepared image to the logits.
        arrays: of its layers, by name; float32.
        params, stats: the same as jaxcat keeps them, not folded: stage → layer → … → float32 NumPy array.
        classes: names, in the order of the probabilities.
        image_size: pixels a side.
        resize: how an image becomes square; a name in `data.images.resizing.RESIZES`.
        max_pixels: of the largest image that is read.
    """

    plan: Plan
    arrays: dict[str, Arrays]
    params: Tree
    stats: Tree
    classes: tuple[str, ...]
    image_size: int
    resize: str
    max_pixels: int

    @property
    def outputs(self) -> int:
        """Number of logits: one for two classes."""
        return self.plan.layers[-1].shape[0]


def top_of(classifier: Classifier) -> Top | None:
    """The published classification layers, if the classifier has them and not the head that its config describes."""
    model, top = classifier.config.model, BACKBONES[classifier.config.model.backbone].top
    trained = hidden_layers(model)
    own = [stage for stage in classifier.network.stages if classifier.network.is_head(stage) and stage != "pool"]
    return None if own == [*trained, "logits"] else top


def exported(classifier: Classifier) -> ExportedNetwork:
    """Takes a classifier apart. Its arrays are copied from the devices."""
    config, data = classifier.config, classifier.config.data
    plan = plan_of(
        config.model,
        image_size=data.image_size,
        conventions=classifier.meta.conventions,
        classes=len(classifier.classes),
        top=top_of(classifier),
    )
    host = classifier.xla.host_arrays
    params, stats = host(classifier.params), host(classifier.stats)
    arrays = folded(plan, params, stats)
    return ExportedNetwork(
        plan, arrays, params, stats, classifier.classes, data.image_size, data.resize, data.max_pixels
    )


def reference_of(classifier: Classifier) -> Network:
    """The classifier's network, computed in float32 whatever the run did."""
    config = classifier.config.copy_and_resolve_references()
    config.model.dtype = "float32"
    return network_of(dataclasses.replace(classifier.meta, config=config), top=top_of(classifier))
