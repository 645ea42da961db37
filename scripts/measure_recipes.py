"""What recipes reach and cost: each is trained with several seeds by the train command, one run after the other.

    python scripts/measure_recipes.py --cats DIR --hands DIR2 --digits RUN --weights FILE.h5 --output runs/recipes \
        [--only NAME,NAME] [--seeds 3] [--against NAME]

DIR and DIR2 are folders as `python -m jaxcat.train` takes them, RUN is the run `source` of scripts/digits_demo.py.
Prints rows in Markdown: accuracy after the last epoch, on validation or the digits' test split, as mean ± standard
deviation over the seeds; the same of the best epoch, which validation chose; and minutes of the train command. These
are the processor seconds of both cores ÷ 2 ÷ 60, which other programs disturb little. Rows of frozen blocks are kept in
OUTPUT/cache: the first run that needs them computes and pays for them. `--against NAME` compares the answers with those
of another recipe of the same images, seed by seed, by McNemar's exact test. Finished runs under OUTPUT are read, not
repeated; an interrupted one begins anew, so that its minutes are those of all of it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcat.objectives.paired import mcnemar


class Recipe(NamedTuple):
    """A row of the table.

    Attributes:
        images: a key of `IMAGES`.
        config: as `--config` takes it.
        settings: beside those of the images.
    """

    images: str
    config: str
    settings: tuple[str, ...] = ()


# Images → the setting that says where they are, and the split that a run is measured on.
IMAGES = {"cats": ("data.dir", "validation"), "hands": ("data.dir", "validation"), "digits": ("init_from", "test")}
ALL, SMALL = ("bottleneck.engine=xla",), ("data.image_size=176", "model.cut=mixed6", "model.pool_from=mixed0")
TUNED = (
    *("model.train_from=mixed4", "model.pool=avg_std", "bottleneck.dtype=float32", "epochs=4"),
    *("optim.name=adam", "optim.learning_rate=3e-4", "optim.schedule=cosine"),
)
STAGES = (
    *("model.cut=mixed10", "model.pool_from=mixed0", "model.pool=avg_std", "bottleneck.dtype=float32", *ALL),
    *("optim.name=adam", "optim.schedule=cosine", "optim.backbone_scale=10.0"),
    "train.stages=head::exact, mixed9:1:3e-6, mixed9:1:1e-5",
)
HANDS = (
    *("data.image_size=100", "data.train_size=400", "model.cut=mixed6", "model.train_from=mixed5", "batch_size=25"),
    *("epochs=5", "optim.name=adam", "optim.learning_rate=3e-4", "optim.schedule=cosine"),
)
DIGITS = ("model.train_bn=True", "train.stages=head:20:3e-3, mixed0:20:3e-3")
SOLVED_DIGITS = ("optim.name=exact", "data.augment=none", "bottleneck.views=1", "bottleneck.dtype=float32")
RECIPES = {
    "cats exact": Recipe("cats", "folder", ALL),
    "cats exact 176": Recipe("cats", "folder", (*ALL, *SMALL)),
    "cats finetuned": Recipe("cats", "folder:trained", (*SMALL, *TUNED)),
    "cats stages": Recipe("cats", "folder:trained", STAGES),
    "hands finetuned": Recipe("hands", "folder:trained", (*SMALL, *TUNED)),
    "hands exact 176": Recipe("hands", "folder", (*ALL, *SMALL)),
    "hands find rate": Recipe("hands", "folder:trained", (*HANDS, "optim.find_learning_rate=True")),
    "digits exact": Recipe("digits", "digits:transfer", (*SOLVED_DIGITS, "model.pool=avg_std", "model.pool_from=auto")),
    "digits": Recipe("digits", "digits:transfer", DIGITS),
    "digits erase": Recipe("digits", "digits:transfer", (*DIGITS, "data.erase=0.5")),
    "digits mixup": Recipe("digits", "digits:transfer", (*DIGITS, "optim.mix=mixup")),
    "digits cutmix": Recipe("digits", "digits:transfer", (*DIGITS, "optim.mix=cutmix")),
}


def command(recipe: Recipe, *, seed: int, workdir: Path, images: dict[str, Path], weights: Path) -> list[str]:
    """The words of the train command, after `python -m`."""
    setting, _ = IMAGES[recipe.images]
    given = [f"{setting}={images[recipe.images]}", f"seed={seed}"]
    if setting == "data.dir":
        given += [f"model.weights={weights}", "model.preprocessing=zero_one"]
    settings = [f"--config.{setting}" for setting in (*given, *recipe.settings)]
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
    """CPU seconds, the best validation accuracy of all epochs, and which images the last epoch answers right."""
    folder, (_, split) = output / f"{name.replace(' ', '_')}-{seed}", IMAGES[RECIPES[name].images]
    kept, log, run = folder / "result.json", folder / "log.txt", folder / "run"
    if not kept.exists():
        shutil.rmtree(folder, ignore_errors=True)  # an interrupted run went on in fewer seconds than it takes
        folder.mkdir(parents=True)
        words = command(RECIPES[name], seed=seed, workdir=run, images=images, weights=weights)
        seconds = call(words, cache=output / "cache", log=log)
        measuring = ["jaxcat.evaluate", "--workdir", str(run), "--step", "latest", "--split", split]
        call([*measuring, "--results-dir", str(folder)], cache=output / "cache", log=log)
        entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        best = max(entry["validation/accuracy"] for entry in entries if entry["event"] == "epoch")
        with open(folder / f"{split}.predictions.csv", newline="") as file:
            right = [row["predicted"] == row["label"] for row in csv.DictReader(file)]
        kept.write_text(json.dumps({"best": best, "seconds": seconds, "right": right}))
    return json.loads(kept.read_text())


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f}" + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def row_of(name: str, found: list[dict[str, Any]]) -> str:
    recipe, minutes = RECIPES[name], [each["seconds"] / 2 / 60 for each in found]
    last = spread([statistics.mean(each["right"]) for each in found])
    others = f"{statistics.mean(minutes[1:]):.1f}" if minutes[1:] else ""
    words = " ".join(f'"--config.{each}"' if " " in each else f"--config.{each}" for each in recipe.settings)
    best = spread([each["best"] for each in found])
    return f"| {name} | {last} | {best} | {minutes[0]:.1f} | {others} | `--config {recipe.config} {words}` |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (setting, _) in IMAGES.items():
        parser.add_argument(f"--{name}", type=Path, help=f"for --config.{setting} of the recipes that begin with it")
    parser.add_argument("--weights", type=Path, help="of the recipes of cats and hands")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", default=",".join(RECIPES), help="names of recipes, separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--against", help="name of the recipe that the answers of the others are compared with")
    arguments = parser.parse_args()
    images = {name: folder.resolve() for name in IMAGES if (folder := getattr(arguments, name))}
    weights = arguments.weights and arguments.weights.resolve()
    places = {"output": arguments.output.resolve(), "images": images, "weights": weights}
    print("| recipe | last epoch | best validation | minutes, first seed | other seeds | settings |\n|" + "---|" * 6)
    for name in arguments.only.split(","):
        found = [measure(name, seed, **places) for seed in range(arguments.seeds)]
        print(row_of(name, found), flush=True)
        for seed, each in enumerate(found if arguments.against and name != arguments.against else []):
            other = measure(arguments.against, seed, **places)
            pair = mcnemar(np.asarray(each["right"]), np.asarray(other["right"]))
            low, high = pair.interval
            alone = f"{pair.only_first} against {pair.only_second}"
            print(f"seed {seed}: {pair.difference:+.4f} ({low:+.4f} to {high:+.4f}), {alone}, p = {pair.p:.4f}")


if __name__ == "__main__":
    main()
