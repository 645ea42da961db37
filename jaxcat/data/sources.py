"""The values of `data.source`: the table `SOURCES`, and `open_data`. A library is imported when its data are opened."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from jaxcat.data import checks
from jaxcat.data.corrections import corrected
from jaxcat.data.images.decoding import decoding_of
from jaxcat.data.indexing.rules import INDEX_RULES
from jaxcat.data.records import Data
from jaxcat.errors import ConfigError


class DataSource(NamedTuple):
    """One row of `SOURCES`.

    Attributes:
        meaning: one line for `--help`.
        opener: `MODULE:FUNCTION`; the function takes a config and indexes the data that the config asks for.
        has_rules: whether the function also takes `rules`, the version of the indexing rules.
    """

    meaning: str
    opener: str
    has_rules: bool = False

    def open(self, config: Any, *, rules: int = INDEX_RULES) -> Data:
        """Indexes the data that `config.data` asks for; decodes nothing."""
        module, _, function = self.opener.partition(":")
        opener = getattr(importlib.import_module(module), function)
        return opener(config, rules=rules) if self.has_rules else opener(config)


SOURCES: dict[str, DataSource] = {
    "folder": DataSource(
        "image files, DIR/{train,validation,test}/CLASS/… or DIR/CLASS/…",
        "jaxcat.data.indexing.folder:open_folder",
        has_rules=True,
    ),
    "table": DataSource(
        "image files that a table lists with their labels: data.table",
        "jaxcat.data.indexing.table_source:open_table",
        has_rules=True,
    ),
    "tfds": DataSource(
        "a TensorFlow Datasets set, by name and split expressions", "jaxcat.data.indexing.tfds_splits:open_tfds"
    ),
    "digits": DataSource(
        "scikit-learn's 1,797 scanned digits; what train_size and validation_size leave over is the test split",
        "jaxcat.data.indexing.embedded:open_digits",
    ),
    "glyphs": DataSource(
        "letters, Greek and symbols of matplotlib's fonts; validation has fonts that train never shows",
        "jaxcat.data.indexing.embedded:open_glyphs",
    ),
}


def open_data(config: Any, *, rules: int = INDEX_RULES) -> Data:
    """Indexes the data that `config.data` asks for, and warns of what looks odd; decodes nothing.

    Args:
        config: has `seed`, `optim.class_weight` and `data.*`; `data.source` is a name in `SOURCES`.
        rules: version of the rules that say which files are records; a run keeps those it began with.

    Returns:
        The data: always "train" and "validation" (held out of train if the data have none), "test" if there is one;
        the rows of `data.corrections` are in train.

    Raises:
        ConfigError, DataError: the request or the data cannot work; the message names the flag or the folder.
    """
    if config.data.source not in SOURCES:
        raise ConfigError(f"--config.data.source={config.data.source}: use one of {', '.join(SOURCES)}")
    data = corrected(SOURCES[config.data.source].open(config, rules=rules), config).decoded(decoding_of(config))
    checks.warn(data, config)
    return data
