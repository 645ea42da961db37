"""Measures jaxcat, Keras and torch (the peers) on this machine's device, and prints one table.

    python scripts/benchmark.py                                              everything that needs no images
    python scripts/benchmark.py --data DIR --weights FILE.h5                 everything
    python scripts/benchmark.py --only forward,step --sizes 299 --batches 20 --peers jaxcat,torch
    python scripts/benchmark.py --only forward,step --dtype bfloat16         on an accelerator

Every peer has a process of its own and they take turns in rounds. The table gives the median of the rounds, their
range and number, and the median of jaxcat's speed divided by the peer's within each round. A peer that is not
installed, or fails, is listed with the reason. The text is Markdown; --json FILE keeps every round.

Sections: forward and step (against the fastest matrix product any peer makes here), precision and determinism (how
exact and repeatable the device is, and what more exactness costs), pipeline (images from files; needs --data DIR with
train/CLASS/ and validation/CLASS/), cached (training on bottlenecks of those images, against Keras's step; also reading
rows alone and steps alone), startup, memory, growth (1, 2, 4, 8 times the images), devices (1 to 8 CPU devices),
article (whole commands from start to result, takes an hour; the column jaxcat ÷ it is Keras's time ÷ jaxcat's).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarking import duration, images, model, numerics, process
from benchmarking.rounds import Effort, Row
from benchmarking.table import draw, machine, write_json
from rich.console import Console

SECTIONS = (
    *("forward", "step", "precision", "determinism", "pipeline", "cached", "startup", "memory", "growth", "devices"),
    "article",
)


def several(allowed: tuple, kind: Callable = str) -> Callable[[str], list]:
    """An argparse type: comma-separated values, restricted to `allowed` if that is not empty."""

    def parse(text: str) -> list:
        try:
            values = [kind(word) for word in text.split(",")]
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: must be comma-separated numbers") from None
        for value in values:
            if allowed and value not in allowed:
                raise argparse.ArgumentTypeError(f"{value!r} must be one of {', '.join(allowed)}")
        return values

    return parse


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=several(SECTIONS), default=list(SECTIONS), metavar="SECTION,…")
    parser.add_argument("--peers", type=several(tuple(model.PEERS)), default=list(model.PEERS), metavar="NAME,…")
    parser.add_argument("--sizes", type=several((), int), default=[150, 299], metavar="PIXELS,…")
    parser.add_argument(
        "--batches", type=several((), int), default=[1, 20, 32, 256], metavar="N,…", help="sizes for forward and step"
    )
    parser.add_argument("--batch", type=int, default=20, help="batch size for the other sections")
    parser.add_argument(
        "--train-from", type=several(("head", "mixed8", "stem")), default=["head", "mixed8", "stem"], metavar="STAGE,…"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="for forward, step and determinism"
    )
    parser.add_argument("--data", type=Path, metavar="DIR")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="for cached, memory, growth, article (default: untrained)"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turn-seconds", type=float, default=0.5, help="least time of a peer in a round")
    parser.add_argument("--case-seconds", type=float, default=30.0, help="start no new round of a case after this")
    parser.add_argument("--seeds", type=int, default=3, help="how many for article")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark"), help="where article keeps finished runs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    for name in ("data", "weights"):
        path = getattr(arguments, name)
        if path is not None and not path.exists():
            parser.error(f"--{name} {path}: there is no such file or folder")
        setattr(arguments, name, path and path.resolve())
    return arguments


def measure(arguments: argparse.Namespace, team: model.Team) -> Iterator[Row]:
    """The rows of every section asked for, as they come."""
    effort = Effort(arguments.rounds, arguments.turn_seconds, arguments.case_seconds)
    speed, sizes, batch = model.Model(team, effort, dtype=arguments.dtype), arguments.sizes, arguments.batch
    sections = {
        "forward": lambda: speed.forward(sizes, arguments.batches),
        "step": lambda: speed.step(sizes, arguments.batches, arguments.train_from),
        "precision": lambda: numerics.precision(effort, sizes=sizes, batch=batch),
        "determinism": lambda: numerics.determinism(
            effort, size=sizes[0], batch=batch, first_trained=arguments.train_from, dtype=arguments.dtype
        ),
        "pipeline": lambda: images.pipeline(arguments.data, effort, sizes=sizes, batch=batch),
        "cached": lambda: images.cached(arguments.data, arguments.weights, effort, size=sizes[0], batch=batch),
        "startup": lambda: process.startup(team, effort, size=sizes[0], batch=batch),
        "memory": lambda: process.memory(
            team, sizes=sizes, batch=batch, data=arguments.data, weights=arguments.weights
        ),
        "growth": lambda: process.growth(arguments.data, arguments.weights, size=sizes[0]),
        "devices": lambda: model.devices(effort, size=sizes[0], batch=batch),
        "article": lambda: duration.article(
            arguments.data, arguments.weights, arguments.output.resolve(), seeds=arguments.seeds
        ),
    }
    for name in SECTIONS:
        if name in arguments.only:
            yield from sections[name]()


def main() -> None:
    arguments = parse_arguments()
    progress, table = Console(stderr=True, highlight=False), Console(width=400, highlight=False)
    team = model.Team(arguments.peers)
    rows: list[Row] = []
    try:
        for row in measure(arguments, team):
            figure = f"{row.median:.4g} {row.unit}" if row.values else f"skipped: {row.skipped}"
            progress.print(f"{row.section}: {row.case}: {row.peer}: {figure}", markup=False)
            if row not in rows:  # the peak belongs to two sections
                rows.append(row)
    except KeyboardInterrupt:
        progress.print("interrupted; measured so far:")
    finally:
        team.close()
    table.print(draw(rows))
    if arguments.json:
        write_json(arguments.json, rows, machine(team.present))


if __name__ == "__main__":
    main()
