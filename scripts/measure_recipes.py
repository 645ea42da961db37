"""What recipes reach and cost: each is trained with several seeds by the train command, one run after the other.

    python scripts/measure_recipes.py --cats DIR --hands DIR2 --weights FILE.h5 --output runs/recipes \
        [--only NAME,NAME] [--seeds 3] [--against NAME]

DIR and DIR2 are folders as `python -m jaxcat.train` takes them. Prints rows of docs/recipes.md, in Markdown: accuracy
on validation after the last epoch (nothing is chosen by validation) as mean ± standard deviation over the seeds, and
minutes of a whole run: the seconds of both cores, divided by two and by 60, so that programs that run beside it disturb
them little. Rows of frozen blocks are kept in OUTPUT/cache. The first seed computes and pays for them, so its minutes
stand in a column of their own. `--against NAME` compares the answers with those of another
recipe of the same images, seed by seed, by McNemar's exact test. Finished runs under OUTPUT are read, not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcat.objectives.paired import mcnemar


class Recipe(NamedTuple):
    """A row: which images (a key of the command line), the config, and settings beside those of the images."""

    images: str
    config: str
    settings: tuple[str, ...] = ()


SMALL = ("data.image_size=176", "model.cut=mixed6", "model.pool_from=mixed0")
RECIPES = {
    "exact-176": Recipe("cats", "folder", (*SMALL, "bottleneck.engine=xla")),
}


def command(recipe: Recipe, *, seed: int, workdir: Path, images: dict[str, Path], weights: Path) -> list[str]:
    """The words of the train command, after `python -m`."""
    given = (f"data.dir={images[recipe.images]}", f"model.weights={weights}", "model.preprocessing=zero_one")
    settings = [f"--config.{setting}" for setting in (*given, *recipe.settings, f"seed={seed}")]
    return ["jaxcat.train", "--config", recipe.config, "--workdir", str(workdir), *settings]


def call(words: list[str], *, cache: Path, log: Path) -> float:
    """Runs a command of jaxcat; the seconds of all cores that it took. Ends this program if it fails."""
    with open(log, "a") as out:
        environment = {**os.environ, "JAXCAT_CACHE": str(cache)}
        process = subprocess.Popen([sys.executable, "-m", *words], env=environment, stdout=out, stderr=out)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)}: failed; see {log}")
    return used.ru_utime + used.ru_stime


def measure(name: str, seed: int, *, output: Path, images: dict[str, Path], weights: Path) -> dict[str, Any]:
    """Accuracies after the last and the best epoch, CPU seconds, and which validation images are answered right."""
    folder = output / f"{name}-{seed}"
    kept, log, run = folder / "result.json", folder / "log.txt", folder / "run"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        words = command(RECIPES[name], seed=seed, workdir=run, images=images, weights=weights)
        before = json.loads((folder / "seconds.json").read_text()) if (folder / "seconds.json").exists() else 0.0
        seconds = before + call(words, cache=output / "cache", log=log)
        (folder / "seconds.json").write_text(json.dumps(seconds))
        call(
            ["jaxcat.evaluate", "--workdir", str(run), "--step", "latest", "--results-dir", str(folder)],
            cache=output / "cache",
            log=log,
        )
        entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        reached = [entry["validation/accuracy"] for entry in entries if entry["event"] == "epoch"]
        with open(folder / "validation.predictions.csv", newline="") as file:
            right = [row["predicted"] == row["label"] for row in csv.DictReader(file)]
        kept.write_text(json.dumps({"last": reached[-1], "best": max(reached), "seconds": seconds, "right": right}))
    return json.loads(kept.read_text())


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f}" + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("cats", "hands"):
        parser.add_argument(f"--{name}", type=Path, help="folder of images")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", default=",".join(RECIPES), help="names of recipes, separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--against", help="name of the recipe that the answers of the others are compared with")
    arguments = parser.parse_args()
    images = {name: folder.resolve() for name in ("cats", "hands") if (folder := getattr(arguments, name))}
    places = {"output": arguments.output.resolve(), "images": images, "weights": arguments.weights.resolve()}
    print("| recipe | accuracy | best epoch | minutes, first seed | others | settings |\n|" + "---|" * 6)
    for name in arguments.only.split(","):
        recipe = RECIPES[name]
        found = [measure(name, seed, **places) for seed in range(arguments.seeds)]
        minutes = [each["seconds"] / 2 / 60 for each in found]
        others = f"{statistics.mean(minutes[1:]):.1f}" if minutes[1:] else ""
        last, best = (spread([each[key] for each in found]) for key in ("last", "best"))
        settings = " ".join(f"--config.{setting}" for setting in recipe.settings)
        print(
            f"| {name} | {last} | {best} | {minutes[0]:.1f} | {others} | `{recipe.config} {settings}` |",
            flush=True,
        )
        for seed, each in enumerate(found if arguments.against and name != arguments.against else []):
            other = np.asarray(measure(arguments.against, seed, **places)["right"])
            pair = mcnemar(np.asarray(each["right"]), other)
            low, high = pair.interval
            print(f"|  seed {seed} | {pair.difference:+.4f} ({low:+.4f} to {high:+.4f}), p = {pair.p:.3f} | | | | |")


if __name__ == "__main__":
    main()
