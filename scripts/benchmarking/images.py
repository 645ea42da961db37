"""Sections on images from files: pipeline, from files to batches with nothing else running; and cached, training on
what the frozen blocks have made of them, against Keras, which computes it anew."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarking.model import PEERS
from benchmarking.rounds import Effort, Entry, Row, rows
from benchmarking.worker import PeerError, Worker

# What is done → who does it, as (label, module of benchmarking.peers, task).
CASES = {
    "decode and resize": (
        ("jaxcat", "jaxcat_pipeline", "decode"),
        ("jaxcat, one thread", "jaxcat_pipeline", "decode_alone"),
        ("pillow, one thread", "pillow", "decode"),
        ("tensorflow", "tensorflow_images", "decode"),
        ("tensorflow, reduced", "tensorflow_images", "decode_reduced"),
    ),
    "know again by the file's digest": (("jaxcat", "jaxcat_pipeline", "digest"),),
    "decode, augment and batch": (
        ("jaxcat", "jaxcat_pipeline", "decode_augment"),
        ("keras ImageDataGenerator", "keras_pipeline", "decode_augment"),
    ),
    "augment and batch from memory": (
        ("jaxcat", "jaxcat_pipeline", "augment"),
        ("jaxcat, by TensorFlow", "jaxcat_pipeline", "augment_on_host"),
    ),
}


def pipeline(data: Path | None, effort: Effort, *, sizes: Sequence[int], batch: int) -> Iterator[Row]:
    """Decoding, and the article's augmentation, on the images of `data`/train; all must be JPEGs."""
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


def cached(data: Path | None, weights: Path | None, effort: Effort, *, size: int, batch: int) -> Iterator[Row]:
    """The default head on pooled bottlenecks, and mixed8 to mixed10 on those of mixed7, against Keras's step; and how
    long reading the rows and the steps on them take by themselves."""
    if data is None:
        yield Row("cached", "all", "all", "", skipped="needs --data DIR")
        return
    cache = tempfile.TemporaryDirectory()
    ours = Worker("jaxcat_cached", {"JAXCAT_CACHE": cache.name})
    keras = Worker(*PEERS["keras-tensorflow"])
    try:
        images = ours.ask("call", function="images", arguments={"data": str(data)})
        for train_from in ("head", "mixed8"):
            case = {"size": size, "batch": batch, "train_from": train_from}
            files = {"data": str(data), "weights": str(weights or "none")}
            entries = [
                Entry("jaxcat", ours, "epoch", case | files, amount=images),
                Entry("jaxcat, rows alone", ours, "epoch", case | files | {"part": "rows"}, amount=images),
                Entry("jaxcat, steps alone", ours, "epoch", case | files | {"part": "steps"}, amount=images),
                Entry("keras-tensorflow", keras, "step", case | {"dtype": "float32"}),
            ]
            text = f"training from {train_from} on bottlenecks, {size} px, batch {batch}"
            yield from rows("cached", text, entries, effort, amount=batch, unit="images/s", reference="jaxcat")
    except PeerError as error:
        yield Row("cached", "all", "jaxcat", "", skipped=str(error))
    finally:
        ours.close()
        keras.close()
        cache.cleanup()
