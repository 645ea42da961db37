"""The table of settings: each one's default, value in older runs, meaning, unit, bounds, and whether it may change.

A setting is written `--config.NAME=VALUE` on the command line, for example `--config.optim.learning_rate=1e-3`. Values
that name an implementation (optimizers, augmentations, backbones and their blocks …) are checked in flags.py, against
the table of these implementations.
"""

from __future__ import annotations

from jaxcat.setting import Setting
from jaxcat.settings import data, files, model, run, training

SETTINGS: dict[str, Setting] = {
    **run.SETTINGS,
    **data.SETTINGS,
    **model.SETTINGS,
    **training.SETTINGS,
    **files.SETTINGS,
}
