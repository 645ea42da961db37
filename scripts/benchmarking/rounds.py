"""Peers in turn, round by round, so that drift of the machine's speed hits all of them; medians with their spread."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarking.worker import PeerError, Worker

FEWEST_ROUNDS = 3  # a median of fewer says nothing about the spread


@dataclasses.dataclass
class Row:
    """One line of the table.

    Attributes:
        case: what was measured, for a reader.
        values: one per round, in `unit`.
        peak: share of the device's measured matmul peak, or None.
        ratios: jaxcat's speed divided by this peer's, round by round; empty where nothing is compared.
        skipped: why there are no values, or "".
    """

    section: str
    case: str
    peer: str
    unit: str
    values: list[float] = dataclasses.field(default_factory=list)
    peak: float | None = None
    ratios: list[float] = dataclasses.field(default_factory=list)
    skipped: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclasses.dataclass
class Entry:
    """Who takes part in a case: `label` in the table, the task that `worker` does, and the amount done in a call of it
    where that is not what the others do."""

    label: str
    worker: Worker
    task: str
    case: dict[str, Any]
    amount: float | None = None


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is measured: rounds, seconds a peer works in a round, and seconds after which a case has had enough."""

    rounds: int
    turn_seconds: float
    case_seconds: float


def compete(entries: Sequence[Entry], effort: Effort) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Time every entry once a round.

    Returns:
        Seconds a call by label, a value a round, and the reasons of the entries that could not take part.
    """
    seconds: dict[str, list[float]] = {}
    reasons: dict[str, str] = {}
    for entry in entries:
        try:
            entry.worker.ask("prepare", name=entry.label, task=entry.task, case=entry.case, seconds=effort.turn_seconds)
            seconds[entry.label] = []
        except PeerError as error:
            reasons[entry.label] = str(error)
    began = time.monotonic()
    for number in range(effort.rounds):
        if number >= FEWEST_ROUNDS and time.monotonic() - began > effort.case_seconds:
            break
        for entry in entries:
            if entry.label in seconds:
                try:
                    seconds[entry.label].append(entry.worker.ask("time", name=entry.label))
                except PeerError as error:
                    reasons[entry.label] = str(error)
                    del seconds[entry.label]
    for entry in entries:
        if entry.label in seconds:
            entry.worker.ask("forget")
    return seconds, reasons


def rows(
    section: str,
    case: str,
    entries: Sequence[Entry],
    effort: Effort,
    *,
    amount: float,
    unit: str,
    reference: str = "",
) -> list[Row]:
    """The lines of one case: `amount` of `unit`'s numerator is done in a call; `reference` is whom ratios compare."""
    seconds, reasons = compete(entries, effort)
    speeds = {
        entry.label: [(entry.amount or amount) / value for value in seconds.get(entry.label, [])] for entry in entries
    }
    lines = []
    for entry in entries:
        row = Row(section, case, entry.label, unit, speeds[entry.label], skipped=reasons.get(entry.label, ""))
        if reference in seconds and entry.label != reference:
            row.ratios = [ours / theirs for ours, theirs in zip(speeds[reference], row.values, strict=False)]
        lines.append(row)
    return lines
