"""From printed letters to handwritten digits: transfer learning on data from matplotlib and scikit-learn.

    python -m jaxcat.train --config configs/digits.py:source   --workdir runs/digits/source
    python -m jaxcat.train --config configs/digits.py:transfer --workdir runs/digits/transfer
    python -m jaxcat.train --config configs/digits.py:finetune --workdir runs/digits/finetune

A narrow Inception-v3 learns printed letters from scratch (`source`). Frozen and cut at mixed4, it gives features on
which a new head learns handwritten digits from ten examples of each (`transfer`). Then the blocks above the stem learn
too (`finetune`). scripts/quickstart.sh runs all of it.

Accuracy on the test split, last step, seeds 0 and 1: transfer 0.874 and 0.879, finetune 0.904 and 0.922 (Zen 4, 2
cores). It depends on how well `source` learned print: with 10 epochs of it, and 30 of the others, transfer 0.905 and
0.897, finetune 0.943 and 0.943, in twice the time.
"""

from ml_collections import ConfigDict

from jaxcat.config import check_variant, default

VARIANTS = ("source", "transfer", "finetune")


def get_config(variant: str = "transfer") -> ConfigDict:
    check_variant(variant, VARIANTS)
    config = default()
    config.data.image_size = 75
    config.model.weights = "none"
    config.model.width = 0.25
    if variant == "source":
        config.data.source = "glyphs"
        config.batch_size = 32
        config.data.validation_size = 400
        config.epochs = 3
        config.model.cut = "mixed4"
        config.model.train_from = "stem"
        config.model.train_bn = True
        config.optim.name = "adam"
        config.optim.learning_rate = 3e-3
        config.optim.schedule = "cosine"
        return config
    config.data.source = "digits"
    config.data.train_size = 100
    config.data.augment = "digits"
    config.batch_size = 20
    config.epochs = 20
    config.data.validation_size = 100
    config.model.cut = "mixed4"
    config.model.pool = "flatten"
    config.init_from = "runs/digits/source"
    config.optim.name = "adam"
    config.optim.learning_rate = 3e-3
    config.optim.schedule = "cosine"
    if variant == "finetune":
        config.init_from = "runs/digits/transfer"
        config.model.train_from = "mixed0"
        config.model.train_bn = True
    return config
