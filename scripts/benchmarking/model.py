"""Sections forward, step and devices: how fast the network runs, against peers and against the device's matmul peak."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarking.rounds import Effort, Entry, Row, rows
from benchmarking.worker import PeerError, Worker

# Name in the table → module of benchmarking.peers and its environment. Preallocation of the GPU's memory by one process
# would leave none for the others.
PEERS: dict[str, tuple[str, dict[str, str]]] = {
    "jaxcat": ("jaxcat", {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}),
    "keras-tensorflow": ("keras", {"KERAS_BACKEND": "tensorflow"}),
    "keras-jax": ("keras", {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}),
    "torch": ("torch", {}),
}
DEVICE_COUNTS = (1, 2, 4, 8)
# Of activations that full fine-tuning keeps: 3.3 GB were measured for 20 images of 299 px.
BYTES_PER_PIXEL = 1900


class Team:
    """The workers of the peers that are here, and why the others are not.

    Attributes:
        present: name → what it says of itself.
        absent: name → reason.
    """

    def __init__(self, names: Sequence[str]):
        self.workers = {name: Worker(*PEERS[name]) for name in names}
        self.present: dict[str, dict[str, str]] = {}
        self.absent: dict[str, str] = {}
        for name, worker in self.workers.items():
            try:
                self.present[name] = worker.ask("describe")
            except PeerError as error:
                self.absent[name] = str(error)

    def entries(self, task: str, case: dict[str, Any]) -> list[Entry]:
        return [Entry(name, self.workers[name], task, case) for name in self.present]

    def skipped(self, section: str) -> list[Row]:
        return [Row(section, "all", name, "", skipped=reason) for name, reason in self.absent.items()]

    def flops(self, task: str, case: dict[str, Any]) -> float | None:
        """Operations of one call, as XLA counts them in jaxcat's program, or None without jaxcat."""
        if "jaxcat" not in self.present:
            return None
        try:
            return self.workers["jaxcat"].ask("call", function="flops", arguments={"task": task, **case})
        except PeerError:
            return None

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()


class Model:
    """The measurements of one dtype; the matmul peak is measured once, before the first of them."""

    def __init__(self, team: Team, effort: Effort, *, dtype: str):
        self._team, self._effort, self._dtype = team, effort, dtype

    @property
    def _on_cpu(self) -> bool:
        return all("cpu" in facts["device"].lower() for facts in self._team.present.values())

    @functools.cached_property
    def peak(self) -> tuple[float, list[Row]]:
        """FLOP/s of the fastest matrix product that any peer makes here, and the lines that show it."""
        side = 2048 if self._on_cpu else 8192
        entries = self._team.entries("matmul", {"side": side, "dtype": self._dtype})
        entries = [entry for entry in entries if "matmul" in entry.worker.ask("tasks")]
        lines = rows(
            "peak", f"matmul {side}, {self._dtype}", entries, self._effort, amount=2 * side**3 / 1e9, unit="GFLOP/s"
        )
        return max((row.median for row in lines if row.values), default=0.0) * 1e9, lines

    def forward(self, sizes: Sequence[int], batches: Sequence[int]) -> Iterator[Row]:
        yield from self.peak[1]
        yield from self._team.skipped("forward")
        for size in sizes:
            for batch in batches:
                case = {"size": size, "batch": batch, "dtype": self._dtype}
                yield from self._measured("forward", case, self._team.entries("forward", case), f"batch {batch}")

    def step(self, sizes: Sequence[int], batches: Sequence[int], first_trained: Sequence[str]) -> Iterator[Row]:
        yield from self.peak[1]
        yield from self._team.skipped("step")
        for size, train_from, batch in itertools.product(sizes, first_trained, batches):
            case = {"size": size, "batch": batch, "dtype": self._dtype, "train_from": train_from}
            words = f"batch {batch}, from {train_from}"
            if reason := self._too_large(size, batch, train_from):
                yield Row("step", f"{size} px, {words}, {self._dtype}", "all", "", skipped=reason)
                continue
            entries = self._team.entries("step", case)
            if train_from == "head" and "jaxcat" in self._team.present:
                alone = {name: case[name] for name in ("size", "batch", "dtype")}
                entries.append(Entry("jaxcat, forward alone", self._team.workers["jaxcat"], "forward", alone))
            yield from self._measured("step", case, entries, words)

    def _too_large(self, size: int, batch: int, train_from: str) -> str:
        """Why full fine-tuning of this batch should not be tried here, or "". A GPU refuses what does not fit; a
        computer without enough memory ends some process, not always the one to blame."""
        needed, there = BYTES_PER_PIXEL * batch * size**2, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if not self._on_cpu or train_from != "stem" or 2 * needed < there:
            return ""
        return f"takes about {needed / 1e9:.0f} GB, of {there / 1e9:.0f} GB for all peers"

    def _measured(self, task: str, case: dict[str, Any], entries: list[Entry], words: str) -> list[Row]:
        flops, (peak, _) = self._team.flops(task, case), self.peak
        text = f"{case['size']} px, {words}, {self._dtype}"
        lines = rows(task, text, entries, self._effort, amount=case["batch"], unit="images/s", reference="jaxcat")
        for row in lines:
            if row.values and flops and peak and "alone" not in row.peer:
                row.peak = row.median / case["batch"] * flops / peak
        return lines


def devices(effort: Effort, *, size: int, batch: int) -> Iterator[Row]:
    """The head-only step on 1 to 8 CPU devices of one process; on few cores it shows what the division costs."""
    case = {"size": size, "batch": batch, "dtype": "float32", "train_from": "head"}
    workers = {
        f"jaxcat, {count} devices": Worker("jaxcat", {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(count)})
        for count in DEVICE_COUNTS
    }
    try:
        entries = [Entry(name, worker, "step", case) for name, worker in workers.items()]
        text = f"head-only step, {size} px, batch {batch}"
        yield from rows("devices", text, entries, effort, amount=batch, unit="images/s", reference=entries[0].label)
    finally:
        for worker in workers.values():
            worker.close()
