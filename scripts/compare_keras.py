"""The article's recipe in Keras and in jaxcat, side by side, on the same pictures and weights.

    python scripts/compare_keras.py --data DIR --weights FILE.h5 --seeds 3 --epochs 8 --output runs/compare

DIR holds train/CLASS/ and validation/CLASS/. For every seed the two frameworks run one after the other, each in a
process of its own, so that drift of the machine's speed hits both. What a run measured is kept under --output, so an
interrupted comparison continues where it stopped. Prints a table and writes comparison.json and comparison.md there.

The Keras side is the article's program: InceptionV3 cut at mixed7 and frozen, Flatten, Dense 1024, Dropout 0.2,
Dense 1 with a sigmoid, binary cross-entropy, RMSprop 1e-4, ImageDataGenerator batches of 20 at 150 px. The jaxcat side
is configs/cats_vs_dogs.py:article_mixed7 with nothing but the seed, epochs, pictures and weights set.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent


def train_keras(data: Path, weights: Path, *, seed: int, epochs: int, log: Path) -> None:
    """Train the article's Keras recipe; append one JSON object per epoch to `log`."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    generator = tf.keras.preprocessing.image.ImageDataGenerator
    training = generator(
        rescale=1 / 255,
        rotation_range=40,
        width_shift_range=0.2,
        height_shift_range=0.2,
        shear_range=0.2,
        zoom_range=0.2,
        horizontal_flip=True,
    ).flow_from_directory(data / "train", (150, 150), batch_size=20, class_mode="binary", seed=seed)
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

    started = time.perf_counter()
    with open(log, "w") as file:

        class Log(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                self.began = time.perf_counter()

            def on_epoch_end(self, epoch, logs=None):
                now = time.perf_counter()
                record = {
                    "epoch": epoch + 1,
                    "train/accuracy": float(logs["accuracy"]),
                    "train/loss": float(logs["loss"]),
                    "validation/accuracy": float(logs["val_accuracy"]),
                    "validation/loss": float(logs["val_loss"]),
                    "seconds": now - self.began,
                    "wall_seconds": now - started,
                }
                file.write(json.dumps(record) + "\n")
                file.flush()

        model.fit(training, validation_data=validation, epochs=epochs, verbose=0, callbacks=[Log()])


def train_jaxcat(data: Path, weights: Path, *, seed: int, epochs: int, workdir: Path) -> None:
    """Run the command a user would type."""
    command = [sys.executable, "-m", "jaxcat.train"]
    command += ["--config", str(REPOSITORY / "configs/cats_vs_dogs.py:article_mixed7"), "--workdir", str(workdir)]
    command += [f"--config.data.dir={data}", f"--config.model.weights={weights}"]
    command += [f"--config.seed={seed}", f"--config.epochs={epochs}"]
    subprocess.run(command, check=True, cwd=REPOSITORY)


def read_epochs(log: Path, epochs: int) -> list[dict]:
    """The first `epochs` epoch records of a run, or fewer when it has not got that far."""
    if not log.exists():
        return []
    records = [json.loads(line) for line in log.read_text().splitlines() if line.strip()]
    return [record for record in records if record.get("event", "epoch") == "epoch"][:epochs]


def table(results: dict[str, list[list[dict]]], last: int = 5) -> str:
    """Markdown: accuracy by seed and epoch, mean and standard deviation of the last epochs, seconds an epoch."""
    epochs = len(next(iter(results.values()))[0])
    lines = ["| run | " + " | ".join(f"ep {e + 1}" for e in range(epochs)) + f" | mean of last {last} | s/epoch |"]
    lines.append("|" + "---|" * (epochs + 3))
    for name, runs in results.items():
        for seed, run in enumerate(runs):
            accuracy = [record["validation/accuracy"] for record in run]
            seconds = float(np.median([record["seconds"] for record in run]))
            cells = " | ".join(f"{value:.3f}" for value in accuracy)
            lines.append(f"| {name} seed {seed} | {cells} | {np.mean(accuracy[-last:]):.4f} | {seconds:.0f} |")
    lines.append("")
    for name, runs in results.items():
        final = np.array([[record["validation/accuracy"] for record in run][-last:] for run in runs])
        seconds = np.median([record["seconds"] for run in runs for record in run])
        lines.append(
            f"{name}: validation accuracy {final.mean():.4f} ± {final.std(ddof=1):.4f} "
            f"(last {last} epochs × {len(runs)} seeds), median {seconds:.0f} s an epoch"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/CLASS/ and validation/CLASS/")
    parser.add_argument("--weights", type=Path, required=True, help="Inception-v3 without top, Keras legacy HDF5")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("runs/compare"))
    parser.add_argument("--only", choices=["keras", "jaxcat"], help="run one of the two; the table needs both")
    parser.add_argument("--keras-worker", type=int, metavar="SEED", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    data, weights, output = (p.resolve() for p in (arguments.data, arguments.weights, arguments.output))
    output.mkdir(parents=True, exist_ok=True)
    if arguments.keras_worker is not None:
        seed = arguments.keras_worker
        train_keras(data, weights, seed=seed, epochs=arguments.epochs, log=output / f"keras_{seed}.jsonl")
        return

    results: dict[str, list[list[dict]]] = {}
    for seed in range(arguments.seeds):
        logs = {"keras": output / f"keras_{seed}.jsonl", "jaxcat": output / f"jaxcat_{seed}" / "metrics.jsonl"}
        for name, log in logs.items():
            if arguments.only not in (None, name):
                continue
            if len(read_epochs(log, arguments.epochs)) < arguments.epochs:
                print(f"{name} seed {seed}: {arguments.epochs} epochs", flush=True)
                if name == "keras":
                    subprocess.run([sys.executable, __file__, *sys.argv[1:], "--keras-worker", str(seed)], check=True)
                else:
                    train_jaxcat(data, weights, seed=seed, epochs=arguments.epochs, workdir=log.parent)
            results.setdefault(name, []).append(read_epochs(log, arguments.epochs))
    text = table(results)
    (output / "comparison.json").write_text(json.dumps(results, indent=1))
    (output / "comparison.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
