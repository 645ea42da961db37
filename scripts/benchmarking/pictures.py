"""Section pipeline: pictures per second from files to batches, with nothing else running."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarking.rounds import Effort, Entry, Row, rows
from benchmarking.worker import Worker

# What is done → who does it, as (label, module of benchmarking.peers, task).
CASES = {
    "decode and resize": (("jaxcat", "jaxcat_pipeline", "decode"), ("pillow, one thread", "pillow", "decode")),
    "decode, augment and batch": (
        ("jaxcat", "jaxcat_pipeline", "decode_augment"),
        ("keras ImageDataGenerator", "keras_pipeline", "decode_augment"),
    ),
    "augment and batch from memory": (("jaxcat", "jaxcat_pipeline", "augment"),),
}


def pipeline(data: Path | None, effort: Effort, *, sizes: Sequence[int], batch: int) -> Iterator[Row]:
    """Decoding, and the article's augmentation, on the pictures of `data`/train."""
    if data is None:
        yield Row("pipeline", "all", "all", "", skipped="needs --data DIR")
        return
    workers = {module: Worker(module) for peers in CASES.values() for _, module, _ in peers}
    try:
        for size in sizes:
            for text, peers in CASES.items():
                case = {"data": str(data), "size": size, "batch": batch}
                entries = [Entry(label, workers[module], task, case) for label, module, task in peers]
                yield from rows(
                    "pipeline", f"{text}, {size} px", entries, effort, amount=batch, unit="images/s", reference="jaxcat"
                )
    finally:
        for worker in workers.values():
            worker.close()
