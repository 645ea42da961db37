"""Decodes every image below a folder, exactly as training would, and names those that cannot be read.

python scripts/check_images.py DIR [--jobs N]

Exit status: 0 all images are readable, 1 some are not, 2 DIR does not exist or has no images.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jaxcat.data.decoding import SUFFIXES, decode, printable
from jaxcat.data.folder import Ignored, image_files
from jaxcat.errors import DataError
from jaxcat.system import cli
from jaxcat.wording import counted


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="threads (default: one per CPU)")
    arguments = parser.parse_args(argv)
    if arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs}: must be at least 1")
    shown = printable(str(arguments.directory))
    if not arguments.directory.is_dir():
        raise DataError(f"{shown}: there is no such folder")
    ignored = Ignored()
    paths = list(image_files(arguments.directory, ignored))
    if not paths:
        raise DataError(f"{shown}: no images ({', '.join(sorted(SUFFIXES))})")
    bad = 0
    for reason in failures(paths, arguments.jobs):
        bad += 1
        print(reason, flush=True)
    print(f"{counted(len(paths), 'image')}, {bad} unreadable; {counted(ignored.count, 'other file')} ignored")
    return 1 if bad else 0


def failures(paths: list[Path], jobs: int) -> Iterator[str]:
    """One line for each path that does not decode, in the order of paths."""

    def attempt(path: Path) -> str:
        try:
            decode(path, str(path))
        except DataError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(jobs) as pool:
        yield from filter(None, pool.map(attempt, paths))


if __name__ == "__main__":
    cli.run(main)
