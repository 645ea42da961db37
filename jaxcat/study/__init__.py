"""Studies: what can be learned from images before more are collected.

    found = jaxcat.study.study("folder", "studies/mine", settings={"data.dir": DIR})
    print(found.accuracy, found.command)

`collect` features of every block · `ranking` ranges of blocks · `curve` more images · `images` labels and copies ·
`results` all of it · `files`, `pictures` (plots), `summary`, `advice` what is written and said · `command` a study on
disk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_collections import ConfigDict


class Study:
    """A finished study in its directory.

    Attributes:
        workdir: its directory, with the tables and plots.
        content: all results, as in study.json.
    """

    def __init__(self, workdir: Path, content: dict[str, Any]):
        self.workdir, self.content = workdir, content

    @property
    def accuracy(self) -> dict[str, Any]:
        """The winner's `accuracy`, `low` and `high` ends of its 95 % interval, `count` and `optimism_of_choice`."""
        return self.content["accuracy"]

    @property
    def ranges(self) -> list[dict[str, Any]]:
        """The table of ranges, least squared error first."""
        return self.content["ranges"]

    @property
    def command(self) -> str:
        """The train command of the winner, quoted for a shell."""
        return self.content["command"]

    @property
    def config(self) -> Path:
        """The config file of the winner, for `jaxcat.fit` or `--config`."""
        return self.workdir / "recommended.py"

    def __repr__(self) -> str:
        accuracy, low, high = (self.accuracy[name] for name in ("accuracy", "low", "high"))
        return f"<jaxcat study in {self.workdir}: accuracy {accuracy:.4f} ({low:.3f} to {high:.3f})>"


def study(
    recipe: str | os.PathLike[str] | ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    settings: Mapping[str, Any] | None = None,
    sizes: Sequence[int] = (),
) -> Study:
    """Studies images, or reads the finished study in `workdir`, as `python -m jaxcat.study` does.

    Args:
        recipe: as in `jaxcat.fit`; its head must be a solved one, as in "folder" and "tfds".
        workdir: the directory of the study; made if missing.
        settings: what to change in the recipe, by the names that `--config.NAME=VALUE` takes.
        sizes: image sizes to compare, in pixels a side; none: that of the recipe.

    Raises:
        JaxcatError: the request, data, weights or workdir cannot be used; the error says what to do.
        KeyboardInterrupt: it was interrupted; the same call continues it.
    """
    from jaxcat.recipes import config_of, prepare_process, workdir_of
    from jaxcat.study import command

    config, folder = config_of(recipe, settings or {}), workdir_of(workdir)
    command.check(config, sizes)
    prepare_process()
    if command.execute(config, folder, sizes=sizes):
        raise KeyboardInterrupt("the features that were computed are kept; the same call continues with them")
    content = command.read(folder)
    assert content is not None  # execute has just written it
    return Study(folder, content)
