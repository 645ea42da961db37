"""Training from Python and notebooks: `run = jaxcat.fit("folder", "runs/mine", settings={"data.dir": DIR})`."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from jaxcat import flags
from jaxcat.recipes import config_of, prepare_process, workdir_of
from jaxcat.training.writers import CANDIDATES

if TYPE_CHECKING:
    from jaxcat.inference.classifier import Classifier


class Run:
    """A run in its workdir, as `fit` returns it.

    Attributes:
        workdir: its directory.
        history: an entry for each epoch, as in metrics.jsonl: `train/accuracy`, `validation/loss`, `seconds` … That of
            an exact head also has `candidates`, which is an event of its own in the file.
    """

    def __init__(self, workdir: Path, history: tuple[dict[str, Any], ...]):
        self.workdir, self.history = workdir, history

    @functools.cached_property
    def classifier(self) -> Classifier:
        """The classifier of the best epoch, restored when it is first asked for."""
        from jaxcat.inference.classifier import load

        return load(self.workdir)

    def __repr__(self) -> str:
        if self.history and CANDIDATES in self.history[-1]:
            from jaxcat.training.ending import solved

            return f"<jaxcat run in {self.workdir}: {solved(self.history[-1])}>"
        return f"<jaxcat run in {self.workdir}, epochs: {len(self.history)}>"


def fit(
    recipe: str | os.PathLike[str] | ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """Trains a new run in `workdir`, or continues the run there, as `python -m jaxcat.train` does.

    A first interrupt (Ctrl-C, or the stop button of a notebook) saves a checkpoint and raises KeyboardInterrupt; the
    same call then continues the run. Outside the main thread, Python gives no interrupts to this function.

    Args:
        recipe: a shipped recipe, such as "folder" or "cats_vs_dogs:fast"; the path of a config file; or a config, which
            stays as it is.
        workdir: the directory of the run; made if missing.
        settings: what to change in the recipe, by the names that `--config.NAME=VALUE` takes: `{"data.dir": DIR}`.

    Returns:
        The finished run.

    Raises:
        JaxcatError: the request, data, weights or workdir cannot be used, or training fails; the error says what to do.
        KeyboardInterrupt: the run was interrupted.
    """
    config = config_of(recipe, settings or {})
    flags.validate(config)
    folder = workdir_of(workdir)
    prepare_process()

    from jaxcat.training import loop

    if loop.train(config, folder):
        raise KeyboardInterrupt("what is done is saved; the same call of jaxcat.fit continues it")
    return Run(folder, _history(folder))


def _history(workdir: Path) -> tuple[dict[str, Any], ...]:
    from jaxcat.runs.meta import read_meta
    from jaxcat.runs.workdir import steps

    return tuple(read_meta(workdir, steps(workdir)[-1]).history)
