"""A folder of images: DIR/{train,validation,test}/CLASS/… (test optional), or DIR/CLASS/… with a fifth held out.

    python -m jaxcat.train --config configs/folder.py --workdir runs/mine --config.data.dir=DIR

The backbone stays frozen: Inception-v3 with ImageNet weights at 299 px, or the network that --config.model.backbone
names, at its usual image size. The head is linear and sees two numbers of every channel of several blocks: the average
and the standard deviation over positions. It is not trained but solved: least squares with an L2 penalty
(docs/exact_heads.md). Which blocks it sees, and the penalty, are chosen by leaving out each image of train in turn;
validation images are used only to measure. The weights are downloaded once; without a network connection, name a file:
--config.model.weights=FILE.h5

On a CPU, for 300 images or more, the frozen blocks are converted for the LiteRT interpreter and computed with 8-bit
weights, three to four times as fast as with JAX (bottleneck.engine=auto; what that changes is in docs/benchmarks.md).
For JAX in float32: --config.bottleneck.engine=xla

The variant `fast` sees images of 176 px and all blocks but the first up to mixed6; it takes 29 s in place of 76 s on
3,000 images (VGG-19: 160 px, block2 to block4):

    python -m jaxcat.train --config configs/folder.py:fast --workdir runs/mine --config.data.dir=DIR

Validation accuracy of `default` and `fast`, with pixels in [0, 1] and stand-in weights (docs/benchmarks.md; not
ImageNet's): 0.944 and 0.935 on 1,000 photographs of cats and dogs (95 % intervals 0.928 to 0.957 and 0.918 to 0.949),
0.988 ± 0.000 and 0.993 ± 0.003 (3 seeds) on a fifth of 2,062 photographs of hands. With bottleneck.engine=xla 0.948,
0.933, 0.987 ± 0.002 and 0.993 ± 0.004.

The variant `trained` trains one dense layer on the averages of the last block by gradient descent. Begin with it to
augment images or to train blocks, which a solved head does not allow:

    python -m jaxcat.train --config configs/folder.py:trained --workdir runs/mine --config.data.dir=DIR \
        --config.model.train_from=mixed8 --config.optim.learning_rate=1e-4
"""

from ml_collections import ConfigDict

from jaxcat.config import check_variant, default

VARIANTS = ("default", "fast", "trained")


def get_config(variant: str = "default") -> ConfigDict:
    check_variant(variant, VARIANTS)
    config = default()
    config.data.source = "folder"
    config.data.image_size = 0  # the backbone's usual size
    config.bottleneck.views = 1  # without augmentation the frozen blocks give the same output in every epoch
    if variant == "trained":
        config.optim.learning_rate = 1e-3  # one dense layer on pooled features trains well at ten times the article's
        return config
    config.bottleneck.dtype = "float32"
    config.bottleneck.engine = "auto"
    config.model.pool = "avg_std"
    config.model.pool_from = "auto"
    config.optim.name = "exact"
    if variant == "fast":
        config.model.cut = "fast"
    return config
