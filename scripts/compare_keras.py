"""The article's recipe in Keras and in jaxcat, side by side, on the same images and weights.

    python scripts/compare_keras.py --data DIR --weights FILE.h5 --seeds 3 --epochs 8 --output runs/compare

DIR holds train/CLASS/ and validation/CLASS/. For every seed the runs follow one another, each in a process of its own,
so that changes in the machine's speed affect all of them. What a run measured is kept under --output, so an interrupted
comparison continues where it stopped. Prints a table and writes comparison.json, comparison.md and comparison.png to
--output.

--runs chooses from
    keras           the article's program: InceptionV3 cut at mixed7 and frozen, Flatten, Dense 1024, Dropout 0.2,
                    Dense 1 with a sigmoid, binary cross-entropy, RMSprop 1e-4, ImageDataGenerator batches of 20 at 150
    article_mixed7  the same in jaxcat, configs/cats_vs_dogs.py:article_mixed7, streaming
    fast, best      configs/cats_vs_dogs.py:fast and :best with an empty cache: no bottlenecks, no compiled programs
    fast-again, best-again  the same commands in other workdirs, with the caches that these left

jaxcat scales pixels to [0, 1] in all of them, as the article does and as the weights of docs/benchmarks.md need it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from benchmarking.article import AUGMENTATION
from matplotlib.figure import Figure

REPOSITORY = Path(__file__).resolve().parent.parent
SOLVED = ("fast", "best")  # variants with an exact head, which have one epoch
RUNS = ("keras", "article_mixed7", *SOLVED, *(f"{variant}-again" for variant in SOLVED))


def train_keras(data: Path, weights: Path, *, seed: int, epochs: int, log: Path) -> None:
    """Train the article's Keras recipe; one JSON object per epoch in `log`."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    generator = tf.keras.preprocessing.image.ImageDataGenerator
    training = generator(**AUGMENTATION).flow_from_directory(
        data / "train", (150, 150), batch_size=20, class_mode="binary", seed=seed
    )
    validation = generator(rescale=1 / 255).flow_from_directory(
        data / "validation", (150, 150), batch_size=20, class_mode="binary", shuffle=False
    )
    backbone = keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(150, 150, 3))
    backbone.load_weights(weights)
    backbone.trainable = False
    x = keras.layers.Flatten()(backbone.get_layer("mixed7").output)
    x = keras.layers.Dense(1024, activation="relu")(x)
    x = keras.layers.Dropout(0.2)(x)
    model = keras.Model(backbone.input, keras.layers.Dense(1, activation="sigmoid")(x))
    model.compile(loss="binary_crossentropy", optimizer=keras.optimizers.RMSprop(1e-4), metrics=["accuracy"])

    with open(log, "w") as file:

        class Log(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                self.began = time.perf_counter()

            def on_epoch_end(self, epoch, logs=None):
                entry = {
                    "event": "epoch",
                    "epoch": epoch + 1,
                    "train/accuracy": float(logs["accuracy"]),
                    "train/loss": float(logs["loss"]),
                    "validation/accuracy": float(logs["val_accuracy"]),
                    "validation/loss": float(logs["val_loss"]),
                    "seconds": time.perf_counter() - self.began,
                }
                file.write(json.dumps(entry) + "\n")
                file.flush()

        model.fit(training, validation_data=validation, epochs=epochs, verbose=0, callbacks=[Log()])


def variant_of(name: str) -> str:
    """The variant of configs/cats_vs_dogs.py that a run of jaxcat has."""
    return name.removesuffix("-again")


def command_of(name: str, arguments: argparse.Namespace, *, seed: int, folder: Path) -> tuple[list[str], Path]:
    """The command of a run, and the file in which its epochs appear."""
    if name == "keras":
        log = folder / "metrics.jsonl"
        words = [__file__, "--data", arguments.data, "--weights", arguments.weights, "--epochs", arguments.epochs]
        return [sys.executable, *map(str, words), "--keras-worker", str(seed), "--output", str(log)], log
    variant = variant_of(name)
    words = ["-m", "jaxcat.train", "--config", f"{REPOSITORY / 'configs/cats_vs_dogs.py'}:{variant}"]
    words += ["--workdir", str(folder / "run"), f"--config.seed={seed}"]
    words += [f"--config.data.dir={arguments.data}", f"--config.model.weights={arguments.weights}"]
    words += ["--config.model.preprocessing=zero_one"]
    words += [] if variant in SOLVED else [f"--config.epochs={arguments.epochs}"]
    return [sys.executable, *words], folder / "run" / "metrics.jsonl"


def run_and_watch(command: list[str], log: Path, *, cache: Path) -> dict[str, Any]:
    """Run a command; its epochs with the seconds from its start at which each appeared, and how long all of it took."""
    began, appeared = time.perf_counter(), []
    with subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, "JAXCAT_CACHE": str(cache)}) as process:
        while process.poll() is None:
            found = len(epochs_in(log)) if log.exists() else 0
            appeared += [time.perf_counter() - began] * (found - len(appeared))
            time.sleep(0.02)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    entries = epochs_in(log)
    appeared += [seconds] * (len(entries) - len(appeared))
    epochs = [entry | {"wall_seconds": wall} for entry, wall in zip(entries, appeared, strict=True)]
    return {"epochs": epochs, "seconds": seconds}


