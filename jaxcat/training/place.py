"""Where a run may be: its workdir must not be taken for a class of its own data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxcat.data.indexing.layout import class_root_around
from jaxcat.errors import ConfigError
from jaxcat.runs.workdir import steps
from jaxcat.system.files import cache_dir, cannot_be_made
from jaxcat.system.paths import absolute, expanded


def check_place(config: Any, workdir: Path) -> None:
    """Raises ConfigError if a new run cannot be in this workdir, or if there is no place for its bottlenecks."""
    if steps(workdir):  # a run that is there already goes on as it did
        return
    if config.bottleneck.views and (reason := cannot_be_made(cache_dir())):
        raise ConfigError(
            f"{cache_dir()}: no directory for bottlenecks can be made there ({reason}): set JAXCAT_CACHE to another one"
        )
    if config.data.source != "folder" or config.data.label_pattern or not config.data.dir:
        return
    root = absolute(expanded(config.data.dir))
    if around := class_root_around(workdir, root, config.data):
        raise ConfigError(
            f"--workdir {workdir}: jaxcat looks for class folders in {around}, and would take a run there for a class "
            f"when it is continued or evaluated; choose another place, such as {root}-run"
        )
