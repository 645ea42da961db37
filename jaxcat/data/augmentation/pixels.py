"""Numbers that both ways to compute a view share."""

from __future__ import annotations

import numpy as np

# ITU-R BT.601 luma, which Pillow and torchvision use as grey.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# What an erased rectangle becomes: the mean pixel of ImageNet, red, green, blue, rounded, one of the values that Zhong
# et al. 2017 (arXiv:1708.04896) try. They prefer a random one for each pixel; a constant needs no random generator
# that gives the same numbers in two frameworks.
ERASED = np.array([124, 117, 104], np.uint8)
