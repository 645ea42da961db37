"""What both ways to compute a view share: numbers, and tables of grey levels."""

from __future__ import annotations

from typing import Any

import numpy as np

# ITU-R BT.601 luma, which Pillow and torchvision use as grey.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# What an erased rectangle becomes: the mean pixel of ImageNet, red, green, blue, rounded, one of the values that Zhong
# et al. 2017 (arXiv:1708.04896) try. They prefer a random one for each pixel; a constant needs no random generator
# that gives the same numbers in two frameworks.
ERASED = np.array([124, 117, 104], np.uint8)
# Operations that are neither a map of positions nor a linear one of colours; 0 is none of them.
OPERATIONS = ("sharpness", "posterize", "solarize", "autocontrast", "equalize")
SHARPNESS, POSTERIZE, SOLARIZE, AUTOCONTRAST, EQUALIZE = range(1, 1 + len(OPERATIONS))
# Pillow's ImageFilter.SMOOTH, which its sharpness and torchvision's blend with the image: a pixel counts five times,
# each of its eight neighbours once.
SMOOTH_CENTRE, SMOOTH_SUM = 5, 13


def tables(xp: Any, histogram: Any, *, operation: Any, strength: Any) -> Any:
    """What each grey level becomes; whole numbers alone, so it is the same in each framework.

    Args:
        xp: a module with NumPy's functions for the arrays below, which are integers of the type of its `arange`.
        histogram: (..., 256), how many pixels have each level.
        operation: (...), POSTERIZE to EQUALIZE as Pillow's ImageOps has them; any other changes nothing.
        strength: (...), how many levels posterizing turns into one, or the first level that solarizing inverts.

    Returns:
        (..., 256) integers from 0 to 255.
    """
    operation, strength = operation[..., None], strength[..., None]
    level = xp.arange(256)
    there = histogram > 0
    least = xp.min(xp.where(there, level, 255), axis=-1, keepdims=True)
    most = xp.max(xp.where(there, level, 0), axis=-1, keepdims=True)
    stretched = (level - least) * 255 // xp.maximum(most - least, 1)
    up_to = xp.cumsum(histogram, axis=-1)
    darker = xp.max(xp.where(level < most, up_to, 0), axis=-1, keepdims=True)
    share = darker // 255  # of the pixels darker than the brightest; with none, the image stays as it is
    even = xp.where(share > 0, (share // 2 + up_to - histogram) // xp.maximum(share, 1), level)
    table = xp.where(operation == POSTERIZE, level - level % xp.maximum(strength, 1), level)
    table = xp.where((operation == SOLARIZE) & (level >= strength), 255 - level, table)
    table = xp.where((operation == AUTOCONTRAST) & (most > least), stretched, table)
    return xp.clip(xp.where(operation == EQUALIZE, even, table), 0, 255)
