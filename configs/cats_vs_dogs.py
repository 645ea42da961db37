"""Cats and dogs, 2,000 pictures to train on and 1,000 to validate: the article's two experiments, and better ones.

draft
"""

from jaxcat.config import default


def get_config(variant: str = "default"):
    config = default()
    config.data.dir = "cats_and_dogs_filtered"
    if variant in ("article", "article_mixed7"):
        config.data.image_size = 150
        config.data.augment = "article"
        config.model.preprocessing = "zero_one"
        config.model.cut = "mixed7" if variant == "article_mixed7" else "mixed10"
        config.model.pool = "flatten"
        config.model.hidden = 1024
        config.model.dropout = 0.2
    elif variant == "finetune":
        config.model.train_from = "mixed8"
        config.optim.learning_rate = 1e-5
    elif variant != "default":
        raise ValueError(f"no variant {variant!r}: default, article, article_mixed7, finetune")
    return config
