"""Measures which altered copies of images a study's search for near duplicates finds. Run by hand.

    python scripts/measure_study_copies.py --count 60 --config folder --config.data.dir=DIR …

Copies of some train images are made in a temporary folder: saved again as JPEG of quality 50, cropped by 5 %,
brightened by 20 %, mirrored, scaled to half. Their features join those of all images of DIR; the search runs on all.
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
from jaxcat.objectives.near_duplicates import pairs_alike, whiten
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
    of_copies = copies.splits["train"]
    block = block_for_copies(found)
    splits = [found.parts[name] for name in found.splits] + [copies.parts["train"]]
    parts = [[part for part in of_split if part.block == block] for of_split in splits]
    counts = [*(len(split) for split in found.splits.values()), len(of_copies)]
    pairs = pairs_alike(whiten(parts, counts).directions, false_pairs=FALSE_PAIRS)
    listed = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    first = sum(counts[:-1])
    kinds: dict[str, list[bool]] = {}
    for place, name in enumerate(of_copies.files):
        kind, original = copies.classes[of_copies.labels[place]], int(Path(name).stem)
        kinds.setdefault(kind, []).append((original, first + place) in listed)  # train comes first
    others = [pair for pair in listed if pair[1] < first]
    print(
        f"{block}, {first:,} images, threshold {pairs.threshold:.3f}; {len(others)} pairs among the images themselves"
    )
    for kind, hits in kinds.items():
        print(f"{kind:16s} {np.mean(hits):.2f} of {len(hits)}")


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
