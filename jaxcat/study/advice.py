"""What to do after a study: the config of its winner as a file, and the command that trains it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxcat.config import default, flatten
from jaxcat.escaping import for_python, for_shell
from jaxcat.models.completion import set_blocks
from jaxcat.study.ranking import Row

CONFIG_FILE, RUN = "recommended.py", "run"


def recommended(config: ConfigDict, winner: Row) -> ConfigDict:
    """The config that was asked for, with the blocks, pooling and image size of the winner.

    Training chooses the penalty again, in the same way, on all records.
    """
    config = config.copy_and_resolve_references()
    set_blocks(config.model, winner.candidate.blocks)
    config.model.pool = winner.candidate.pool
    config.data.image_size, config.optim.penalty = winner.size, 0.0
    return config


def config_file(config: ConfigDict, why: str) -> str:
    """The text of a config file that gives this config; paths and names are written as Python writes them."""
    defaults = flatten(default())
    changed: dict[str, Any] = {n: v for n, v in flatten(config).items() if n not in defaults or v != defaults[n]}
    lines = "\n".join(f"    config.{name} = {for_python(value)}" for name, value in changed.items())
    words = ascii(why)  # a name in it may not be fit for a file: the text goes into a literal
    return f"""__doc__ = {words}

from ml_collections import ConfigDict

from jaxcat.config import default


def get_config() -> ConfigDict:
    config = default()
{lines}
    return config
"""


def command(workdir: Path) -> str:
    """The train command of the winner, quoted for a shell."""
    words = ["python", "-m", "jaxcat.train", "--config", str(workdir / CONFIG_FILE), "--workdir", str(workdir / RUN)]
    return for_shell(*words)
