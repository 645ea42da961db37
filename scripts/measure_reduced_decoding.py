"""Measures how far JPEGs of 12 megapixels that libjpeg reduces while it decodes are from those decoded whole.

    python scripts/measure_reduced_decoding.py DATA DIR

DATA is a folder of photographs. They are enlarged, detail and noise are added, and the results are written to DIR/train
and DIR/validation, if these are not there yet, for this and for scripts/benchmark.py --only pipeline --data DIR. Beside
photographs there are coloured shapes, text, and a red cloth whose threads are one to three pixels wide.

With a margin of M, libjpeg makes images 2, 4 or 8 times smaller as long as M of their pixels become one of the result.
The table has the largest and the mean difference in levels of 255 after resizing, over all modes and several sizes.
"""

from __future__ import annotations

import argparse
import collections
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxcat.data.images.decoding import decode
from jaxcat.data.images.formats import open_image
from jaxcat.data.images.resizing import RESIZES, resize, seen

WIDTH, HEIGHT = 4000, 3000
MARGINS, SIZES = (2, 3, 4, 6), (93, 125, 150, 176, 299)
ENCODINGS = (
    {"quality": 75, "subsampling": "4:2:0"},
    {"quality": 95, "subsampling": "4:4:4"},
    {"quality": 85, "subsampling": "4:2:0", "progressive": True},
)


def photograph(path: Path, rng: np.random.Generator) -> Image.Image:
    """A photograph with detail of every size, which enlarging alone does not give, and a sensor's noise."""
    image = Image.open(path).convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    pixels = np.asarray(image, np.float32) + 3 * rng.normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32)
    for step in (2, 4, 8, 16, 32, 64):
        coarse = rng.normal(size=(HEIGHT // step + 1, WIDTH // step + 1)).astype(np.float32)
        pixels += 5 * np.asarray(Image.fromarray(coarse).resize(image.size, Image.Resampling.BICUBIC))[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def with_shapes(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    draw = ImageDraw.Draw(image)
    for _ in range(150):
        (left, top), radius = rng.uniform(0, (WIDTH, HEIGHT)), rng.uniform(5, 300)
        colour = tuple(int(level) for level in rng.choice([0, 30, 128, 255], 3))
        draw.ellipse((left - radius, top - radius / 2, left + radius, top + radius / 2), fill=colour)
    return image


def with_text(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=int(rng.choice([24, 48, 96])))
    draw.rectangle((800, 600, WIDTH, 2500), fill="white")
    for top in range(620, 2400, 120):
        draw.text((830, top), "The quick brown fox jumps over the lazy dog 0123456789", fill="black", font=font)
    return image


def with_cloth(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    thread = int(rng.integers(1, 4))
    pixels = np.array(image)
    pixels[600:2400, 800:3200] = np.where(np.arange(2400)[:, None] // thread % 2 == 0, (255, 0, 0), (0, 0, 0))
    return Image.fromarray(pixels)


KINDS = {"photograph": lambda image, rng: image, "shapes": with_shapes, "text": with_text, "cloth": with_cloth}


def make(data: Path, folder: Path, *, count: int) -> None:
    """Writes `count` images for each kind and encoding; those of validation are the last."""
    found = sorted(data.rglob("*.jpg"))
    for index in range(count * len(ENCODINGS)):
        for place, (kind, change) in enumerate(KINDS.items()):
            rng = np.random.default_rng([index, place])
            image = change(photograph(found[int(rng.integers(len(found)))], rng), rng)
            split = "validation" if index == count * len(ENCODINGS) - 1 else "train"
            path = folder / split / kind / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, **ENCODINGS[index % len(ENCODINGS)])


def reduced(encoded: bytes, scale: int) -> np.ndarray:
    """The image made `scale` times smaller by libjpeg; these images have no orientation and no profile."""
    with open_image(encoded) as image:
        image.draft(None, (image.width // scale, image.height // scale))
        return np.asarray(image)


def scale_of(shape: tuple[int, int], size: int, *, mode: str, margin: float) -> int:
    left, top, right, bottom = seen(shape, size, mode=mode)
    ratio = min(right - left, bottom - top) / size
    return max((scale for scale in (2, 4, 8) if ratio / scale >= margin), default=1)


def timed(spent: list[float], function, *arguments, **options):
    """Calls a function and notes the milliseconds of one core that it takes."""
    start = time.thread_time()
    result = function(*arguments, **options)
    spent.append(1000 * (time.thread_time() - start))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=2, help="images of each kind and encoding")
    arguments = parser.parse_args()
    if not (arguments.folder / "train").exists():
        make(arguments.data, arguments.folder, count=arguments.count)
    spent, found = collections.defaultdict(list), collections.defaultdict(list)
    for path in sorted(arguments.folder.rglob("*.jpg")):
        encoded = path.read_bytes()
        whole = timed(spent["whole"], decode, encoded, path.name)
        small = {scale: timed(spent[f"÷ {scale}"], reduced, encoded, scale) for scale in (2, 4, 8)} | {1: whole}
        for mode in RESIZES:
            for size in SIZES:
                expected = timed(spent["resize"], resize, whole, size, mode=mode).astype(int)
                for margin in MARGINS:
                    image = small[scale_of(whole.shape[:2], size, mode=mode, margin=margin)]
                    difference = np.abs(resize(image, size, mode=mode) - expected)
                    found[path.parent.name, margin].append((difference.max(), difference.mean()))
    for (kind, margin), differences in sorted(found.items()):
        largest, means = zip(*differences, strict=True)
        text = f"up to {max(largest)} levels; mean {np.mean(means):.2f}, at most {max(means):.2f}"
        print(f"{kind}, margin {margin}: {text}")
    print("ms of one core, median:", {name: round(float(np.median(values)), 1) for name, values in spent.items()})


if __name__ == "__main__":
    main()