def epochs_in(log: Path) -> list[dict[str, Any]]:
    """The epochs in a metrics.jsonl, as far as it is written; other events are left out."""
    lines = log.read_text().split("\n")[:-1]
    return [entry for entry in map(json.loads, lines) if entry["event"] == "epoch"]


def accuracies(run: dict[str, Any]) -> list[float]:
    return [entry["validation/accuracy"] for entry in run["epochs"]]


def seconds_to(run: dict[str, Any], accuracy: float) -> float | None:
    """When the run reached a validation accuracy that it held to its end; None if it did not."""
    reached = None
    for entry in run["epochs"]:
        if entry["validation/accuracy"] < accuracy:
            reached = None
        elif reached is None:
            reached = entry["wall_seconds"]
    return reached


def table(results: dict[str, list[dict]], last: int = 5) -> str:
    """Markdown: accuracy by seed and epoch, mean and standard deviation of the last epochs, seconds."""
    trained = {name: runs for name, runs in results.items() if variant_of(name) not in SOLVED}
    shown = max((len(run["epochs"]) for runs in trained.values() for run in runs), default=0)
    lines = ["| run | " + " | ".join(f"ep {e + 1}" for e in range(shown)) + f" | mean of last {last} | s/epoch |"]
    lines.append("|" + "---|" * (shown + 3))
    for name, runs in trained.items():
        for seed, run in enumerate(runs):
            cells = " | ".join(f"{value:.3f}" for value in accuracies(run))
            seconds = np.median([entry["seconds"] for entry in run["epochs"]])
            lines.append(f"| {name} seed {seed} | {cells} | {np.mean(accuracies(run)[-last:]):.4f} | {seconds:.0f} |")
    wanted = float(np.mean([accuracies(run)[-last:] for run in results["keras"]])) if "keras" in results else None
    lines += ["", f"| run | last {last} epochs, all seeds | epochs | s/epoch | whole command, s | s to Keras's mean |"]
    lines.append("|" + "---|" * 6)
    for name, runs in results.items():
        final = np.array([accuracies(run)[-last:] for run in runs])
        seconds = np.median([entry["seconds"] for run in runs for entry in run["epochs"]])
        whole = ", ".join(f"{run['seconds']:.1f}" for run in runs)
        times = [None if wanted is None else seconds_to(run, wanted) for run in runs]
        reached = ", ".join("–" if value is None else f"{value:.1f}" for value in times)
        spread = f"{final.mean():.4f}" + (f" ± {final.std(ddof=1):.4f}" if final.size > 1 else "")
        lines.append(f"| {name} | {spread} | {len(runs[0]['epochs'])} | {seconds:.1f} | {whole} | {reached} |")
    return "\n".join(lines)


def draw(results: dict[str, list[dict]], path: Path) -> None:
    """A PNG of validation accuracy against seconds since the command was typed, logarithmic, a line a run."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for (name, runs), colour in zip(results.items(), matplotlib.color_sequences["tab10"], strict=False):
        for number, run in enumerate(runs):
            seconds = [entry["wall_seconds"] for entry in run["epochs"]]
            label = "Keras" if name == "keras" else f"jaxcat {name.replace('-again', ', filled cache')}"
            axes.plot(seconds, accuracies(run), marker=".", color=colour, alpha=0.7, label=None if number else label)
    axes.set_xscale("log")
    axes.set_xlabel("seconds since the command was typed")
    axes.set_ylabel("validation accuracy")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/CLASS/ and validation/CLASS/")
    parser.add_argument("--weights", type=Path, required=True, help="Inception-v3 without top, Keras legacy HDF5")
    parser.add_argument("--runs", default="keras,article_mixed7", help="comma-separated; see above")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8, help="of keras and article_mixed7")
    parser.add_argument("--output", type=Path, default=Path("runs/compare"))
    parser.add_argument("--keras-worker", type=int, metavar="SEED", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.data, arguments.weights, output = (
        path.resolve() for path in (arguments.data, arguments.weights, arguments.output)
    )
    if arguments.keras_worker is not None:
        seed, epochs = arguments.keras_worker, arguments.epochs
        return train_keras(arguments.data, arguments.weights, seed=seed, epochs=epochs, log=output)
    names = arguments.runs.split(",")
    if unknown := set(names) - set(RUNS):
        parser.error(f"--runs {arguments.runs}: {', '.join(sorted(unknown))} unknown; choose from {', '.join(RUNS)}")

    results: dict[str, list[dict]] = {}
    for seed in range(arguments.seeds):
        for name in names:
            folder, cache = output / f"{name}_{seed}", output / f"cache_{variant_of(name)}_{seed}"
            kept = folder / "result.json"
            if not kept.exists():
                print(f"{name} seed {seed}", flush=True)
                for left_over in [folder, *([cache] if name in SOLVED else [])]:
                    shutil.rmtree(left_over, ignore_errors=True)
                folder.mkdir(parents=True)
                command, log = command_of(name, arguments, seed=seed, folder=folder)
                kept.write_text(json.dumps(run_and_watch(command, log, cache=cache)))
            results.setdefault(name, []).append(json.loads(kept.read_text()))
    text = table(results)
    (output / "comparison.json").write_text(json.dumps(results, indent=1))
    (output / "comparison.md").write_text(text + "\n")
    draw(results, output / "comparison.png")
    print(text)


if __name__ == "__main__":
    main()
