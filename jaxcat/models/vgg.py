"""VGG-19 as an ordered table of named blocks. Imports no framework: its block is in vgg_blocks.py.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (arXiv:1409.1556),
configuration E, as implemented in keras/src/applications/vgg19.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcat.models.layers import Options

# Name → number of 3×3 convolutions and their channels, in the order the data flows; each block ends with max pooling.
# In Keras, the names of the layers of a block begin with `blockN`; `blockN_pool` is its output.
STAGES: dict[str, tuple[int, int]] = {
    "block1": (2, 64),
    "block2": (2, 128),
    "block3": (4, 256),
    "block4": (4, 512),
    "block5": (4, 512),
}
LEAST_IMAGE_SIZE = 32  # pixels; five poolings halve each side. Keras refuses less too
TOP_IMAGE_SIZE = 224  # pixels; the published top's first layer sees 7×7 cells
TOP_HIDDEN = {"fc1": 4096, "fc2": 4096}  # name and width of the published top's hidden layers


def build_stage(name: str, features: int, options: Options) -> Any:
    """The module of a stage for an input of `features` channels: `(B, H, W, features) → (B, H / 2, W / 2, …)`.

    Raises:
        KeyError: `name` is not in `STAGES`.
    """
    from jaxcat.models.vgg_blocks import VGGBlock

    count, channels = STAGES[name]
    return VGGBlock(features, count, channels, o=options)
