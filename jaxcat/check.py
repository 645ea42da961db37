"""Shows what is in a folder of images and whether training would accept it; trains nothing.

    python -m jaxcat.check DIR [--jobs N] [--config FILE[:VARIANT]] [--config.data.NAME=VALUE …]

Decodes every image exactly as training would, unless training would refuse the folder before it reads them. Prints the
classes with their counts, formats and sizes, every image that cannot be read, images that are the same (those with two
labels first), what was skipped, and why training would refuse the folder.

Exit status: 0 training would accept the folder, 1 it would refuse it, 2 DIR does not exist, has no images, or a flag is
wrong.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from rich.table import Table
from rich.text import Text

from jaxcat import flags
from jaxcat.config import default
from jaxcat.data import inspection, twins
from jaxcat.data.archives import archives
from jaxcat.data.images.formats import SUFFIXES
from jaxcat.data.records import printed_order
from jaxcat.errors import ConfigError, DataError
from jaxcat.system import cli
from jaxcat.system.console import Console, progress_of
from jaxcat.wording import counted, first_few, printable

MOST = 50  # groups of equal images with one label that are listed


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(
        prog="python -m jaxcat.check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "directory", metavar="DIR", type=cli.path, help="the folder or archive of images, as for data.dir; or a table"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="threads; default: one per CPU")
    parser.add_argument("--config", metavar="FILE[:VARIANT]", help="the config to train with; default: all defaults")
    arguments, overrides = parser.parse_known_args(argv)
    if arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs}: must be at least 1")
    config = config_of(str(arguments.directory), arguments.config, overrides)
    found = inspection.opened(config)
    if found.labelled:
        total = sum(map(len, found.data.splits.values()))
        with progress_of("images decoded", total=total, console=Console(stderr=True)) as progress:
            inspection.decode_all(found, config, jobs=arguments.jobs, progress=progress)
    show(Console(tables=True), found, Path(config.data.table or config.data.dir))
    return 1 if found.refusals else 0


def config_of(directory: str, specification: str | None, overrides: Sequence[str]) -> ConfigDict:
    """The checked config that training would have, with `directory` as its data."""
    config = flags.read_config(specification, overrides) if specification else flags.overridden(default(), overrides)
    if config.data.source not in ("folder", "table"):
        raise ConfigError(
            f"--config.data.source={config.data.source}: only folders, archives and tables are checked; use folder"
        )
    archive = archives.open_archive(Path(directory))
    if os.path.isfile(directory) and archive is None:
        if Path(directory).suffix.lower() in SUFFIXES:
            raise DataError(
                f"{printable(directory)}: an image; name the folder of the class folders, DIR of DIR/CLASS/…"
            )
        config.data.source, config.data.table = "table", directory
    elif config.data.source == "table":
        raise DataError(f"{printable(directory)}: there is no such table")
    else:
        config.data.dir = directory
    config = flags.resolve_paths(config)
    if config.data.source == "folder" and not archives.isdir(config.data.dir):
        raise DataError(f"{printable(directory)}: {archives.why_no_folder(Path(directory))}")
    flags.validate(config)
    return config


def show(console: Console, found: inspection.Findings, root: Path) -> None:
    """Prints the findings; what train would refuse comes last."""

    def say(text: str) -> None:
        console.print(Text(text), soft_wrap=True)

    splits = found.data.splits
    total = counted(sum(map(len, splits.values())), "image")
    if found.labelled:
        for name, split in splits.items():
            held_out = "held out of train" if name == "validation" and found.data.held_out else _inside(split.files)
            say(f"{name}: {counted(len(split), 'image')}" + (f", {held_out}" if held_out else ""))
        console.print(_classes(found))
        say(f"{total}, {len(found.unreadable):,} unreadable; {_formats(found)}")
    else:
        say(f"{total}, not decoded, as train would refuse them unread")
    if found.sizes:
        smallest, largest = (choose(found.sizes, key=lambda size: size[0] * size[1]) for choose in (min, max))
        middle = inspection.median_size(found.sizes)
        say(
            f"width × height: {smallest[0]}×{smallest[1]} ({printable(smallest[2])}) to {largest[0]}×{largest[1]} "
            f"({printable(largest[2])}), median {middle[0]}×{middle[1]}"
        )
    for line in found.unreadable:
        say(f"unreadable: {line}")
    if found.renamed:
        say(f"{len(found.renamed):,} with another format's suffix: {first_few(found.renamed)}")
    if found.deep:
        scale = f"their values become levels as {found.grey_bits} bits (data.grey_bits)"
        say(f"{counted(len(found.deep), '16-bit image')}, {scale}: {first_few(found.deep)}")
    for line in [*_twins(found), *found.skipped.lines()]:
        say(line)
    for line in found.warnings:
        say(f"warning: {line}")
    for line in found.refusals:
        where = printable(str(root))
        say(f"train would refuse {where}: {line.removeprefix(f'{where}: ')}")
    if not found.refusals:
        say("train would accept this folder")


def _inside(files: Sequence[str]) -> str:
    """The folder that all files lie in; "" if it is the data's own folder, or a table lists files anywhere."""
    if not files or any(map(os.path.isabs, files)):
        return ""
    return printable(os.path.commonpath(list(map(os.path.dirname, files))))


def _classes(found: inspection.Findings) -> Table:
    """A row for each class: how many images each split has of it."""
    splits, classes = found.data.splits, found.data.classes
    table = Table("class", *splits, box=None, pad_edge=False)
    counts = {name: np.bincount(split.labels, minlength=len(classes)) for name, split in splits.items()}
    for label in printed_order(classes):
        table.add_row(Text(classes[label]), *(f"{counts[name][label]:,}" for name in splits))
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _formats(found: inspection.Findings) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in found.formats.most_common()) or "none readable"


def _twins(found: inspection.Findings) -> list[str]:
    """A line for each group of equal images, those with two labels first."""
    splits, classes = found.data.splits, found.data.classes
    two = twins.with_two_classes(splits, found.groups)
    lines = [f"the same image in two classes: {twins.described(splits, group, classes)}" for group in two]
    rest = found.groups[len(two) :]
    lines += [f"the same image: {twins.described(splits, group, classes)}" for group in rest[:MOST]]
    if len(rest) > MOST:
        lines.append(f"the same image: {len(rest) - MOST:,} more")
    return lines


if __name__ == "__main__":
    cli.run(main)
