"""Do heat maps depend on what a network has learned? The cascading test of Adebayo et al., arXiv:1810.03292.

The head's numbers are replaced by random ones, then those of the blocks too, from the last to the first. If the maps
explain the network, they change: their rank correlation with the true maps falls. An explanation that only looks at
the image, such as an edge detector, keeps a correlation of 1 and fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image
from scipy.stats import spearmanr

from jaxcat.inference.classifier import Classifier
from jaxcat.inference.xla import XLAComputation
from jaxcat.models.network import Network
from jaxcat.system.devices import make_mesh, place_replicated

LIMIT = 0.5  # mean rank correlation that maps of an explained network must fall below

Tree = dict[str, Any]
Explainer = Callable[[Tree, Tree], np.ndarray]  # parameters, statistics → maps (N, h, w)


class Step(NamedTuple):
    """One step of the cascade.

    Attributes:
        replaced: the stage whose numbers were replaced last; those after it were replaced before.
        correlation: Spearman's, of each map with the true one, mean of all images whose maps have ranks.
        uniform: share of the images whose map has one value everywhere, so that it has no ranks.
    """

    replaced: str
    correlation: float
    uniform: float


def cascade(network: Network) -> tuple[str, ...]:
    """The stages with numbers, from the logits to the first block."""
    return tuple(stage for stage in reversed(network.stages) if stage != "pool")


def steps(explainer: Explainer, network: Network, params: Tree, stats: Tree, *, seed: int) -> Iterator[Step]:
    """Yields a step for each stage, from the last to the first; random numbers are those of a new network."""
    true = explainer(params, stats)
    random_params, random_stats = network.initialize(seed)
    params, stats = dict(params), dict(stats)
    for stage in cascade(network):
        params[stage], stats[stage] = random_params[stage], random_stats[stage]
        found = explainer(params, stats)
        ranked = [(a, b) for a, b in zip(true, found, strict=True) if np.ptp(a) > 0 and np.ptp(b) > 0]
        each = [float(spearmanr(a, b, axis=None).statistic) for a, b in ranked]
        yield Step(stage, float(np.mean(each)) if each else np.nan, float(np.mean([np.ptp(one) == 0 for one in found])))


def depends(found: Sequence[Step]) -> bool:
    """Whether the maps depend on the numbers: every correlation is below `LIMIT`, that with a random head included."""
    return all(step.correlation < LIMIT for step in found)


def grad_cam_of(
    classifier: Classifier, pixels: Sequence[np.ndarray], labels: Sequence[int], *, block: str
) -> Explainer:
    """Grad-CAM of these classes with other numbers in the network of a classifier."""
    computation = XLAComputation(classifier.xla.run)

    def maps(params: Tree, stats: Tree) -> np.ndarray:
        frozen, trained = place_replicated(make_mesh(), classifier.network.split(params, stats))
        computation.run = classifier.xla.run._replace(frozen=frozen, trained=trained)
        return np.stack(list(computation.raw_maps(pixels, labels, block=block)))

    return maps


def edges_of(pixels: Sequence[np.ndarray], side: int) -> Explainer:
    """An edge detector in place of an explanation: size of the grey levels' gradient, (N, side, side)."""
    found = []
    for image in pixels:
        rows, columns = np.gradient(image.mean(axis=2, dtype=np.float32))
        strength = Image.fromarray(np.hypot(rows, columns))
        found.append(np.asarray(strength.resize((side, side), Image.Resampling.BOX)))
    return lambda params, stats: np.stack(found)


def numbers_of(classifier: Classifier) -> tuple[Tree, Tree]:
    """The parameters and statistics of a classifier, as NumPy arrays."""
    params, stats = jax.tree.map(np.asarray, (classifier.params, classifier.stats))
    return params, stats
