"""Kernels as 8-bit integers with one scale for each output channel."""

from __future__ import annotations

import numpy as np

LARGEST = 127  # of the integers; -128 is not used, so that the range is symmetric


def quantized(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The integers int8 and the scales float32 whose product is closest to a kernel.

    Args:
        kernel: float32 (outputs, …).

    Returns:
        Integers of the kernel's shape, and scales (outputs, 1, …). Where a kernel is 0, the scale is 1.
    """
    largest = np.abs(kernel).max(axis=tuple(range(1, kernel.ndim)), keepdims=True)
    scale = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    return np.rint(kernel / scale).clip(-LARGEST, LARGEST).astype(np.int8), scale
