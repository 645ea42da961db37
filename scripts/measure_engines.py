"""What each engine costs and gives: a run of a recipe with each of them, and every run evaluated with every engine.

    python scripts/measure_engines.py --data DIR --recipes folder:fast,folder --output runs/engines \
        -- --config.model.weights=FILE --config.model.preprocessing=zero_one

DIR is a folder of images as `python -m jaxcat.train` takes it; what follows `--` is added to every train command. The
runs follow one another, each with an empty cache of its own, so every figure is of a first run. Prints a row for each
recipe and engine, in Markdown:

    ms an image          of its bottlenecks, in all threads; compilation and conversion beside it are not counted
    command              seconds of the whole train command
    leave-one-out        accuracy on train
    validation           accuracy of the run with its own engine
    answers changed      of validation, by evaluating the run with the other engines, in the order of the table

An evaluation that finds its rows in the cache reads them; else it computes them. Runs that are kept under --output are
not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jaxcat.bottlenecks.engines.names import ENGINES

ROWS = re.compile(r"bottlenecks: ([\d,]+) rows? in ([\d.]+) s")


def command(arguments: list[str], *, cache: Path) -> str:
    """Runs a jaxcat command; what it printed. Ends this program if it fails."""
    environment = {**os.environ, "JAXCAT_CACHE": str(cache)}
    done = subprocess.run([sys.executable, "-m", *arguments], env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout


def train(recipe: str, engine: str, *, data: Path, settings: list[str], folder: Path) -> dict[str, Any]:
    """What one run cost and reached; kept in `folder`."""
    kept = folder / "result.json"
    if not kept.exists():
        words = ["jaxcat.train", "--config", recipe, "--workdir", str(folder / "run"), f"--config.data.dir={data}"]
        began = time.perf_counter()
        said = command([*words, f"--config.bottleneck.engine={engine}", *settings], cache=folder / "cache")
        seconds = time.perf_counter() - began
        if (found := ROWS.search(said)) is None:
            raise SystemExit(f"{folder}: holds a run that was not measured: remove it\n{said}")
        entries = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
        last = [entry for entry in entries if entry["event"] == "epoch"][-1]
        kept.write_text(
            json.dumps(
                {
                    "milliseconds": 1000 * float(found[2]) / int(found[1].replace(",", "")),
                    "seconds": seconds,
                    "leave-one-out": last["leave_one_out/accuracy"],
                    "validation": last["validation/accuracy"],
                }
            )
        )
    return json.loads(kept.read_text())


def answers(run: Path, engine: str, *, cache: Path) -> list[str]:
    """The predicted classes of the validation split."""
    results = run.parent / f"with_{engine}"
    if not (table := results / "validation.predictions.csv").exists():
        words = ["jaxcat.evaluate", "--workdir", str(run), "--engine", engine, "--results-dir", str(results)]
        command(words, cache=cache)
    with open(table, newline="") as file:
        return [row["predicted"] for row in csv.DictReader(file)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of images")
    parser.add_argument("--recipes", default="folder:fast,folder", help="separated by commas; with an exact head")
    parser.add_argument("--engines", default=",".join(ENGINES), help="separated by commas")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("settings", nargs="*", metavar="--config.NAME=VALUE", help="for every train command")
    arguments = parser.parse_args()
    data, output, engines = arguments.data.resolve(), arguments.output.resolve(), arguments.engines.split(",")
    print("| recipe | engine | ms an image | command, s | leave-one-out | validation | answers changed |")
    print("|" + "---|" * 7)
    for recipe in arguments.recipes.split(","):
        for engine in engines:
            folder = output / f"{recipe.replace(':', '_')}-{engine}"
            folder.mkdir(parents=True, exist_ok=True)
            found = train(recipe, engine, data=data, settings=arguments.settings, folder=folder)
            given = {each: answers(folder / "run", each, cache=folder / "cache") for each in engines}
            changed = [
                f"{sum(a != b for a, b in zip(given[engine], given[other], strict=True))} with {other}"
                for other in engines
                if other != engine
            ]
            print(
                f"| {recipe} | {engine} | {found['milliseconds']:.1f} | {found['seconds']:.1f} | "
                f"{found['leave-one-out']:.4f} | {found['validation']:.4f} | {', '.join(changed)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
