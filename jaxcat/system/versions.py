"""Versions of installed packages."""

from __future__ import annotations

import functools
import importlib.metadata


def installed_versions(*names: str) -> dict[str, str]:
    """The versions of these packages, without those that are not installed."""
    found = {name: _version(name) for name in names}
    return {name: version for name, version in found.items() if version is not None}


@functools.cache
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
