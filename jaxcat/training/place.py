"""Where a run is: its workdir must not be taken for a class of its own data, and is locked while the run goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from jaxcat.data.indexing.layout import class_root_around
from jaxcat.errors import CheckpointError, ConfigError, one_line
from jaxcat.runs.workdir import steps
from jaxcat.system.files import cache_dir, cannot_be_made
from jaxcat.system.locks import Lock
from jaxcat.system.paths import absolute, expanded
from jaxcat.system.processes import values_of_processes


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


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Locks the workdir against a second run, and makes it if missing. Process 0 holds the lock for the whole run."""
    lock, refusal = Lock(workdir / ".lock"), ""
    if jax.process_index() == 0:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            if not lock.acquire():
                refusal = f"another run holds it: {lock.holder()}; wait until that ends, or use another --workdir"
        except OSError as error:
            refusal = f"cannot be written: {one_line(error)}"
    try:
        if any(values_of_processes(bool(refusal))):
            raise CheckpointError(f"--workdir {workdir}: {refusal or 'process 0 cannot use it'}")
        yield
    finally:
        lock.release()
