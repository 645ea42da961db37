"""A study in its directory: what is refused, what is written, and what a second call finds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxcat import flags
from jaxcat.config import flatten
from jaxcat.errors import CheckpointError, ConfigError, one_line
from jaxcat.models.backbone import BACKBONES
from jaxcat.models.completion import complete
from jaxcat.runs.workdir import steps
from jaxcat.training.optim import is_exact

FILE = "study.json"
MOST_SIZE = 2048  # pixels a side; a larger number is probably a typing error


def check(config: ConfigDict, sizes: Sequence[int]) -> None:
    """Checks a request before any long work.

    Raises:
        ConfigError: names the flag, the value received and what is allowed.
    """
    flags.validate(config)
    if not is_exact(config):
        raise ConfigError(
            f"--config.optim.name={config.optim.name}: a study compares solved heads; take a recipe that solves them, "
            "such as configs/folder.py, or set --config.optim.name=exact"
        )
    if config.model.pool_grid != 1:
        raise ConfigError(
            f"--config.model.pool_grid={config.model.pool_grid}: a study compares averages over the whole image; "
            "set it to 1"
        )
    least = BACKBONES[config.model.backbone].least_image_size
    for size in sizes:
        if not isinstance(size, Integral) or not least <= size <= MOST_SIZE:
            raise ConfigError(
                f"--sizes {size}: must be a whole number from {least}, which the backbone needs, to {MOST_SIZE} pixels"
            )
    if len(set(sizes)) < len(sizes):
        raise ConfigError(f"--sizes {','.join(map(str, sizes))}: a size is named twice")


def execute(config: ConfigDict, workdir: Path, *, sizes: Sequence[int] = (), train: bool = False) -> int:
    """Makes a study in `workdir`, or shows the finished one there; trains the winner if `train`.

    Args:
        config: checked by `check`.
        sizes: pixels a side; none: the size of `config`.

    Returns:
        The exit status: 0, or 130 or 143 if a signal came; the same call then goes on with what is cached.

    Raises:
        JaxcatError: the request, data, weights or workdir cannot be used; the error says what to do.
    """
    import jax

    from jaxcat.system.console import Console
    from jaxcat.training import loop
    from jaxcat.training.place import check_place, held

    if jax.process_count() > 1:
        raise ConfigError(f"a study runs in one process, and this run has {jax.process_count()}: start it on one host")
    console, sizes = Console(), [int(size) for size in sizes]  # NumPy's are no JSON
    asked = request(config, sizes)
    if not (workdir / FILE).exists():
        check_place(config, workdir)
    with held(workdir):
        before = read(workdir)
        if before is None and steps(workdir):
            raise ConfigError(f"--workdir {workdir}: holds a run; a study needs a directory of its own")
        if before is not None and before["request"] != asked:
            raise ConfigError(
                f"--workdir {workdir}: holds a study of {_changes(before['request'], asked)}; choose another "
                "--workdir, or ask for the same to see it"
            )
        if before is not None:
            for line in before["summary"]:
                console.print(line)
            console.print(f"this study is finished; to make it again, remove {workdir / FILE}")
        elif status := _make(config, workdir, sizes, asked=asked, console=console, train=train):
            return status
    if train:
        from jaxcat.configs import execute as config_of
        from jaxcat.study.advice import CONFIG_FILE, RUN

        if not (workdir / CONFIG_FILE).is_file():
            raise CheckpointError(
                f"{workdir / CONFIG_FILE}: not there, and --train needs it: remove {workdir / FILE} too, and the study "
                "is made again"
            )
        return loop.train(config_of(str(workdir / CONFIG_FILE)), workdir / RUN)
    return 0


def _make(
    config: ConfigDict, workdir: Path, sizes: Sequence[int], *, asked: dict[str, Any], console: Any, train: bool
) -> int:
    """Makes a new study; returns the exit status. If `train` follows, that of a signal after all has been computed."""
    from jaxcat.study import advice, files, pictures, summary
    from jaxcat.study.collect import Interrupted
    from jaxcat.study.results import run
    from jaxcat.system.devices import make_mesh
    from jaxcat.system.files import write_errors_as, write_text
    from jaxcat.system.interruption import Interruption

    mesh = make_mesh()
    with Interruption(mesh) as interruption:
        try:
            results = run(config, workdir, sizes, mesh=mesh, console=console, stop=interruption.stop)
        except Interrupted as interrupted:
            console.print("interrupted: the features are kept, and the same command continues with them")
            return interrupted.status
    with write_errors_as(CheckpointError, f"--workdir {workdir}", "; free space or give access"):
        best = advice.recommended(config, results.winner)
        why = f"The blocks that a study of {len(results.collected.splits['train'])} images chose."
        write_text(workdir / advice.CONFIG_FILE, advice.config_file(best, why))
        pictures.draw(workdir, results)
        said = list(summary.lines(results, workdir))
        files.write(workdir / FILE, results, request=asked, summary=said)
    summary.show(console, results, workdir)
    return interruption.stop() if train else 0


def request(config: ConfigDict, sizes: Sequence[int]) -> dict[str, Any]:
    """What was asked for, plain JSON; two requests that are equal give the same study of the same images."""
    config = config.copy_and_resolve_references()
    complete(config)
    return {"config": flatten(config), "sizes": list(sizes)}


def read(workdir: Path) -> dict[str, Any] | None:
    """The content of study.json; None if there is none.

    Raises:
        CheckpointError: it cannot be read.
    """
    path = workdir / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({one_line(error)}): remove it, and the study is made again"
        ) from error
    if not _is_study(content):
        raise CheckpointError(f"{path}: is no study of this version: remove it, and the study is made again")
    return content


def _is_study(content: Any) -> bool:
    """Whether what was read has the parts that `execute` looks into."""
    if not isinstance(content, dict) or not isinstance(content.get("summary"), list):
        return False
    asked = content.get("request")
    return (
        isinstance(asked, dict) and isinstance(asked.get("config"), dict) and isinstance(asked.get("sizes", []), list)
    )


def _changes(before: dict[str, Any], asked: dict[str, Any]) -> str:
    """The settings in which two requests differ, as they were before."""
    old, new = before["config"], asked["config"]
    names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    words = [f"--config.{name}={old.get(name)}" for name in names]
    if before.get("sizes") != asked["sizes"]:
        words.append(f"--sizes {','.join(map(str, before.get('sizes', []))) or 'none'}")
    return ", ".join(words) or "another version"
