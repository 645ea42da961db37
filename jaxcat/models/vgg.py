"""VGG-19 as an ordered table of named blocks. Imports no framework.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (arXiv:1409.1556),
configuration E, as implemented in keras/src/applications/vgg19.py.
"""

from __future__ import annotations

from jaxcat.models.wiring import Conv, MaxPool, Table


def _block(convolutions: int, channels: int) -> Table:
    """3×3 convolutions, then 2×2 max pooling: (H, W, ·) → (H // 2, W // 2, channels)."""
    names = ["input", *(f"conv{number}" for number in range(1, convolutions + 1))]
    table: dict[str, Conv | MaxPool] = {
        name: Conv(before, channels, (3, 3)) for before, name in zip(names, names[1:], strict=False)
    }
    return {**table, "output": MaxPool(names[-1], window=2)}


# Name → layers, in the order the data flows. In Keras, the names of the layers of a block begin with `blockN`;
# `blockN_pool` is its output.
STAGES: dict[str, Table] = {
    "block1": _block(2, 64),
    "block2": _block(2, 128),
    "block3": _block(4, 256),
    "block4": _block(4, 512),
    "block5": _block(4, 512),
}
LEAST_IMAGE_SIZE = 32  # pixels; five poolings halve each side. Keras refuses less too
TOP_IMAGE_SIZE = 224  # pixels; the published top's first layer sees 7×7 cells
TOP_HIDDEN = {"fc1": 4096, "fc2": 4096}  # name and width of the published top's hidden layers
