"""What the writers of all formats read of a classifier: its layers as a plan, their arrays, and its classes."""

from __future__ import annotations

import dataclasses

from jaxcat.inference.classifier import Classifier
from jaxcat.models.backbone import BACKBONES, Top
from jaxcat.models.network import Network, Tree
from jaxcat.models.plan import Arrays, Plan, folded, plan_of
from jaxcat.models.pooling import hidden_layers
from jaxcat.runs.meta import Meta
from jaxcat.runs.restore import network_of

LOGITS, PROBABILITIES = "logits", "probabilities"  # names of the outputs in all formats


@dataclasses.dataclass(frozen=True)
class ExportedNetwork:
    """A network for a writer.

    Attributes:
        meta: of the checkpoint.
        plan: from the pixels of a prepared image to the logits.
        arrays: of its layers, by name; float32.
        params, stats: the same as jaxcat keeps them, not folded: stage → layer → … → float32 NumPy array.
        has_published_top: whether its head is the published classification layers.
    """

    meta: Meta
    plan: Plan
    arrays: dict[str, Arrays]
    params: Tree
    stats: Tree
    has_published_top: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the probabilities."""
        return self.meta.classes

    @property
    def image_size(self) -> int:
        """Pixels a side of a prepared image."""
        return self.meta.config.data.image_size

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
    top = top_of(classifier)
    plan = plan_of(
        classifier.config.model,
        image_size=classifier.config.data.image_size,
        conventions=classifier.meta.conventions,
        classes=len(classifier.classes),
        top=top,
    )
    host = classifier.xla.host_arrays
    params, stats = host(classifier.params), host(classifier.stats)
    return ExportedNetwork(
        classifier.meta, plan, folded(plan, params, stats), params, stats, has_published_top=top is not None
    )


def reference_of(classifier: Classifier) -> Network:
    """The classifier's network, computed in float32 whatever the run did."""
    config = classifier.config.copy_and_resolve_references()
    config.model.dtype = "float32"
    return network_of(dataclasses.replace(classifier.meta, config=config), top=top_of(classifier))
