"""Which checkpoint of a workdir is used: the best, the latest, or the one of a step."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from jaxcat.errors import CheckpointError
from jaxcat.runs.meta import best_epoch, is_validated, read_meta
from jaxcat.runs.workdir import REPLACED, STEP, numbered, steps
from jaxcat.system.paths import typed

logger = logging.getLogger(__name__)


def existing(workdir: str | os.PathLike) -> Path:
    """The absolute path of a workdir. Raises CheckpointError if there is no such directory."""
    folder = typed(workdir)
    if not os.path.isdir(folder):
        raise CheckpointError(f"--workdir {workdir}: no such directory")
    return folder


def choose(workdir: Path, step: str | int) -> int:
    """`best`, `latest` or a step number → the step of a finished checkpoint.

    Raises:
        CheckpointError: there is no checkpoint, or not this one; the message lists the others.
    """
    there = steps(workdir)
    for number, old in numbered(workdir / REPLACED).items():
        if number not in there:
            logger.warning("%s was moved aside and is not used: the train command of this run moves it back", old)
    if not there:
        raise CheckpointError(
            f"--workdir {workdir}: no finished checkpoint there: give the workdir of a training run; if this run was "
            "interrupted, run its train command again, which continues it"
        )
    if step == "latest":
        return there[-1]
    if step == "best":
        return _best(workdir, there)
    if STEP.fullmatch(str(step)) and int(step) in there:
        return int(step)
    raise CheckpointError(
        f"--step {step}: not in {workdir}, which has {', '.join(map(str, there))}; or use best or latest"
    )


def _best(workdir: Path, there: list[int]) -> int:
    """The best step of those that are there; warns if a better one is missing."""
    history = read_meta(workdir, there[-1]).history
    best, found = best_epoch(history), best_epoch([entry for entry in history if entry["step"] in there])
    if best is not None and not is_validated(best):
        return there[-1]
    if best is None or found is None:
        if best is not None:
            logger.warning("%s: no checkpoint of a whole epoch is left; using step %d", workdir, there[-1])
        return there[-1]
    if best["step"] != found["step"]:
        logger.warning(
            "%s: the best checkpoint, step %d, is missing; using step %d, the best of those there",
            *(workdir, best["step"], found["step"]),
        )
    return found["step"]
