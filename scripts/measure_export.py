"""Exports classifiers in every format and prints the table of docs/export.md.

    python scripts/measure_export.py --run fast=runs/fast --run 299=runs/whole [--random] [--formats onnx,litert]

For each format and type of weights: size, seconds to write, the largest difference of a probability from jaxcat on the
CPU, changed answers on validation, and milliseconds an image one at a time and 20 together, on all cores: medians of
--repetitions. --random adds two networks of random arrays: Inception-v3 with 1,000 classes, and VGG-19. --keras adds
Keras's InceptionV3, converted by TensorFlow's own converter. Core ML files are only written: they run on macOS.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcat.bottlenecks.engines.names import XLA
from jaxcat.config import default
from jaxcat.errors import ConfigError
from jaxcat.export.examples import MOST, examples_of, generated
from jaxcat.export.formats import FORMATS
from jaxcat.export.network import exported
from jaxcat.export.parity import Expected, measured
from jaxcat.inference.classifier import Classifier, load
from jaxcat.models.completion import complete
from jaxcat.models.network import Network
from jaxcat.models.preprocessing import Conventions
from jaxcat.runs.first_meta import new_meta
from jaxcat.runs.restore import Restored, network_of
from jaxcat.system import cli
from jaxcat.system.console import Console
from jaxcat.system.devices import make_mesh, place_replicated

TOGETHER = 20
HEADER = ("network", "format", "weights", "MB", "seconds", "max abs Δp", "answers changed", "ms, 1", f"ms, {TOGETHER}")


class Row(NamedTuple):
    """One line of the table."""

    network: str
    format: str
    weights: str
    size: float = 0.0  # MB
    seconds: float = 0.0
    probability: float | None = None
    changed: str = "–"
    one: float | None = None  # milliseconds
    together: float | None = None

    def __str__(self) -> str:
        difference = "–" if self.probability is None else f"{self.probability:.1e}"
        times = ("–" if each is None else f"{each:.0f}" for each in (self.one, self.together))
        cells = (self.network, self.format, self.weights, f"{self.size:.1f}", f"{self.seconds:.1f}", difference)
        return f"| {' | '.join((*cells, self.changed, *times))} |"


def rows_of(name: str, classifier: Classifier, formats: Sequence[str], *, repetitions: int, most: int) -> Iterator[Row]:
    """Yields jaxcat itself, then every format with every type of weights."""
    network, console = exported(classifier), Console(stderr=True)
    expected = Expected(classifier, examples_of(classifier, most=most), console=console)
    images = generated(TOGETHER, network.image_size)

    def jaxcat(images: np.ndarray) -> None:
        for _ in classifier.xla.outputs(iter(images), batch_size=len(images), features=False):
            pass

    yield Row(name, "jaxcat (XLA)", "float32", **times_of(jaxcat, images, repetitions))
    for format in formats:
        row = FORMATS[format]
        for weights in row.weights:
            with tempfile.TemporaryDirectory() as folder:
                path, begin = Path(folder) / f"file{row.suffix}", time.perf_counter()
                try:
                    row.writer().write(path, network, weights=weights)
                except ConfigError:  # it cannot hold this network
                    continue
                made = Row(name, format, weights, size_of(path), time.perf_counter() - begin)
                if (run := row.writer().opened(path, network)) is None:
                    yield made
                    continue
                parity = measured(expected, run, weights=weights)
                counted = "; ".join(f"{each.answers} of {each.images} ({each.engine})" for each in parity.changed)
                times = times_of(run, images, repetitions)
                yield made._replace(probability=parity.probability, changed=counted or "–", **times)


def times_of(run: Callable[[np.ndarray], Any], images: np.ndarray, repetitions: int) -> dict[str, float]:
    """Milliseconds an image, one at a time and all together."""
    found = {}
    for name, batch in (("one", images[:1]), ("together", images)):
        run(batch)
        seconds = []
        for _ in range(repetitions):
            begin = time.perf_counter()
            run(batch)
            seconds.append(time.perf_counter() - begin)
        found[name] = 1000 * statistics.median(seconds) / len(batch)
    return found


def size_of(path: Path) -> float:
    """Megabytes of a file or a folder."""
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file()) / 1e6


def random_classifier(backbone: str, classes: int) -> Classifier:
    """A whole network of random arrays with as many classes."""
    config = default()
    config.model.backbone, config.model.weights, config.data.image_size = backbone, "none", 0
    complete(config)
    names = tuple(f"class {i}" for i in range(classes))
    meta = new_meta(config, names, conventions=Conventions(), provenance={"source": "random"})
    network: Network = network_of(meta)
    frozen, trained = place_replicated(make_mesh(), network.split(*network.initialize(0)))
    return Classifier(meta, restore=lambda: Restored(meta, network, frozen, trained))


def of_keras(repetitions: int) -> Row:
    """Keras's own network, as TensorFlow converts it by itself."""
    import keras
    import tensorflow as tf

    from jaxcat.bottlenecks.engines.litert import cores, required_interpreter

    model = keras.applications.InceptionV3(weights=None, include_top=False, pooling="avg", input_shape=(299, 299, 3))
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        model.export(folder, verbose=False)
        content = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
        seconds = time.perf_counter() - begin
    interpreter = required_interpreter().Interpreter(model_content=content, num_threads=cores())
    interpreter.allocate_tensors()
    place = interpreter.get_input_details()[0]["index"]

    def run(images: np.ndarray) -> None:
        for image in images:
            interpreter.set_tensor(place, np.float32(image[None]) / 255)
            interpreter.invoke()

    times = times_of(run, generated(TOGETHER, 299), repetitions)
    return Row("Keras's InceptionV3, 299", "litert, by its converter", "float32", len(content) / 1e6, seconds, **times)


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(
        prog="measure_export.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", action="append", default=[], metavar="NAME=DIR", help="a name and the workdir of a run"
    )
    parser.add_argument("--random", action="store_true", help="also two networks of random arrays")
    parser.add_argument("--keras", action="store_true", help="also Keras's network by TensorFlow's converter")
    every = ",".join(name for name in FORMATS if name != "web")  # whose network is that of onnx
    parser.add_argument("--formats", default=every, help=f"default: {every}")
    parser.add_argument("--repetitions", type=int, default=11, help="of every measurement of time; default: 11")
    parser.add_argument("--images", type=int, default=MOST, help=f"validation images, at most; default: {MOST}")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    made: list[tuple[str, Callable[[], Classifier]]] = []
    for each in arguments.run:
        name, _, folder = each.partition("=")
        made.append((name, lambda folder=folder: load(Path(folder), engine=XLA)))
    if arguments.random:
        made.append(("1,000 classes, 299", lambda: random_classifier("inception_v3", 1000)))
        made.append(("VGG-19, 10 classes", lambda: random_classifier("vgg19", 10)))
    for name, make in made:
        for row in rows_of(
            name, make(), arguments.formats.split(","), repetitions=arguments.repetitions, most=arguments.images
        ):
            print(row, flush=True)
        jax.clear_caches()
    if arguments.keras:
        print(of_keras(arguments.repetitions), flush=True)
    return 0


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
