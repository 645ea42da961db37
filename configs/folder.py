"""A folder of images: DIR/{train,validation,test}/CLASS/… (test optional), or DIR/CLASS/… with a fifth held out.

    python -m jaxcat.train --config configs/folder.py --workdir runs/mine --config.data.dir=DIR

Frozen Inception-v3 with ImageNet weights, 299 px, global average pool, one dense layer. The weights are downloaded
once; without a network connection, name a file: --config.model.weights=FILE.h5
"""

from ml_collections import ConfigDict

from jaxcat.config import check_variant, default

VARIANTS = ("default",)


def get_config(variant: str = "default") -> ConfigDict:
    check_variant(variant, VARIANTS)
    config = default()
    config.data.source = "folder"
    config.bottleneck.views = 1  # without augmentation the frozen blocks give the same output in every epoch
    config.optim.learning_rate = 1e-3  # one dense layer on pooled features trains well at ten times the article's
    return config
