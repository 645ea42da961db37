"""A loop over files with Pillow, in one thread: what a first script does."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
from PIL import Image


def describe() -> dict[str, str]:
    return {"version": f"pillow {PIL.__version__}", "device": "cpu"}


def decode(*, data: str, size: int, batch: int) -> Callable[[int], None]:
    files = itertools.cycle(sorted(path for path in Path(data, "train").glob("*/*") if path.is_file()))

    def run(calls: int) -> None:
        for _ in range(calls):
            images = [Image.open(next(files)).convert("RGB") for _ in range(batch)]
            np.stack([np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)) for image in images])

    return run


TASKS = {"decode": decode}
