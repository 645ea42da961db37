"""The data room: four sources become one index of records, with splits, class names, an order and a store."""

from __future__ import annotations

from typing import Any

from jaxcat.data import traps
from jaxcat.data.folder import Ignored, open_folder, open_labelled_folder, pictures, walk
from jaxcat.data.records import SPLITS, Data, Split, fingerprint, order
from jaxcat.data.store import Store, open_stores
from jaxcat.errors import ConfigError

__all__ = [
    "SPLITS",
    "Data",
    "Ignored",
    "Split",
    "Store",
    "fingerprint",
    "open_data",
    "open_labelled_folder",
    "open_stores",
    "order",
    "pictures",
    "walk",
]


def open_data(config: Any) -> Data:
    """Indexes the data that `config.data` asks for; no picture is decoded yet.

    Args:
        config: has `seed` and `data.*`; `data.source` is one of
            folder: `DIR/{train,validation,test}/CLASS/…` or `DIR/CLASS/…`;
            tfds: a TensorFlow Datasets set by name and split expressions;
            digits: scikit-learn's 1,797 scanned digits; what `train_size` and `validation_size` leave over is "test";
            glyphs: letters, Greek and symbols from matplotlib's fonts; validation is of fonts that train never shows.

    Returns:
        "train" and "validation" always (held out of train where the source has none); "test" where there is one.

    Raises:
        ConfigError, DataError: the request or the data cannot work; the message names the flag or the folder.
    """
    data = _open(config)
    traps.warn(data, config)
    return data


def _open(config: Any) -> Data:
    source = config.data.source
    if source == "folder":
        return open_folder(config)
    if source == "tfds":
        from jaxcat.data.tfds import open_tfds

        return open_tfds(config)
    if source == "digits":
        from jaxcat.data.embedded import open_digits

        return open_digits(config)
    if source == "glyphs":
        from jaxcat.data.embedded import open_glyphs

        return open_glyphs(config)
    raise ConfigError(f"--config.data.source={source}: use folder, tfds, digits or glyphs")
