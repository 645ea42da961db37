"""Evaluation of a classifier on every record of a split, once: figures, the table that is printed, and files."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text
from scipy.special import log_softmax

from jaxcat.bottlenecks.cached import CachedSplit
from jaxcat.data.images.decoding import decoding_of
from jaxcat.data.indexing.labelled import open_labelled
from jaxcat.data.indexing.table import class_columns
from jaxcat.data.records import SPLITS, Split, printed_order
from jaxcat.data.store import Store, open_stores
from jaxcat.errors import CheckpointError, ConfigError
from jaxcat.escaping import for_cell
from jaxcat.inference.averaged import AVERAGES, ORIGINAL, StoreOfViews, average_of
from jaxcat.inference.classifier import Classifier
from jaxcat.inference.computation import Records
from jaxcat.inference.own_records import moved_split, own_split
from jaxcat.objectives.metrics import METRICS, metrics_for
from jaxcat.objectives.probabilities import with_zero_logit
from jaxcat.objectives.reliability import calibration_error
from jaxcat.runs.records import Listed, rules_of
from jaxcat.system.console import Console, progress_of
from jaxcat.system.files import replacing, write_errors_as
from jaxcat.wording import counted, printable

MOST_NAME = 100  # bytes of a file's name before its suffix; encrypted file systems take 143 for both, others 255


def evaluate(
    classifier: Classifier,
    store: Store | CachedSplit,
    *,
    batch_size: int = 32,
    console: Console | None = None,
    features: list[np.ndarray] | None = None,
    average_over: str = ORIGINAL,
) -> np.ndarray:
    """Log-probabilities float64 (N, classes) for the N records of a store, in its order.

    Args:
        store: images, as `open_store` gives them for `average_over`; or bottlenecks, which `EngineChoice.cached` found
            and which are the same to float precision.
        batch_size: images in a batch, over all processes; bottlenecks come in batches of their own size.
        console: shows progress.
        features: a list to which the pooled features of all records are appended, float32 (n, features) each; None:
            they are not wanted.
        average_over: a name in `averaged.AVERAGES`; another than "original" needs images.
    """
    console, average = console or Console(quiet=True), average_of(average_over)
    views: Records = store
    if not average.unchanged:
        assert isinstance(store, Store), "bottlenecks are those of unchanged images"
        assert features is None, "features are those of one view"
        views = StoreOfViews(store, average, size=classifier.config.data.image_size)
    computation = classifier.engine.computation(len(views), console=console)
    logits = computation.logits(views, batch_size=batch_size, console=console, features=features)
    rows = log_softmax(with_zero_logit(logits.astype(np.float64)), axis=1)
    return average.log_means(rows)


def summarize(log_probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """The figures of one evaluation, plain JSON.

    `loss` is the mean negative log-likelihood in nats. `auc` is the area under the ROC curve, with the second of two
    classes as the positive one, or macro one-vs-rest for more; null if a class has no image. `calibration_error` is the
    expected difference between confidence and accuracy over 15 bins. The rows of `confusion` are the true classes.
    """
    from sklearn import metrics  # takes a second to import, which exports and predictions need not wait for

    probabilities, every = np.exp(log_probabilities), list(range(len(classes)))
    predicted = probabilities.argmax(axis=1)
    confusion = metrics.confusion_matrix(labels, predicted, labels=every)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0.0
    )
    per_class = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "count": int(n)}
        for name, p, r, f, n in zip(classes, precision, recall, f1, support, strict=True)
    }
    return {
        "count": len(labels),
        **measured(log_probabilities, labels),
        "loss": float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        "auc": area_under_curve(probabilities, labels),
        "calibration_error": calibration_error(probabilities.max(axis=1), predicted == labels),
        "per_class": per_class,
        "confusion": confusion.tolist(),
        "classes": list(classes),
    }


def summary_of(
    classifier: Classifier, log_probabilities: np.ndarray, labels: np.ndarray, *, average_over: str = ORIGINAL
) -> dict[str, Any]:
    """What `summarize` gives, with the step and what computed it: the content of the JSON file of an evaluation."""
    computation = classifier.engine.computation()
    computed = {"step": classifier.step, "engine": computation.engine, "interpreter": computation.interpreter}
    if classifier.calibration:
        computed["temperature"] = classifier.calibration.temperature
    if average_over != ORIGINAL:
        computed["average_over"] = average_over
    return summarize(log_probabilities, labels, classifier.classes) | computed


def measured(log_probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Every metric of `METRICS` that is meaningful for this number of classes."""
    names = metrics_for(log_probabilities.shape[1])
    return {name: float(np.mean(METRICS[name].of_rows(log_probabilities, np.asarray(labels)))) for name in names}


