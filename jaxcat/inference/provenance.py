"""Where the weights of a run come from, as it can be shown: licence, attribution, and no folders of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any


def first_of(provenance: Mapping[str, Any], name: str) -> str:
    """An entry of a provenance or, if it lacks it, of the run or file that this one began with; else ""."""
    before: Any = provenance
    while isinstance(before, Mapping):
        if name in before:
            return str(before[name])
        before = before.get("before")
    return ""


def without_folders(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """A provenance in which files of this machine are without their folders, at every level."""
    plain = dict(provenance)
    for name, value in plain.items():
        if isinstance(value, Mapping):
            plain[name] = without_folders(value)
        elif name in ("source", "init_from", "workdir") and isinstance(value, str) and PurePath(value).is_absolute():
            plain[name] = PurePath(value).name
    return plain
