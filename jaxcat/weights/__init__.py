"""Where pretrained numbers come from: a registry, a verified cache, foreign layouts made ours, and a strict load."""

from jaxcat.weights.fetch import cache_dir
from jaxcat.weights.load import Pretrained, load_pretrained
from jaxcat.weights.registry import MINUS_ONE_TO_ONE, REGISTRY, ZERO_TO_ONE, Evaluation, Preprocessing, WeightsSpec

__all__ = [
    "MINUS_ONE_TO_ONE",
    "REGISTRY",
    "ZERO_TO_ONE",
    "Evaluation",
    "Preprocessing",
    "Pretrained",
    "WeightsSpec",
    "cache_dir",
    "load_pretrained",
]
