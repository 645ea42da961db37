"""Measures which altered copies of images a study's search for near duplicates finds. Run by hand.

    python scripts/measure_study_copies.py --count 60 --config folder --config.data.dir=DIR …

Copies of some train images are made in a temporary folder: saved again as JPEG of quality 50, cropped by 5 %,
brightened by 20 %, mirrored, scaled to half. The search runs on all images of DIR and the
copies of one kind.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageEnhance, ImageOps

from jaxcat import flags
from jaxcat.objectives.exact.parts import Part
from jaxcat.objectives.near_duplicates import Pairs, pairs_alike, whiten
from jaxcat.study.collect import Collected, collect, studied
from jaxcat.study.images import FALSE_PAIRS, block_for_copies
from jaxcat.system.console import Console
from jaxcat.system.devices import make_mesh
from jaxcat.system.files import never


def altered(image: Image.Image) -> Iterator[tuple[str, Image.Image, int]]:
    """The name, the altered image and the quality it is saved with."""
    width, height = image.size
    left, top = round(width * 0.025), round(height * 0.025)
    yield "saved again", image, 50
    yield "cropped 5 %", image.crop((left, top, width - left, height - top)), 90
    yield "brightened 20 %", ImageEnhance.Brightness(image).enhance(1.2), 90
    yield "mirrored", ImageOps.mirror(image), 90
    yield "scaled to half", image.resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.LANCZOS), 90


def plant(found: Collected, chosen: np.ndarray, folder: Path) -> None:
    """Writes the copies of these train images to folder/train/KIND/NUMBER.jpg."""
    for number in chosen:
        image = Image.fromarray(found.splits["train"].fetch(int(number)))
        for kind, copy, quality in altered(image):
            place = folder / "train" / kind
            place.mkdir(parents=True, exist_ok=True)
            copy.save(place / f"{number:06}.jpg", quality=quality)


def measure(config: ConfigDict, count: int, folder: Path) -> None:
    """Prints the share of copies found, by kind, and how many other pairs are listed."""
    options = {"mesh": make_mesh(), "console": Console(), "stop": never}
    found = collect(studied(config), folder, **options)
    train = found.splits["train"]
    chosen = np.sort(np.random.default_rng(0).choice(len(train), min(count, len(train)), replace=False))
    plant(found, chosen, folder)
    config = config.copy_and_resolve_references()
    config.data.dir, config.data.validation_fraction = str(folder), 0.0
    copies = collect(studied(config), folder, **options)
    block = block_for_copies(found.parts["train"])
    first = sum(len(split) for split in found.splits.values())
    for label, kind in enumerate(copies.classes):
        of_kind = np.flatnonzero(copies.splits["train"].labels == label)
        pairs = search(found, copies, of_kind, block)
        listed = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
        originals = [int(Path(copies.splits["train"].files[number]).stem) for number in of_kind]  # train comes first
        hits = [(original, first + place) in listed for place, original in enumerate(originals)]
        others = sum(second < first for _, second in listed)
        print(
            f"{kind:16s} {np.mean(hits):.2f} of {len(hits)}; threshold {pairs.threshold:.3f}, {others} pairs among the "
            f"{first:,} images themselves"
        )


def search(found: Collected, copies: Collected, numbers: np.ndarray, block: str) -> Pairs:
    """The pairs among all images of the data and these copies."""

    def held(part: Part) -> Part:
        rows = np.concatenate([part.read(number, number + 1) for number in numbers])
        return part._replace(read=lambda start, stop: rows[start:stop])

    parts = [[part for part in found.parts[name] if part.block == block] for name in found.splits]
    parts.append([held(part) for part in copies.parts["train"] if part.block == block])
    counts = [*(len(split) for split in found.splits.values()), len(numbers)]
    return pairs_alike(whiten(parts, counts).directions, false_pairs=FALSE_PAIRS)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="folder")
    parser.add_argument("--count", type=int, default=60)
    asked, overrides = parser.parse_known_args(argv)
    config = flags.read_config(asked.config, overrides)
    flags.validate(config)
    with tempfile.TemporaryDirectory() as folder:
        measure(config, asked.count, Path(folder))


if __name__ == "__main__":
    main()
