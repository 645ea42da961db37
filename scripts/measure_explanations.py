"""Measures heat maps on real photographs, and prints the tables of docs/report.md.

    python scripts/measure_explanations.py --weights FILE.h5 --images DIR --run fast=runs/fast [--run …]

1. Parity: Grad-CAM by jaxcat against Keras's layers and TensorFlow's GradientTape, the same numbers in both, on every
   kind of head. The backbone is that of --weights, which was trained on pixels in [0, 1]; heads are random; trained
   blocks have changed numbers. VGG-19 has random numbers. Each --run is compared with its own head and image size.
   Differences are the largest of an image, of the largest value of its map: in float64; in float32, the median and the
   largest of all images; and the largest of Keras in float32 from Keras in float64.
2. The test with random numbers (Adebayo et al., arXiv:1810.03292) on each --run: the head, then the blocks from the
   last to the first, and an edge detector that must fail it. Shown are rank correlations with the true maps: with a
   random head, for each of two seeds; from the smallest to the largest with blocks too; and the largest share of
   images, at a step, whose maps have one value.
3. Seconds an image.

--parity and --randomized say how many photographs each takes, drawn from DIR by a seed; with 0 it is left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import numpy as np
from explaining import randomized
from explaining.double import maps_in_float64

from jaxcat.bottlenecks.engines.names import XLA
from jaxcat.config import default
from jaxcat.data.indexing.skipped import Skipped
from jaxcat.data.indexing.walking import image_files
from jaxcat.inference.classifier import Classifier, load
from jaxcat.models.completion import complete
from jaxcat.models.network import Network, Tree
from jaxcat.models.preprocessing import BGR_MINUS_MEANS, ZERO_TO_ONE, Conventions
from jaxcat.runs.first_meta import new_meta
from jaxcat.runs.restore import Restored, network_of
from jaxcat.system import cli
from jaxcat.system.devices import make_mesh, place_replicated
from jaxcat.weights.load import load_pretrained

SEEDS = (0, 1)  # of the random numbers in the second table


class Kind(NamedTuple):
    """One line of the first table: settings of the model, a block, and the number of classes."""

    name: str
    settings: dict[str, Any]
    block: str = ""
    classes: int = 2


INCEPTION = (
    Kind("average of one block, one logit", {"cut": "mixed7"}),
    Kind("average of one block, a block before it", {"cut": "mixed7"}, "mixed3", 5),
    Kind("averages of several blocks", {"cut": "mixed7", "pool_from": "mixed0"}, "mixed4", 5),
    Kind(
        "averages and deviations of several blocks",
        {"cut": "mixed9", "pool_from": "stem", "pool": "avg_std"},
        "mixed2",
    ),
    Kind("the same, the last of them", {"cut": "mixed9", "pool_from": "stem", "pool": "avg_std"}, "", 5),
    Kind("maximum", {"cut": "mixed10", "pool": "max", "pool_from": "mixed8"}, "mixed8", 5),
    Kind("grid of 3 × 3, averages and deviations", {"cut": "mixed7", "pool": "avg_std", "pool_grid": 3}, "", 5),
    Kind("flattened, hidden layer", {"cut": "mixed7", "pool": "flatten", "hidden": 64}),
    Kind("trained blocks, hidden layer", {"cut": "mixed10", "train_from": "mixed8", "hidden": 64}, "mixed9", 5),
)
VGG = (
    Kind("VGG-19, averages and deviations", {"cut": "block5", "pool_from": "block3", "pool": "avg_std"}, "block4"),
    Kind("VGG-19, flattened, hidden layer", {"cut": "block4", "pool": "flatten", "hidden": 64}, "", 5),
)


def classifier_of(kind: Kind, *, weights: str, size: int) -> Classifier:
    """A classifier of this kind on the backbone of `weights`; without a name of weights, all numbers are random."""
    config = default()
    config.model.update({"backbone": "inception_v3" if weights else "vgg19", "weights": weights or "none"})
    config.model.update(kind.settings)
    config.data.image_size = size
    complete(config)
    loaded = load_pretrained(weights, cut=config.model.cut) if weights else None
    preprocessing = ZERO_TO_ONE if loaded else BGR_MINUS_MEANS
    counts = loaded is not None and loaded.conventions.pool_counts_padding
    meta = new_meta(
        config,
        tuple(f"class {number}" for number in range(kind.classes)),
        conventions=Conventions(preprocessing, pool_counts_padding=counts),
        provenance=loaded.provenance if loaded else {"source": "scratch"},
    )
    network = network_of(meta)
    frozen, trained = place_replicated(make_mesh(), network.split(*numbers_of(network, loaded)))
    restored = Restored(meta, network, frozen, trained)
    return Classifier(meta, restore=lambda: restored, engine=XLA)


def numbers_of(network: Network, loaded: Any) -> tuple[Tree, Tree]:
    """The numbers of the loaded weights, those of trained blocks a little changed, and random ones elsewhere."""
    params, stats = network.initialize(0)
    generator = np.random.default_rng(0)
    for block in network.blocks if loaded else ():
        params[block], stats[block] = loaded.params[block], loaded.stats[block]
        if network.label(block) == "backbone":
            params[block] = jax.tree.map(
                lambda leaf: leaf * generator.normal(1, 0.1, leaf.shape).astype(np.float32), params[block]
            )
    return params, stats


def prepared(classifier: Classifier, paths: Sequence[Path]) -> np.ndarray:
    return np.stack([classifier.prepare(path) for path in paths])


def parity(name: str, classifier: Classifier, paths: Sequence[Path], *, block: str = "") -> str:
    """A line of the first table."""
    from explaining.keras_oracle import KerasGradCam

    model = classifier.config.model
    pixels, block = prepared(classifier, paths), block or model.cut
    labels = np.arange(len(paths)) % len(classifier.classes)
    numbers, hidden = randomized.numbers_of(classifier), ("hidden",) if model.hidden else ()
    inputs = classifier.meta.conventions.preprocessing.normalize(pixels)
    theirs = {}
    for dtype in ("float32", "float64"):
        oracle = KerasGradCam(classifier.config, *numbers, hidden=hidden, dtype=dtype)
        batches = (slice(start, start + 2) for start in range(0, len(paths), 2))
        theirs[dtype] = np.concatenate([oracle.maps(inputs[rows], labels[rows], block=block) for rows in batches])
    ours = {
        "float32": np.stack(list(classifier.xla.raw_maps(pixels, labels, block=block))),
        "float64": maps_in_float64(classifier, pixels, labels, block=block),
    }
    exact = theirs["float64"]
    largest = exact.max(axis=(1, 2))
    shown = largest > 0
    assert all((maps[~shown] == 0).all() for maps in (*ours.values(), *theirs.values()))

    def differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.abs(first - second).max(axis=(1, 2))[shown] / largest[shown]

    found = differences(ours["float32"], theirs["float32"])
    figures = (
        differences(ours["float64"], exact).max(),
        np.median(found),
        found.max(),
        differences(theirs["float32"], exact).max(),
    )
    side = "×".join(map(str, exact.shape[1:]))
    cells = " | ".join(f"{figure:.0e}" for figure in figures)
    return f"| {name} | {block}, {side} | {cells} | {(~shown).sum()} |"


def randomizing(name: str, classifier: Classifier, paths: Sequence[Path]) -> str:
    """The line of the second table for one run, at the last block that the head reads."""
    pixels, block = prepared(classifier, paths), classifier.config.model.cut
    labels = [int(row.argmax()) for rows in classifier.predict_pixels(pixels) for row in rows]
    numbers, network = randomized.numbers_of(classifier), classifier.network
    explainer = randomized.grad_cam_of(classifier, list(pixels), labels, block=block)
    edges = list(randomized.steps(randomized.edges_of(pixels, explainer(*numbers).shape[1]), network, *numbers, seed=0))
    found = [list(randomized.steps(explainer, network, *numbers, seed=seed)) for seed in SEEDS]
    heads = ", ".join(f"{steps[0].correlation:+.2f}" for steps in found)
    later = [step for steps in found for step in steps[1:]]
    correlations, uniform = [step.correlation for step in later], max(step.uniform for step in later)
    cells = (
        f"{name}, {block}",
        heads,
        f"{min(correlations):+.2f} to {max(correlations):+.2f}",
        f"{uniform:.0%}",
        "passes" if all(map(randomized.depends, found)) else "FAILS",
        f"{min(step.correlation for step in edges):+.2f}, {'passes' if randomized.depends(edges) else 'fails'}",
    )
    return f"| {' | '.join(cells)} |"


def seconds(name: str, classifier: Classifier, paths: Sequence[Path]) -> str:
    """A line of the third table: milliseconds an image of prepared images, after compiling."""
    pixels, block = prepared(classifier, paths), classifier.config.model.cut
    times = []
    for run in (lambda: list(classifier.predict_pixels(pixels, batch_size=8)),
                lambda: list(classifier.xla.raw_maps(pixels, [0] * len(pixels)))):  # fmt: skip
        run()
        begin = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - begin) / len(pixels))
    return f"| {name}, {block} | {times[0]:.0f} | {times[1]:.0f} |"


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(
        prog="measure_explanations.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True, help="Inception-v3 trained on pixels in [0, 1], as Keras's file")
    parser.add_argument("--images", type=cli.path, required=True, metavar="DIR", help="photographs, in any folders")
    parser.add_argument("--run", action="append", default=[], metavar="NAME=DIR", help="a name and a run's workdir")
    parser.add_argument("--parity", type=int, default=10, help="photographs of the first table; default: 10")
    parser.add_argument("--randomized", type=int, default=50, help="photographs of the second; default: 50")
    parser.add_argument("--size", type=int, default=176, help="pixels a side in the first table; default: 176")
    arguments = parser.parse_args(argv)
    paths = list(image_files(arguments.images, Skipped()))
    drawn = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]
    runs = [(name, load(folder, engine=XLA)) for name, _, folder in (each.partition("=") for each in arguments.run)]
    if arguments.parity:
        photographs = drawn[: arguments.parity]
        header = ("head", "block, map", "float64", "float32, median", "float32, largest", "Keras itself", "empty maps")
        print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
        for kind in (*INCEPTION, *VGG):
            weights = "" if kind in VGG else arguments.weights
            classifier = classifier_of(kind, weights=weights, size=arguments.size)
            print(parity(kind.name, classifier, photographs, block=kind.block), flush=True)
            jax.clear_caches()
        for name, classifier in runs:
            print(parity(f"the run {name}", classifier, photographs), flush=True)
    if arguments.randomized:
        photographs = drawn[: arguments.randomized]
        header = ("run, block", "random head", "down to each block", "maps of one value", "the test", "edge detector")
        print(f"\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
        for name, classifier in runs:
            print(randomizing(name, classifier, photographs), flush=True)
    print("\n| run, block | ms for the answer | ms for the map |\n|---|---|---|")
    for name, classifier in runs:
        print(seconds(name, classifier, drawn[:16]), flush=True)
    return 0


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
