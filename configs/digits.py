"""Learn print, read handwriting: the whole of transfer learning with nothing to download.

draft
"""

from jaxcat.config import default


def get_config(variant: str = "transfer"):
    config = default()
    config.data.image_size = 75
    config.model.weights = "none"
    config.model.width = 0.25
    if variant == "source":
        config.data.source = "glyphs"
        config.batch_size = 32
        config.epochs = 4
        config.model.train_from = "stem"
        config.model.train_bn = True
        config.optim.name = "adam"
        config.optim.learning_rate = 3e-3
        config.optim.schedule = "cosine"
        return config
    config.data.source = "digits"
    config.data.train_size = 100
    config.data.augment = "digits"
    config.model.cut = "mixed4"
    config.init_from = "runs/digits/source"
    if variant == "transfer":
        config.batch_size = 20
        config.epochs = 30
        config.optim.learning_rate = 1e-3
    elif variant == "finetune":
        config.model.train_from = "mixed2"
        config.init_from = "runs/digits/transfer"
    else:
        raise ValueError(f"no variant {variant!r}: source, transfer, finetune")
    return config
