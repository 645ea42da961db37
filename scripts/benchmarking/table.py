"""The one table, as text that is also Markdown, and as JSON; and what machine it is about."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.box import MARKDOWN
from rich.table import Table

from benchmarking.rounds import Row

COLUMNS = ("section", "case", "peer", "median", "min – max", "% of peak", "jaxcat ÷ it")


def machine(peers: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Date, processor, cores, memory, Python, and the peers' versions and devices."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "python": platform.python_version(),
        "peers": peers,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    name = fields.get("model name", platform.machine())
    return f"{name}, family {fields['cpu family']} model {fields['model']}" if "cpu family" in fields else name


def draw(rows: Sequence[Row]) -> Table:
    table = Table(box=MARKDOWN)
    for column in COLUMNS:
        table.add_column(column, no_wrap=True, justify="left" if column in COLUMNS[:3] else "right")
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    start = [row.section, row.case, row.peer]
    if not row.values:
        return [*start, f"skipped: {row.skipped}", "", "", ""]
    spread = f"{_figure(min(row.values))} – {_figure(max(row.values))} ({len(row.values)})"
    ratio = f"{median(row.ratios):.2f} ({min(row.ratios):.2f} – {max(row.ratios):.2f})" if row.ratios else ""
    peak = f"{100 * row.peak:.0f}" if row.peak else ""
    return [*start, f"{_figure(row.median)} {row.unit}", spread if len(row.values) > 1 else "", peak, ratio]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write_json(path: Path, rows: Sequence[Row], about: dict[str, Any]) -> None:
    lines = [dataclasses.asdict(row) | {"median": row.median if row.values else None} for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about, "rows": lines}, indent=1) + "\n")
