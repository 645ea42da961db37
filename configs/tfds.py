"""A data set of TensorFlow Datasets, by name, with the solved head of folder.py.

20 % of train is held out for validation unless data.validation names a split.

    python -m jaxcat.train --config configs/tfds.py --workdir runs/flowers --config.data.name=tf_flowers

The variant `fast` takes about 0.4 of the time, see folder.py. The variant `cats_vs_dogs` uses 2,000 training and 1,000
validation images of the 23,262 in that data set, as many as the article of docs/benchmarks.md:

    python -m jaxcat.train --config configs/tfds.py:cats_vs_dogs --workdir runs/cats_vs_dogs

The data set is downloaded only with --config.data.download=True; without it, training stops and shows the command that
downloads. The weights are downloaded once, without asking. To train a head by steps, take folder.py:trained with
--config.data.source=tfds.
"""

from ml_collections import ConfigDict

from jaxcat.config import check_variant
from jaxcat.configs import folder

VARIANTS = ("default", "fast", "cats_vs_dogs")


def get_config(variant: str = "default") -> ConfigDict:
    check_variant(variant, VARIANTS)
    config = folder.get_config("fast" if variant == "fast" else "default")
    config.data.source = "tfds"
    if variant == "cats_vs_dogs":
        config.data.name = "cats_vs_dogs"
        config.data.train_size = 2000
        config.data.validation_size = 1000
    return config
