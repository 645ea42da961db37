"""The quickstart's main job: learn printed letters, transfer to handwritten digits, and compare with baselines.

    python scripts/digits_demo.py --workdir runs/digits [--baselines]

Trains the variants of configs/digits.py (`source` on letters, the others on 100 images of handwritten digits) and the
same head on an untrained backbone. Tests them on digits not used in training or validation, prints a table and writes
results.json. --baselines adds a second seed, logistic regression on pixels and the whole network from scratch. If run
again, finished runs are not trained twice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression

import jaxcat
from jaxcat import flags
from jaxcat.data.sources import open_data
from jaxcat.data.store import Store, open_stores
from jaxcat.data.streaming import Streaming
from jaxcat.inference.evaluation import evaluate
from jaxcat.system import cli
from jaxcat.system.compilation import enable_compilation_cache
from jaxcat.system.devices import make_mesh
from jaxcat.train import train

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "digits.py"
EXAMPLES = 8


def config_of(variant: str, **changes: object) -> ConfigDict:
    config = flags.read_config(f"{CONFIG}:{variant}", [])
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


def run(config: ConfigDict, workdir: Path, *, aloud: bool, heading: str) -> None:
    """Train, with the output in the workdir's log.txt unless `aloud`."""
    print(f"\n== {heading}" if aloud else f"   {heading} …", flush=True)
    workdir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if not aloud:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(workdir / "log.txt", "w"))))
        train(config, workdir)


def stores_of(config: ConfigDict, *names: str) -> dict[str, Store]:
    splits = open_data(config).splits
    sizes = dict.fromkeys(names, config.data.image_size)
    return open_stores({name: splits[name] for name in names}, sizes=sizes, mode="squash", cache_gb=1.0)


def tested(workdir: Path, *, aloud: bool) -> tuple[float, float]:
    """(accuracy on the test split, seconds of all epochs) of the last step: no choice is made on validation."""
    classifier = jaxcat.load(workdir, step="latest")
    (store,) = stores_of(classifier.config, "test").values()
    predicted = evaluate(classifier, store).argmax(axis=1)
    accuracy = float((predicted == store.split.labels).mean())
    if aloud:
        print(f"accuracy on {len(store):,} test images: {accuracy:.3f}", flush=True)
    return accuracy, sum(entry["seconds"] for entry in classifier.meta.history)


def pixels_tested(config: ConfigDict) -> tuple[float, float]:
    """The same for logistic regression on pixels, 25×25 of them, of the same augmented views."""
    began, source = time.perf_counter(), Streaming(config, open_data(config), mesh=make_mesh())
    source.prepare(Console(quiet=True))
    images, labels = [], []
    for epoch in range(config.epochs):
        for batch in source.train(epoch, first=0):
            mask = np.asarray(batch["mask"])
            images.append(np.asarray(batch["image"])[mask])
            labels.append(np.asarray(batch["label"])[mask])
    model = LogisticRegression(max_iter=2000).fit(shrink(np.concatenate(images)), np.concatenate(labels))
    (test,) = stores_of(config, "test").values()
    accuracy = model.score(shrink(test.gather(np.arange(len(test)))), test.split.labels)
    return float(accuracy), time.perf_counter() - began


def shrink(images: np.ndarray) -> np.ndarray:
    """uint8 (N, 75, 75, 3) → float (N, 625), means of 3×3 pixels of one channel."""
    return images[..., 0].reshape(-1, 25, 3, 25, 3).mean(axis=(2, 4)).reshape(len(images), -1) / 255


def write_examples(workdir: Path, config: ConfigDict) -> None:
    """A few test digits as PNG files, for `jaxcat.predict`; the names say what they are."""
    split, folder = open_data(config).splits["test"], workdir / "examples"
    folder.mkdir(exist_ok=True)
    for index in np.linspace(0, len(split) - 1, EXAMPLES).astype(int):
        name = split.files[index].replace("/", "_")
        Image.fromarray(split.fetch(index)).save(folder / f"{name}_is_{split.labels[index]}.png")


def draw_images(path: Path, workdir: Path, *, count: int = 12) -> None:
    """A PNG: print that the backbone learned, and handwriting with what the classifier of `workdir` takes it for."""
    classifier = jaxcat.load(workdir, step="latest")
    rows = (open_data(config_of("source")).splits["train"], open_data(classifier.config).splits["test"])
    figure = Figure(figsize=(count, 2.6), layout="constrained")
    for row, (split, axes) in enumerate(zip(rows, figure.subplots(2, count), strict=True)):
        images = [split.fetch(index) for index in np.linspace(0, len(split) - 1, count).astype(int)]
        answers = classifier.predict(images).argmax(axis=1)
        for axis, image, answer in zip(axes, images, answers, strict=True):
            axis.imshow(image)
            axis.set_axis_off()
            axis.set_title(classifier.classes[answer] if row else "", fontsize=10)
    figure.savefig(path, dpi=72)


def learn(root: Path, *, seed: int, aloud: bool, baselines: bool) -> dict[str, tuple[float, float]]:
    """Name of each way to learn the digits → its (test accuracy, seconds of training)."""
    source = str(root / "source")
    transfer, finetune = root / f"transfer-{seed}", root / f"finetune-{seed}"
    untrained, scratch = root / f"untrained-{seed}", root / f"scratch-{seed}"
    config, results = config_of("transfer", seed=seed, init_from=source), {}
    run(config, transfer, aloud=aloud, heading="a new head for ten digits, the letters' backbone frozen")
    results["head on the letters' backbone, frozen"] = tested(transfer, aloud=aloud)
    tuned = config_of("finetune", seed=seed, init_from=str(transfer))
    run(tuned, finetune, aloud=aloud, heading="fine-tune the blocks above the stem as well")
    results["the same, blocks above the stem fine-tuned"] = tested(finetune, aloud=aloud)
    if aloud:
        print("\n== for comparison", flush=True)
        write_examples(root, config)
    bare = config_of("transfer", seed=seed, init_from="")
    run(bare, untrained, aloud=False, heading=f"seed {seed}: the head on an untrained backbone")
    results["head on an untrained backbone"] = tested(untrained, aloud=False)
    if baselines:
        results["logistic regression on pixels"] = pixels_tested(config)
        whole = config_of("transfer", seed=seed, init_from="", model__train_from="stem", model__train_bn=True)
        run(whole, scratch, aloud=False, heading=f"seed {seed}: the whole network from scratch")
        results["the whole network from scratch"] = tested(scratch, aloud=False)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=cli.path, default=Path("runs/digits"))
    parser.add_argument("--baselines", action="store_true", help="a second seed and two more ways to learn the digits")
    arguments = parser.parse_args()
    enable_compilation_cache()
    root, began = arguments.workdir.absolute(), time.perf_counter()
    run(config_of("source"), root / "source", aloud=True, heading="learn printed letters from scratch")
    seeds = range(2 if arguments.baselines else 1)
    results = [learn(root, seed=seed, aloud=seed == 0, baselines=arguments.baselines) for seed in seeds]

    table = Table("trained on 100 handwritten digits", "test accuracy", "seconds", box=None, pad_edge=False)
    for name in results[0]:
        accuracies, seconds = zip(*(result[name] for result in results), strict=True)
        table.add_row(name, " ".join(f"{value:.3f}" for value in accuracies), f"{np.mean(seconds):.0f}")
    print()
    Console(highlight=False).print(table)
    (root / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw_images(root / "examples.png", root / "finetune-0")
    print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
