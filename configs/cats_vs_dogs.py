"""Cats and dogs, 2,000 images to train on and 1,000 to validate: the experiments of an article, and ours.

The article is a Keras tutorial; docs/benchmarks.md describes it.

    python -m jaxcat.train --config configs/cats_vs_dogs.py:article_mixed7 --workdir runs/mixed7 \
        --config.data.dir=cats_and_dogs_filtered

`article` uses all blocks, `article_mixed7` those up to mixed7. Both scale pixels to [0, 1] as the article does, though
ImageNet weights were trained on [-1, 1]. The default scales pixels as the weights expect, uses 299 px, and trains one
dense layer on the global average. `finetune` starts from the default's run: the head trains at a tenth of the default's
rate, mixed8 to mixed10 at a hundredth:

    python -m jaxcat.train --config configs/cats_vs_dogs.py --workdir runs/cats \
        --config.data.dir=cats_and_dogs_filtered
    python -m jaxcat.train --config configs/cats_vs_dogs.py:finetune --workdir runs/cats_finetuned \
        --config.data.dir=cats_and_dogs_filtered --config.init_from=runs/cats

`best` is the recipe of folder.py, and `fast` its variant `fast`: the head is not trained but solved, and sees averages
and standard deviations of several frozen blocks. `fast` takes images of 176 px and the blocks mixed0 to mixed6, a range
that was chosen on the train split of the images of docs/benchmarks.md, with its weights:

    python -m jaxcat.train --config configs/cats_vs_dogs.py:best --workdir runs/best \
        --config.data.dir=cats_and_dogs_filtered
    python -m jaxcat.train --config configs/cats_vs_dogs.py:fast --workdir runs/fast \
        --config.data.dir=cats_and_dogs_filtered

Validation accuracy, measured with stand-in weights (docs/benchmarks.md; not ImageNet's):
article_mixed7  3 seeds, epochs 4 to 8: 0.8623 ± 0.0178; the article's program in Keras, same files, 0.8657 ± 0.0160
                1 seed, epochs 16 to 20: 0.8790 ± 0.0183, best 0.8960; Keras, 3 seeds, 0.8776 ± 0.0091
best            0.944 (95 % interval 0.928 to 0.957), with model.preprocessing=zero_one; leave-one-out on train 0.945;
                with bottleneck.engine=xla 0.948 (0.932 to 0.960) and 0.941
fast            0.935 (0.918 to 0.949), with model.preprocessing=zero_one; leave-one-out on train 0.927;
                with bottleneck.engine=xla 0.933 (0.916 to 0.947) and 0.927
default         1 seed, best of 20 epochs: 0.7220; with model.preprocessing=zero_one 0.8130
finetune        1 seed, epochs 6 to 10: 0.8426 ± 0.0091, best 0.8550: fine-tuning adapts the weights to [-1, 1]
article         1 seed, epochs 16 to 20: 0.7748 ± 0.0334, best 0.8070
"""

from ml_collections import ConfigDict

from jaxcat.config import check_variant, default
from jaxcat.configs import folder

VARIANTS = ("default", "article", "article_mixed7", "finetune", "fast", "best")


def get_config(variant: str = "default") -> ConfigDict:
    check_variant(variant, VARIANTS)
    if variant in ("fast", "best"):
        return folder.get_config("fast" if variant == "fast" else "default")
    config = default()
    config.data.source = "folder"
    config.optim.learning_rate = 1e-3  # one dense layer on pooled features trains well at ten times the article's
    if variant in ("article", "article_mixed7"):
        config.data.image_size = 150
        config.data.augment = "article"
        config.model.preprocessing = "zero_one"
        config.model.cut = "mixed7" if variant == "article_mixed7" else "mixed10"
        config.model.pool = "flatten"
        config.model.hidden = 1024
        config.model.dropout = 0.2
        config.optim.learning_rate = 1e-4
    else:
        config.bottleneck.views = 1  # without augmentation the frozen blocks give the same output in every epoch
    if variant == "finetune":
        config.model.train_from = "mixed8"
        config.data.augment = "article"
        config.bottleneck.views = 4
        config.epochs = 10
        config.optim.learning_rate = 1e-4
        config.optim.backbone_scale = 0.1
    return config
