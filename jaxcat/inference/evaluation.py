"""Evaluation of a classifier on every record of a split, once: figures, the table that is printed, and files."""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table
from rich.text import Text
from scipy.special import log_softmax
from sklearn import metrics

from jaxcat.data.batches import at_most, batches
from jaxcat.data.labelled import open_labelled
from jaxcat.data.records import SPLITS, Split, fingerprint, printed_order
from jaxcat.data.sources import open_data
from jaxcat.data.store import Store
from jaxcat.errors import CheckpointError, ConfigError
from jaxcat.inference.classifier import Classifier, with_zero_logit
from jaxcat.objectives.metrics import METRICS, metrics_for
from jaxcat.system.console import Console
from jaxcat.system.files import replacing, write_text
from jaxcat.training.steps import InLine

logger = logging.getLogger(__name__)

CALIBRATION_BINS = 15  # equal widths, as Guo et al. (arXiv:1706.04599)


def evaluate(classifier: Classifier, store: Store, *, batch_size: int = 32) -> np.ndarray:
    """Log-probabilities float64 (N, classes) for the N records of a store, in its order."""
    indices, size = np.arange(len(store)), classifier.config.data.image_size
    batch_size = at_most(len(store), batch_size)
    source = batches(store, store.split.labels, indices, batch_size=batch_size, size=size, mesh=classifier.mesh)
    line = InLine()
    rows: list[jax.Array] = []
    for batch in source:
        logits, _ = classifier.evaluate_batch(batch)
        line.add(logits)
        rows.append(logits)
    outputs = np.concatenate([np.asarray(logits)[:batch_size] for logits in rows])[: len(store)]  # the rest is padding
    return log_softmax(with_zero_logit(outputs.astype(np.float64)), axis=1)


def summarize(log_probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """The figures of one evaluation, plain JSON.

    `loss` is the mean negative log-likelihood in nats. `auc` is the area under the ROC curve, with the second of two
    classes as the positive one, or macro one-vs-rest for more; null if a class has no image. `calibration_error` is the
    expected difference between confidence and accuracy over 15 bins. The rows of `confusion` are the true classes.
    """
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


def measured(log_probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Every metric of `METRICS` that is meaningful for this number of classes."""
    names = metrics_for(log_probabilities.shape[1])
    with jax.enable_x64(True):  # in float32, close values tie: accuracy would not fit `confusion`
        logits, rows = jnp.asarray(log_probabilities), jnp.asarray(labels)
        return {name: float(np.mean(np.asarray(METRICS[name].of_rows(logits, rows)))) for name in names}


def area_under_curve(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    if len(np.unique(labels)) < probabilities.shape[1]:
        return None
    if probabilities.shape[1] == 2:
        return float(metrics.roc_auc_score(labels, probabilities[:, 1]))
    normalized = probabilities / probabilities.sum(axis=1, keepdims=True)
    return float(metrics.roc_auc_score(labels, normalized, multi_class="ovr", average="macro"))


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error: |accuracy - confidence| of each bin, weighted by its share of the images."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [abs(correct[bins == b].sum() - confidence[bins == b].sum()) for b in range(CALIBRATION_BINS)]
    return float(sum(gaps) / len(confidence))


def write_predictions(path: Path, split: Split, probabilities: np.ndarray, *, classes: Sequence[str]) -> None:
    """Writes a CSV file: file, label, predicted, one probability per class."""
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "predicted", *classes])
        for name, label, row in zip(split.files, split.labels, probabilities, strict=True):
            writer.writerow([name, classes[label], classes[int(row.argmax())], *(f"{p:.6f}" for p in row)])


def write_evaluation(workdir: Path, name: str, *, summary: dict, split: Split, probabilities: np.ndarray) -> Path:
    """Writes both files, each completely or not at all; returns the path of the JSON file."""
    folder = workdir / "evaluation"
    figures = folder / f"{name}.json"
    try:
        folder.mkdir(exist_ok=True)
        if folder.is_symlink():
            raise CheckpointError(f"{folder}: is a link to {os.readlink(folder)}; jaxcat writes to no link, remove it")
        with replacing(folder / f"{name}.predictions.csv") as aside:
            write_predictions(aside, split, probabilities, classes=summary["classes"])
        write_text(figures, json.dumps(summary, indent=2) + "\n")
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written: {error.strerror}") from error
    return figures


def show(console: Console, summary: dict, title: str) -> None:
    """Prints the figures and, for each class, the class that it is most often mistaken for."""
    auc = "undefined" if summary["auc"] is None else f"{summary['auc']:.4f}"
    console.print(Text(title, style="bold"))
    console.print(
        f"{summary['count']} images  accuracy {summary['accuracy']:.4f}  loss {summary['loss']:.4f}  AUC {auc}  "
        f"calibration error {summary['calibration_error']:.4f}",
        soft_wrap=True,
    )
    table = Table("class", "images", "precision", "recall", "F1", "most often mistaken for", box=None, pad_edge=False)
    for index in printed_order(summary["classes"]):
        name = summary["classes"][index]
        row = summary["per_class"][name]
        mistakes = np.array(summary["confusion"][index])
        mistakes[index] = 0
        other = f"{summary['classes'][int(mistakes.argmax())]} ({mistakes.max()})" if mistakes.any() else ""
        figures = [str(row["count"]), *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1"))]
        table.add_row(Text(name), *figures, Text(other))
    console.print(table)


def open_split(classifier: Classifier, *, split: str, data: Path | None) -> Split:
    """The records to measure on: a split of the run's own data, or all of another folder, archive or table."""
    if data is not None:
        return open_labelled(data, classifier.classes, classifier.config)
    opened = open_data(classifier.config)
    if opened.classes != classifier.classes:
        here = ", ".join(opened.classes)
        raise ConfigError(f"the data now have classes {here}; the run has {', '.join(classifier.classes)}")
    if split not in opened.splits:
        raise ConfigError(f"--split {split}: the data have only {', '.join(opened.splits)}")
    if not len(opened.splits[split]):
        others = [f"--split {name}" for name in reversed(SPLITS) if len(opened.splits.get(name, ()))]
        raise ConfigError(
            f"--split {split}: this run holds nothing out (--config.data.validation_fraction=0); measure it on other"
            f" images with --data DIR, where DIR has a folder for each class, or with {' or '.join(others)}"
            " (it was trained on those of train)"
        )
    records = classifier.meta.records
    before, now = records and records.fingerprint, fingerprint(opened.splits)
    if not classifier.config.data.skip_bad and before not in (None, now):
        logger.warning(
            "the images for training and validation have other names or labels than when the run began: it may "
            "have been trained on some of the images that are measured now"
        )
    return opened.splits[split]


def name_of(data: Path) -> str:
    """Name of the files of an evaluation on another folder; never the name of a split."""
    folder = data.resolve()
    return f"{folder.parent.name}-{folder.name}" if folder.name in SPLITS else folder.name
