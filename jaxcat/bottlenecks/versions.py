"""The declared version of every step from a stored image to the prefix's output. Imports no framework."""

from __future__ import annotations

from jaxcat.data.augmentation import table
from jaxcat.data.images import decoding, resizing
from jaxcat.models import backbone


def step_versions() -> dict[str, int]:
    """The version of each step, by its name.

    Raise a step's version if its results change; tests/test_golden.py fails otherwise.
    """
    return {
        "decode": decoding.DECODE_VERSION,
        "resize": resizing.RESIZE_VERSION,
        "augment": table.AUGMENT_VERSION,
        "prefix": backbone.PREFIX_VERSION,
    }
