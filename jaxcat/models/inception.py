"""Inception-v3 as an ordered table of named blocks. Imports no framework: its blocks are in inception_blocks.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcat.models.layers import Options

# Name → class in inception_blocks.py and its arguments, in the order the data flows. The names are Keras's, and
# the values of `model.cut` and `model.train_from`. In Keras, `mixedN` is the concatenation at the end of the block.
# The arguments are those of table 1 in the paper, as Keras has them.
STAGES: dict[str, tuple[str, dict[str, int]]] = {
    "stem": ("Stem", {}),
    "mixed0": ("MixedA", {"pool_features": 32}),
    "mixed1": ("MixedA", {"pool_features": 64}),
    "mixed2": ("MixedA", {"pool_features": 64}),
    "mixed3": ("MixedB", {}),
    "mixed4": ("MixedC", {"inner": 128}),
    "mixed5": ("MixedC", {"inner": 160}),
    "mixed6": ("MixedC", {"inner": 160}),
    "mixed7": ("MixedC", {"inner": 192}),
    "mixed8": ("MixedD", {}),
    "mixed9": ("MixedE", {}),
    "mixed10": ("MixedE", {}),
}
LEAST_IMAGE_SIZE = 75  # pixels; the last convolution without padding needs so many. Keras refuses less too


def build_stage(name: str, features: int, options: Options) -> Any:
    """The module of a stage for an input of `features` channels: `(B, H, W, features) → (B, H', W', module.features)`.

    Raises:
        KeyError: `name` is not in `STAGES`.
    """
    from jaxcat.models import inception_blocks

    kind, arguments = STAGES[name]
    return getattr(inception_blocks, kind)(features, **arguments, o=options)