def area_under_curve(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    from sklearn import metrics

    if len(np.unique(labels)) < probabilities.shape[1]:
        return None
    if probabilities.shape[1] == 2:
        return float(metrics.roc_auc_score(labels, probabilities[:, 1]))
    normalized = probabilities / probabilities.sum(axis=1, keepdims=True)
    return float(metrics.roc_auc_score(labels, normalized, multi_class="ovr", average="macro"))


def write_predictions(path: Path, split: Split, probabilities: np.ndarray, *, classes: Sequence[str]) -> None:
    """Writes a CSV file: file, label, predicted, one probability per class. No cell is a formula to a spreadsheet."""
    fixed, names = ("file", "label", "predicted"), [for_cell(name) for name in classes]
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow([*fixed, *class_columns(classes, fixed)])
        for name, label, row in zip(split.files, split.labels, probabilities, strict=True):
            figures = (f"{p:.6f}" for p in row)
            writer.writerow([for_cell(name), names[label], names[int(row.argmax())], *figures])


def results_folder(workdir: Path, results: Path | None) -> Path:
    """The folder that an evaluation writes to: `results`, or DIR/evaluation. Makes nothing.

    Raises:
        CheckpointError, ConfigError: it cannot be written, as far as that can be told without writing.
    """
    folder = workdir / "evaluation" if results is None else results
    try:
        if results is None and folder.is_symlink():
            raise CheckpointError(f"{folder}: is a link to {os.readlink(folder)}; jaxcat writes to no link, remove it")
        there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
        reason = "" if there.is_dir() else f"{there} is no directory"
        if there.is_dir() and not os.access(there, os.W_OK | os.X_OK):
            reason = f"{there} is read-only or not yours"
    except OSError as error:
        reason = str(error.strerror)
    if reason and results is None:
        raise CheckpointError(f"{folder}: cannot be written: {reason}; {_ELSEWHERE}")
    if reason:
        raise ConfigError(f"--results-dir {results}: cannot be written: {reason}; give another directory")
    return folder


_ELSEWHERE = "write the files elsewhere with --results-dir DIR"


def write_evaluation(folder: Path, name: str, *, summary: dict, split: Split, probabilities: np.ndarray) -> Path:
    """Writes both files, completely or not at all; returns the path of the JSON file.

    Args:
        folder: made if missing.
        name: of the files, without their suffixes.
    """
    figures = folder / f"{name}.json"
    with write_errors_as(CheckpointError, folder, f"; {_ELSEWHERE}"):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / f"{name}.predictions.csv") as rows_aside, replacing(figures) as aside:
            write_predictions(rows_aside, split, probabilities, classes=summary["classes"])
            aside.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return figures


def show(console: Console, summary: dict, title: str) -> None:
    """Prints the figures and, for each class, the class that it is most often mistaken for."""
    auc = "undefined" if summary["auc"] is None else f"{summary['auc']:.4f}"
    console.print(Text(title, style="bold"))
    console.print(
        f"{counted(summary['count'], 'image')}  accuracy {summary['accuracy']:.4f}  loss {summary['loss']:.4f}  "
        f"AUC {auc}  calibration error {summary['calibration_error']:.4f}",
        soft_wrap=True,
    )
    table = Table("class", "images", "precision", "recall", "F1", "most often mistaken for", box=None, pad_edge=False)
    for index in printed_order(summary["classes"]):
        name = summary["classes"][index]
        row = summary["per_class"][name]
        mistakes = np.array(summary["confusion"][index])
        mistakes[index] = 0
        other = f"{printable(summary['classes'][int(mistakes.argmax())])} ({mistakes.max()})" if mistakes.any() else ""
        figures = [str(row["count"]), *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1"))]
        table.add_row(Text(printable(name)), *figures, Text(other))
    console.print(table)


def open_split(
    classifier: Classifier,
    *,
    split: str,
    data: Path | None = None,
    moved: Path | None = None,
    listed: Mapping[str, Listed] | None = None,
) -> Split:
    """The records to measure on: a split of the run's own data, there or moved; or all of other data.

    Args:
        split: "train", "validation" or "test".
        data: another folder, DIR/CLASS/…, archive or table; `split` is then not used.
        moved: where the run's own data are now.
        listed: the result of `own_records.listed_records`.

    Raises:
        ConfigError, DataError: see `own_records.own_split` and `own_records.moved_split`.
    """
    meta = classifier.meta
    if data is not None:
        found = open_labelled(data, meta.classes, meta.config, rules=rules_of(meta))
    elif moved is not None:
        found = moved_split(meta, split, moved=moved, listed=listed)
    else:
        found = own_split(meta, split, listed=listed)
    return replace(found, decoding=decoding_of(meta.config))


def open_store(
    classifier: Classifier, split: Split, *, console: Console, average_over: str = ORIGINAL
) -> Store | CachedSplit:
    """The bottlenecks of a split if the cache has all of them; else its images, decoded once and thereby checked.

    The cache has bottlenecks of unchanged images. For several views (`average_over`, a name in `averaged.AVERAGES`),
    they are not looked up, and the images have the size that the views are taken from.

    Raises:
        DataError: images cannot be read, and the run does not leave such images out.
    """
    average = average_of(average_over)
    if average.unchanged and (cached := classifier.engine.cached(split, console=console)) is not None:
        console.print(f"bottlenecks: {cached.describe()}")
        return cached
    data = classifier.config.data
    with progress_of("checking images", total=len(split), console=console) as advance:
        (store,) = open_stores(
            {split.name: split},
            sizes={split.name: average.side(data.image_size)},
            mode=data.resize,
            cache_gb=data.cache_gb,
            skip_bad=data.skip_bad,
            progress=advance,
            advice="Replace, mend or remove them",
        ).values()
    return store


def name_of(data: Path) -> str:
    """Name of the files of an evaluation on another folder: printable, not too long, never that of other files."""
    folder = data.resolve()
    name = folder.name or "root"
    if name.casefold() in SPLITS:
        name = f"{folder.parent.name or 'root'}-{name}"
    name = printable(name)
    of_an_average = name.casefold().endswith(tuple(f"-{other}" for other in AVERAGES if other != ORIGINAL))
    if len(name.encode()) > MOST_NAME or of_an_average:
        known = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
        name = f"{name.encode()[:MOST_NAME].decode(errors='ignore')}-{known}"
    return name
