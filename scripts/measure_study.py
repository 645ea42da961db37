"""Measures how honest a study's intervals are, and how many planted wrong labels it finds. Run by hand.

    python scripts/measure_study.py interval --repeats 200
    python scripts/measure_study.py features --output signs.npz --config folder --config.data.dir=DIR …
    python scripts/measure_study.py curve --repeats 20 --most 400 800 --features signs.npz cats.npz
    python scripts/measure_study.py labels --features signs.npz cats.npz

`interval` simulates features whose truth is known: the winner of a study is solved on N records and measured on many
new ones, whose accuracy the interval covers or not. `curve` fits the learning curve to half of the records, and checks
whether its interval covers the leave-one-out accuracy of all. `features` writes what `curve` and `labels` read: pooled
features of all train images, from the cache or computed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from jaxcat.models.backbone import BACKBONES
from jaxcat.models.completion import candidates as ranges_of
from jaxcat.objectives.choice_interval import accuracy_of_choice
from jaxcat.objectives.exact.every_range import candidates_of, every_range, judge
from jaxcat.objectives.exact.part_grams import part_grams
from jaxcat.objectives.exact.parts import Groups, Part
from jaxcat.objectives.exact.problem import answers, problem_of
from jaxcat.objectives.exact.solve import solve_head
from jaxcat.objectives.exact.stratified import subset
from jaxcat.objectives.exact.subsets import measure_subsets, measured_by_leaving_out
from jaxcat.objectives.intervals import accuracy_interval
from jaxcat.objectives.label_errors import flipped, found_among, suspects
from jaxcat.objectives.learning_curve import fit_curve, sizes_of

NEW = 20_000  # records that measure the truth of a simulation
POOL = 12_000  # records of a simulated set, from which those of a repeat are drawn
SHARE = 0.05  # of labels that are changed


class Set(NamedTuple):
    """Features of one set of records."""

    name: str
    parts: list[Part]
    labels: np.ndarray
    groups: np.ndarray

    def some(self, numbers: np.ndarray, name: str) -> Set:
        held = [np.concatenate([part.read(i, i + 1) for i in numbers]) for part in self.parts]
        parts = [_part(part.block, part.statistic, rows) for part, rows in zip(self.parts, held, strict=True)]
        return Set(name, parts, self.labels[numbers], self.groups[numbers])


def _part(block: str, statistic: str, rows: np.ndarray) -> Part:
    return Part(block, statistic, rows.shape[1], lambda start, stop: rows[start:stop])


class Simulation(NamedTuple):
    """How features are made: each block has signal of its own strength in directions of falling size."""

    name: str
    records: int
    classes: int
    strengths: tuple[float, ...]
    width: int = 40

    def draw(self, random: np.random.Generator, means: list[np.ndarray], count: int) -> tuple[list, np.ndarray]:
        labels = random.permutation(np.arange(count) % self.classes)
        sizes = np.linspace(1, 0.1, self.width)
        blocks = []
        for strength, mean in zip(self.strengths, means, strict=True):
            rows = (random.standard_normal((count, self.width)) + strength * mean[labels]) * sizes
            blocks.append(rows.astype(np.float32))
        return blocks, labels

    def means(self, random: np.random.Generator) -> list[np.ndarray]:
        return [random.standard_normal((self.classes, self.width)) / np.sqrt(self.width) for _ in self.strengths]


SIMULATIONS = (
    Simulation("noise, 2 classes", 200, 2, (0, 0, 0, 0)),
    Simulation("weak, 2 classes", 200, 2, (0.2, 0.6, 0.9, 0.6)),
    Simulation("strong, 2 classes", 300, 2, (0.5, 1.5, 2.0, 1.0)),
    Simulation("medium, 5 classes", 250, 5, (0.5, 1.0, 1.5, 1.0)),
)


def named(blocks: Sequence[np.ndarray]) -> list[Part]:
    return [_part(f"block{number}", "avg", rows) for number, rows in enumerate(blocks, 1)]


# the interval of the chosen accuracy ---------------------------------------------------------------------------------


def interval_once(simulation: Simulation, seed: int) -> dict[str, float]:
    """One simulated study: whether its interval covers the accuracy of the chosen head on new records."""
    random = np.random.default_rng(seed)
    means = simulation.means(random)
    blocks, labels = simulation.draw(random, means, simulation.records)
    parts = named(blocks)
    grams = part_grams(parts, np.arange(len(labels)))
    problem = problem_of(labels, classes=simulation.classes, groups=None, class_weights=None)
    judged = judge(grams, problem, every_range(grams))
    squared, right = (each.reshape(-1, len(labels)) for each in (judged.squared, judged.right))
    winner = int(squared.sum(axis=1, dtype=np.float64).argmin())
    found = accuracy_of_choice(squared, right, winner, seed=seed)
    place, penalty = divmod(winner, judged.squared.shape[1])
    head = solve_head(
        parts,
        labels,
        classes=simulation.classes,
        ranges=[judged.candidates[place].blocks],
        penalty=float(judged.penalties[place, penalty]),
    )
    new, true = simulation.draw(random, means, NEW)
    used = np.hstack([new[i] for i in judged.candidates[place].parts])
    truth = float((answers(used @ head.kernel + head.bias) == true).mean())
    plain = accuracy_interval(right[winner])
    return {
        "covered": found.low <= truth <= found.high,
        "covered plainly": plain[0] <= truth <= plain[1],
        "width": found.high - found.low,
        "plain width": plain[1] - plain[0],
        "bias": found.accuracy - truth,
        "plain bias": right[winner].mean() - truth,
    }


def measure_interval(repeats: int) -> list[dict]:
    rows = []
    for simulation in SIMULATIONS:
        each = [interval_once(simulation, seed) for seed in range(repeats)]
        rows.append({"set": simulation.name} | {name: float(np.mean([one[name] for one in each])) for name in each[0]})
        print(_line(rows[-1]), flush=True)
    return rows


# the learning curve --------------------------------------------------------------------------------------------------


def curve_once(some: Set, seed: int, *, ranges: Sequence[tuple[str, ...]], most: int) -> dict[str, float]:
    """Whether the curve of half of the records covers the leave-one-out accuracy of all."""
    classes = int(some.labels.max()) + 1
    if most < len(some.labels):
        groups = Groups(some.groups, records=len(some.labels))
        some = some.some(subset(some.labels, groups, most=most, seed=seed), some.name)
    count = len(some.labels)
    grams = part_grams(some.parts, np.arange(count))
    problem = problem_of(some.labels, classes=classes, groups=some.groups, class_weights=None)
    choices = candidates_of(grams, ranges)
    random = np.random.default_rng(seed)
    half = np.sort(random.permutation(problem.groups.count)[: problem.groups.count // 2])
    within = np.flatnonzero(np.isin(problem.groups.of_record, half))
    of_half = some.some(within, some.name)
    half_grams = part_grams(of_half.parts, np.arange(len(within)))
    half_problem = problem_of(of_half.labels, classes=classes, groups=of_half.groups, class_weights=None)
    sizes = sizes_of(len(within), least=10 * max(2, classes // 2))
    measured = list(measure_subsets(half_grams, half_problem, choices, sizes, seed=seed))
    measured.append(measured_by_leaving_out(judge(half_grams, half_problem, choices), choices))
    predicted = fit_curve(measured, groups=half_problem.groups.of_record, seed=seed).predict(count)
    truth = 1 - measured_by_leaving_out(judge(grams, problem, choices), choices).error()
    return {
        "covered": predicted.low <= truth <= predicted.high,
        "width": predicted.high - predicted.low,
        "difference": predicted.accuracy - truth,
        "truth": truth,
    }


def measure_curve(sets: Sequence[Set], repeats: int, *, most: Sequence[int]) -> list[dict]:
    rows = []
    for some in sets:
        known = {part.block for part in some.parts}
        ranges = [blocks for blocks in ranges_of(BACKBONES["inception_v3"]) if known.issuperset(blocks)]
        for size in sorted({min(size, len(some.labels)) for size in most}):
            each = [
                curve_once(some, seed, ranges=ranges or [tuple(sorted(known))], most=size) for seed in range(repeats)
            ]
            means = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
            rows.append({"set": f"{size:,} of {some.name}"} | means)
            print(_line(rows[-1]), flush=True)
    return rows


def simulated_sets() -> Iterator[Set]:
    """Sets so large that the records of every repeat are others."""
    for simulation in SIMULATIONS[:1] + SIMULATIONS[2:]:
        random = np.random.default_rng(0)
        blocks, labels = simulation.draw(random, simulation.means(random), POOL)
        yield Set(f"simulated: {simulation.name}", named(blocks), labels, np.arange(POOL))


# labels --------------------------------------------------------------------------------------------------------------


def measure_labels(some: Set, *, seeds: int = 5) -> dict:
    """The share of planted wrong labels among the first n and 2 n of three rankings, mean over seeds."""
    classes = int(some.labels.max()) + 1
    blocks = tuple(dict.fromkeys(part.block for part in some.parts))
    shares: dict[str, list[float]] = {}
    for seed in range(seeds):
        labels, planted = flipped(some.labels, share=SHARE, classes=classes, seed=seed)
        head = solve_head(some.parts, labels, classes=classes, ranges=[blocks], groups=some.groups, seed=seed)
        rows = np.hstack([part.read(0, len(labels)) for part in some.parts])
        fitted = rows @ head.kernel + head.bias
        orders = {
            "leave-one-out": suspects(_probabilities(head.leave_one_out), labels).order,
            "fitted, not left out": suspects(_probabilities(fitted), labels).order,
            "class means": _by_means(some, labels, classes),
        }
        listed = suspects(_probabilities(head.leave_one_out), labels).confident
        shares.setdefault("listed as wrong", []).append(float(listed.sum()))
        shares.setdefault("planted among listed", []).append(float(listed[planted].mean()))
        for name, order in orders.items():
            for times in (1, 2):
                found = found_among(order, planted, times * len(planted))
                shares.setdefault(f"{name}, first {'2 n' if times == 2 else 'n'}", []).append(found)
    return {"set": some.name} | {name: float(np.mean(values)) for name, values in shares.items()}


def _probabilities(logits: np.ndarray) -> np.ndarray:
    return softmax(logits if logits.shape[1] > 1 else np.hstack([np.zeros_like(logits), logits]), axis=1)


def _by_means(some: Set, labels: np.ndarray, classes: int) -> np.ndarray:
    """Order by distance to the mean of the given class less that to the nearest other mean: the plain ranking."""
    rows = []
    for part in some.parts:
        centred = np.array(part.read(0, len(labels)), np.float64)
        centred -= centred.mean(axis=0)
        rows.append(centred / max(np.sqrt((centred**2).sum(axis=1).mean()), 1e-12))
    features = np.hstack(rows)
    means = np.stack([features[labels == label].mean(axis=0) for label in range(classes)])
    near = 2 * features @ means.T - (means**2).sum(axis=1)
    return suspects(softmax(near, axis=1), labels).order


# files and the command line ------------------------------------------------------------------------------------------


def write_features(output: Path, recipe: str, overrides: Sequence[str]) -> None:
    from jaxcat import flags
    from jaxcat.study.collect import collect, studied
    from jaxcat.system.console import Console
    from jaxcat.system.devices import make_mesh
    from jaxcat.system.files import never

    config = flags.read_config(recipe, overrides)
    flags.validate(config)
    found = collect(studied(config), output.parent, mesh=make_mesh(), console=Console(), stop=never)
    split = found.splits["train"]
    arrays = {f"{part.block}/{part.statistic}": part.read(0, len(split)) for part in found.parts["train"]}
    np.savez(output, labels=split.labels, groups=found.groups["train"], **arrays)


def read_features(path: Path) -> Set:
    with np.load(path) as file:
        parts = [_part(*name.split("/"), file[name]) for name in file.files if "/" in name]
        return Set(path.stem, parts, file["labels"], file["groups"])


def _line(row: dict) -> str:
    return "  ".join(f"{name} {value:.4f}" if isinstance(value, float) else value for name, value in row.items())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("interval", "curve", "labels", "features"))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--features", type=Path, nargs="*", default=[])
    parser.add_argument("--most", type=int, nargs="*", default=[400, 800], help="records of a set, drawn by the seed")
    parser.add_argument("--output", type=Path, default=Path("features.npz"))
    parser.add_argument("--config", default="folder")
    asked, overrides = parser.parse_known_args(argv)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    sets = [read_features(path) for path in asked.features]
    if asked.what == "interval":
        measure_interval(asked.repeats)
    elif asked.what == "curve":
        measure_curve([*simulated_sets(), *sets], asked.repeats, most=asked.most)
    elif asked.what == "labels":
        for some in sets:
            print(_line(measure_labels(some)), flush=True)
    else:
        write_features(asked.output, asked.config, overrides)


if __name__ == "__main__":
    main()
