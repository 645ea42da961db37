"""How an extra, a group of optional packages in pyproject.toml, is installed."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def install(extra: str) -> str:
    """The command that installs an extra: README's, for the folder of a clone, if jaxcat is in one."""
    if all((_ROOT / name).is_file() for name in ("pyproject.toml", "constraints.txt")):
        return f"pip install -c constraints.txt -e '.[{extra}]'"
    return f"pip install 'jaxcat[{extra}]'"
