"""Checks of the fields of a meta, which may come from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# In the entry of every epoch. Those of validation are None if the run holds nothing out.
ENTRY = ("train/accuracy", "train/loss", "validation/accuracy", "validation/loss")


def is_entry(entry: Any) -> bool:
    """Whether this describes an epoch."""
    if not has_ints(entry, "epoch", "step") or not has_ints({"stage": 0} | entry, "stage"):
        return False
    figures = [entry.get(name, "missing") for name in ENTRY]
    return all(type(value) in (int, float) for value in figures[: 2 if figures[2:] == [None, None] else 4])


def has_texts(table: Mapping[str, Any], *names: str) -> bool:
    """Whether each of these fields is a text or missing."""
    return all(type(table.get(name, "")) is str for name in names)


def has_ints(table: Any, *names: str) -> bool:
    """Whether this is a table and each of these fields a whole number."""
    return isinstance(table, dict) and all(type(table.get(name)) is int for name in names)
