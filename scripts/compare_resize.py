"""`data.resize` beside what other libraries do to the same photographs, in grey levels: the table of docs/weights.md.

    python scripts/compare_resize.py --data DIR

DIR and its subfolders are searched for .jpg files. Comparisons with libraries that are not installed are left out; a
line says which.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxcat.data.images import decoding, resizing
from jaxcat.system import cli

Reference = Callable[[Path], np.ndarray]  # an image's file → (H, W, 3), in grey levels


def of_timm(size: int) -> Iterator[tuple[str, str, Reference]]:
    from timm.data import create_transform

    transform: Any = create_transform(
        (3, size, size), interpolation="bicubic", crop_pct=0.875, mean=(0, 0, 0), std=(1, 1, 1)
    )
    yield "timm", "timm's own evaluation transform", lambda path: grey_levels(transform(opened(path)))


def of_torchvision(size: int) -> Iterator[tuple[str, str, Reference]]:
    from torchvision.transforms import v2

    def transform(*first: Any, antialias: bool = True) -> Reference:
        steps = v2.Compose([*first, v2.Resize(round(size * 342 / 299), antialias=antialias), v2.CenterCrop(size)])
        return lambda path: grey_levels(v2.functional.to_image(steps(opened(path))) / 255)

    yield "torchvision", "torchvision's Resize and CenterCrop on a Pillow image", transform()
    yield "torchvision", "the same on a tensor, `antialias=True`", transform(v2.PILToTensor())


def of_keras(size: int) -> Iterator[tuple[str, str, Reference]]:
    import keras

    def loaded(interpolation: str) -> Reference:
        return lambda path: np.asarray(
            keras.utils.load_img(path, target_size=(size, size), interpolation=interpolation), np.float32
        )

    for interpolation in ("bilinear", "bicubic", "nearest"):
        yield "squash", f'`keras.utils.load_img(interpolation="{interpolation}")`', loaded(interpolation)
    resizing = keras.layers.Resizing(size, size)
    yield "squash", "`keras.layers.Resizing` (no antialiasing)", lambda path: np.asarray(resizing(pixels(path)))
    smart = keras.preprocessing.image.smart_resize
    yield "center_crop", "`keras.preprocessing.image.smart_resize`", lambda path: smart(pixels(path), (size, size))


def of_tensorflow(size: int) -> Iterator[tuple[str, str, Reference]]:
    import tensorflow as tf

    def decoded(method: str) -> Reference:
        return lambda path: tf.io.decode_jpeg(path.read_bytes(), channels=3, dct_method=method).numpy()

    yield "", "`tf.io.decode_jpeg`", decoded("")
    yield "", '`tf.io.decode_jpeg(dct_method="INTEGER_ACCURATE")`', decoded("INTEGER_ACCURATE")


def of_pillow(size: int) -> Iterator[tuple[str, str, Reference]]:
    import PIL

    def resized(path: Path) -> np.ndarray:
        return np.asarray(opened(path).resize((size, size), Image.Resampling.BILINEAR), np.float32)

    yield "squash", f"`Image.resize` of Pillow {PIL.__version__}, in one step", resized


def opened(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


def pixels(path: Path) -> np.ndarray:
    return np.asarray(opened(path), np.float32)


def grey_levels(tensor: Any) -> np.ndarray:
    """A torch tensor (3, H, W) in [0, 1] → (H, W, 3) in [0, 255]."""
    return tensor.permute(1, 2, 0).numpy() * 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=cli.path, required=True, help="a folder of photographs")
    parser.add_argument("--count", type=int, default=60, help="how many of them, spread over the folder (default: 60)")
    parser.add_argument("--size", type=int, default=299, help="side of the result in pixels (default: 299)")
    arguments = parser.parse_args()
    found = sorted(arguments.data.rglob("*.jpg"))
    if not found:
        parser.error(f"--data {arguments.data}: no .jpg files found")
    found = found[:: max(1, len(found) // arguments.count)][: arguments.count]
    print(f"{len(found)} photographs, {arguments.size} px\n")
    print("| `data.resize` | compared with | mean difference | largest difference |\n|---|---|---|---|")
    for references in (of_pillow, of_timm, of_torchvision, of_keras, of_tensorflow):
        try:
            for mode, name, reference in references(arguments.size):
                differences = []
                for path in found:
                    ours = decoding.decode(path, path.name)
                    ours = resizing.resize(ours, arguments.size, mode=mode) if mode else ours
                    differences.append(np.abs(reference(path) - ours.astype(np.float32)))
                mean, largest = np.mean([d.mean() for d in differences]), max(d.max() for d in differences)
                mode = f"`{mode}`" if mode else "(decoding only)"
                print(f"| {mode} | {name} | {mean:.2g} | {largest:.3g} |", flush=True)
        except ImportError as error:
            print(f"| | {references.__name__.removeprefix('of_')}: {error.name} is not installed | | |")


if __name__ == "__main__":
    main()
