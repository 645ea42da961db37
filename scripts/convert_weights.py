"""Converts a weights file, or published weights by name, to one file in jaxcat's canonical safetensors layout.

    python scripts/convert_weights.py WEIGHTS OUT.safetensors [--no-top] [--like NAME] [--verify]
    python scripts/convert_weights.py WEIGHTS --inspect

WEIGHTS is a file (.h5, .weights.h5, .keras, .pth, .safetensors: the content decides) or a name such as
timm/inception_v3.tv_in1k. The backbone is recognised from the file. --inspect prints what is in it and writes nothing.
--verify loads OUT and compares it with the framework that WEIGHTS comes from, on random images at every block, or says
that the framework is not installed. --like NAME uses the preprocessing and pooling of published weights instead of the
defaults of the file's layout.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from flax.traverse_util import flatten_dict
from rich.table import Table

from jaxcat.errors import WeightsError
from jaxcat.models.backbone import BACKBONES
from jaxcat.system import cli
from jaxcat.system.console import Console
from jaxcat.weights.formats import safetensors_file
from jaxcat.weights.load import Pretrained, find_file, load_pretrained, open_weights
from jaxcat.weights.registry import REGISTRY
from jaxcat.weights.verify import NotInstalled, differences, jaxcat_outputs, random_images, reference, sizes

TOLERANCE = 1e-4  # of the largest magnitude in the tensor


def has_top(path: Path) -> bool:
    with open_weights(path) as contents:
        return "logits/kernel" in contents.tensors


def inspect(path: Path) -> None:
    """A line per tensor, under our names."""
    with open_weights(path) as contents:
        table = Table("tensor", "shape", "dtype", box=None)
        for name, tensor in sorted(contents.tensors.items()):
            table.add_row(name, "×".join(map(str, tensor.shape)), tensor.dtype)
        count = sum(1 for name in contents.tensors if not name.startswith("["))
        console = Console()
        console.print(table)
        network = BACKBONES[contents.backbone].title
        console.print(
            f"{path}: layout {contents.layout}, {count} of {len(contents.tensors)} tensors known as {network}'s"
        )
        for name in contents.left_out:
            console.print(f"not part of the network, ignored: {name}")


def write(loaded: Pretrained, out: Path) -> None:
    description = {
        "width": 1.0,
        **loaded.conventions.to_dict(),
        "evaluation": loaded.evaluation.to_dict() if loaded.evaluation else None,
        "classes": list(loaded.classes) or None,
        "provenance": loaded.provenance,
    }
    safetensors_file.write(out, flatten_dict(loaded.params, sep="/") | flatten_dict(loaded.stats, sep="/"), description)


def verify(weights: Path, out: Path, *, with_top: bool) -> bool:
    """Print the largest difference at every block and image size; whether all are within `TOLERANCE`.

    Without the framework nothing is compared, which is said and is no failure: `out` does load.
    """
    start = time.perf_counter()
    loaded = load_pretrained(str(out), backbone=None, with_top=with_top)
    print(f"{out} loads in {time.perf_counter() - start:.2f} s")
    try:
        name, theirs = reference(weights)
    except NotInstalled as error:
        print(f"not compared: {error}")
        return True
    shapes = sizes(loaded.backbone)
    table = Table("of the largest value", *(f"{height}×{width}" for height, width in shapes), box=None)
    columns = []
    for height, width in shapes:
        images = random_images(height, width)
        wanted = {block: value for block, value in theirs(images).items() if with_top or block != "logits"}
        columns.append(differences(jaxcat_outputs(loaded, images), wanted))
    for block in max(columns, key=len):  # some sizes have no logits
        table.add_row(block, *(f"{column[block]:.1e}" if block in column else "" for column in columns))
    Console(tables=True).print(table)
    worst = max(max(column.values()) for column in columns)
    print(f"worst difference from {name}: {worst:.1e}, allowed {TOLERANCE:.0e}")
    return worst <= TOLERANCE


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(
        prog="convert_weights.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", metavar="WEIGHTS")
    parser.add_argument("out", nargs="?", type=cli.path, metavar="OUT.safetensors")
    parser.add_argument("--inspect", action="store_true", help="print the table of tensors and write nothing")
    parser.add_argument("--verify", action="store_true", help="compare OUT with the framework WEIGHTS comes from")
    parser.add_argument("--no-top", action="store_true", help="leave out the published classification layers (the top)")
    parser.add_argument(
        "--like", metavar="NAME", help=f"use the preprocessing and pooling of NAME: {', '.join(REGISTRY)}"
    )
    arguments = parser.parse_args(argv)
    if arguments.inspect:
        inspect(find_file(arguments.weights))
        return 0
    if arguments.out is None:
        parser.error("give the file to write, OUT.safetensors, or --inspect")
    path = find_file(arguments.weights)
    if arguments.out.resolve() == path.resolve():
        raise WeightsError(f"{arguments.out} is the file to convert: choose another output file")
    with_top = has_top(path) and not arguments.no_top
    loaded = load_pretrained(arguments.weights, backbone=None, with_top=with_top, like=arguments.like)
    write(loaded, arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes, {'with' if with_top else 'without'} top")
    return 0 if not arguments.verify or verify(path, arguments.out, with_top=with_top) else 1


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
