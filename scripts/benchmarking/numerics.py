"""Sections precision and determinism: what the device's arithmetic does to the numbers, and what better would cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarking.model import PEERS
from benchmarking.rounds import Effort, Entry, Row, rows
from benchmarking.worker import PeerError, Worker

# Label in the table → environment and dtype. On GPUs and TPUs JAX multiplies float32 with fewer bits unless told
# otherwise.
PRECISIONS: dict[str, tuple[dict[str, str], str]] = {
    "float32": ({}, "float32"),
    "float32, highest precision": ({"JAX_DEFAULT_MATMUL_PRECISION": "highest"}, "float32"),
    "bfloat16": ({}, "bfloat16"),
}
DETERMINISTIC = {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}
RUNS, STEPS = 4, 20


def precision(effort: Effort, *, sizes: Sequence[int], batch: int) -> Iterator[Row]:
    """Largest difference of mixed10's output from float32 on the CPU, over its largest value; and forward images/s."""
    workers = {label: _ours(environment) for label, (environment, _) in PRECISIONS.items()}
    try:
        for size in sizes:
            cases = {label: {"size": size, "dtype": dtype} for label, (_, dtype) in PRECISIONS.items()}
            for label, case in cases.items():
                row = Row("precision", f"mixed10, {size} px: difference from the CPU's float32", label, "")
                yield _asked(row, workers[label], "difference", case | {"batch": 4})
            entries = [Entry(name, workers[name], "forward", case | {"batch": batch}) for name, case in cases.items()]
            text = f"forward, {size} px, batch {batch}"
            yield from rows("precision", text, entries, effort, amount=batch, unit="images/s", reference="float32")
    finally:
        for worker in workers.values():
            worker.close()


def determinism(effort: Effort, *, size: int, batch: int, first_trained: Sequence[str], dtype: str) -> Iterator[Row]:
    """How many results the same steps from the same state have, as XLA likes it and when told to be deterministic."""
    workers = {"as it is": _ours({}), "deterministic": _ours(DETERMINISTIC)}
    try:
        for train_from in first_trained:
            case = {"size": size, "batch": batch, "dtype": dtype, "train_from": train_from}
            text = f"{size} px, batch {batch}, from {train_from}, {dtype}"
            for label, worker in workers.items():
                row = Row("determinism", f"{text}: different results of {RUNS} runs of {STEPS} steps", label, "")
                yield _asked(row, worker, "results", case | {"runs": RUNS, "steps": STEPS})
            entries = [Entry(label, worker, "step", case) for label, worker in workers.items()]
            yield from rows(
                "determinism", text, entries, effort, amount=batch, unit="images/s", reference="deterministic"
            )
    finally:
        for worker in workers.values():
            worker.close()


def _ours(environment: dict[str, str]) -> Worker:
    module, always = PEERS["jaxcat"]
    return Worker(module, always | environment)


def _asked(row: Row, worker: Worker, function: str, case: dict[str, Any]) -> Row:
    try:
        row.values.append(worker.ask("call", function=function, arguments=case))
    except PeerError as error:
        row.skipped = str(error)
    return row
