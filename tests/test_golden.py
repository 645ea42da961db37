"""Golden values guard the declared versions: if a step's numbers change, its version must be raised.

    python tests/test_golden.py --write

After raising a version on purpose, this writes the new values of that step; it refuses to for any other step. A new row
of a table (a resize, an augmentation, a backbone, a form of image) is added without raising anything.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import numpy as np
import pytest

from jaxcat.bottlenecks.versions import step_versions
from jaxcat.config import default
from jaxcat.data.augmentation.device import for_device, views
from jaxcat.data.augmentation.draws import Parameters
from jaxcat.data.augmentation.host import apply
from jaxcat.data.augmentation.table import AUGMENTATIONS, parameters, store_size
from jaxcat.data.images.decoding import Decoding, decode
from jaxcat.data.images.resizing import RESIZES, resize
from jaxcat.models.backbone import BACKBONES
from jaxcat.models.completion import complete
from jaxcat.models.network import Network, Tree
from jaxcat.models.preprocessing import BGR_MINUS_MEANS, ZERO_TO_ONE, Conventions, Preprocessing

PATH = Path(__file__).with_name("golden") / "steps.npz"
FOLDER = PATH.with_name("images")  # written by make_golden_images.py
SAMPLE = 600  # values kept of an output that is large or not of pixels
OWNERS = {
    "decode": "DECODE_VERSION in jaxcat/data/images/decoding.py",
    "resize": "RESIZE_VERSION in jaxcat/data/images/resizing.py",
    "augment": "AUGMENT_VERSION in jaxcat/data/augmentation/table.py",
    "prefix": "PREFIX_VERSION in jaxcat/models/backbone.py",
}
Outputs = Iterator[tuple[str, np.ndarray]]


def pattern(height: int, width: int, channels: int = 3, *, most: int = 255) -> np.ndarray:
    """Waves and edges of integers alone, the same on every machine; (height, width, channels) from 0 to `most`."""
    y, x, c = np.mgrid[:height, :width, :channels]
    return (7 * x * most // 60 + 11 * y * most // 90 + (x * y + 5 * c) * most // 400 + c * most // 3) % (most + 1)


def sample(output: np.ndarray) -> np.ndarray:
    """`SAMPLE` values of an array, always the same ones, and the largest."""
    kept = np.random.default_rng(0).permutation(output.size)[:SAMPLE]
    return np.append(output.reshape(-1)[kept], np.abs(output).max())


def decoded() -> Outputs:
    for path in sorted(FOLDER.iterdir()):
        yield path.name, decode(path, path.name)
        if path.name.startswith("16_bit"):
            yield f"{path.name} by 12 bits", decode(path, path.name, Decoding(grey_bits=12))
    for bits, channels in ((8, 1), (8, 3), (8, 4), (16, 1), (16, 3), (16, 4)):
        array = pattern(9, 12, channels, most=2**bits - 1).astype(f"uint{bits}")
        yield f"array of {bits} bits, {channels} channels", decode(array, "array")


SIDES = (
    *((40, 61, 16), (50, 33, 21), (12, 9, 20), (4, 60, 8), (75, 70, 16), (18, 18, 18)),
    *((90, 31, 24), (60, 4, 8), (40, 30, 18)),  # Pillow 11 and 13 differ in the order of rows and columns
)


def resized() -> Outputs:
    """Reductions, enlargements and the size as it is, of wide, tall, very long and square images."""
    for mode in RESIZES:
        for height, width, size in SIDES:
            image = pattern(height, width).astype(np.uint8)
            yield f"{mode}, {height}×{width} to {size}", resize(image, size, mode=mode)
        for size in (150, 299):
            yield f"{mode}, to {size}", sample(resize(pattern(190, 170).astype(np.uint8), size, mode=mode))


WHOLE = ("none", "article", "digits", "inception")  # of newer augmentations a sample is kept


def by_host(images: np.ndarray, drawn: Parameters, size: int) -> np.ndarray:
    return np.asarray(apply(images, drawn, size=size))


def by_device(images: np.ndarray, drawn: Parameters, size: int) -> np.ndarray:
    return np.asarray(jax.jit(views)({"image": images, **for_device(drawn, size=size)}))


def augmented(make: Callable[[np.ndarray, Parameters, int], np.ndarray] = by_host) -> Outputs:
    for name in AUGMENTATIONS:
        for size, count in ((15, 6), (32, 3)):
            indices = np.arange(count)
            side = store_size(name, size)
            images = np.stack([np.roll(pattern(side, side), 5 * i, axis=1) for i in indices]).astype(np.uint8)
            drawn = parameters(name, seed=3, view=2, indices=indices, size=size)
            output = make(images, drawn, size)
            yield f"{name}, {size} px", output if name in WHOLE else sample(output)
    for name, matrix in {"left and up": [1, 0, -6.5, 0, 1, -3.25], "right and down": [1, 0, 7.75, 0, 1, 9]}.items():
        drawn = {"matrices": np.array([[*matrix, 0, 0]], np.float32)}
        yield f"beyond the edge, {name}", make(pattern(12, 12)[None].astype(np.uint8), drawn, 12)
    drawn = parameters("trivial_augment", seed=3, view=2, indices=np.arange(60), size=32)
    images = np.stack([np.roll(pattern(32, 32), 5 * i, axis=1) // (1 + i % 3) for i in range(60)]).astype(np.uint8)
    yield "trivial_augment, every operation", sample(make(images, drawn, 32))
    drawn = parameters("none", seed=3, view=2, indices=np.arange(6), size=15, erase=0.8)
    yield "erased, 15 px", make(np.stack([pattern(15, 15).astype(np.uint8)] * 6), drawn, 15)


IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
PREFIXES: dict[str, tuple[dict[str, object], Conventions]] = {
    "inception_v3": ({}, Conventions()),
    "padding counted": ({"model.cut": "mixed5"}, Conventions(pool_counts_padding=True)),
    "80 px": ({"data.image_size": 80, "model.cut": "mixed4"}, Conventions()),
    "maxima": ({"model.cut": "mixed0", "model.pool": "max"}, Conventions()),
    "flattened": ({"model.cut": "mixed0", "model.pool": "flatten"}, Conventions()),
    "grid": ({"model.cut": "mixed0", "model.pool_grid": 2}, Conventions()),
    "grid of maxima": ({"model.cut": "mixed0", "model.pool": "max", "model.pool_grid": 3}, Conventions()),
    "several blocks": ({"model.cut": "mixed1", "model.pool_from": "stem"}, Conventions()),
    "averages and deviations": (
        {"model.cut": "mixed1", "model.pool_from": "stem", "model.pool": "avg_std"},
        Conventions(),
    ),
    "a map": ({"model.cut": "mixed1", "model.train_from": "mixed1"}, Conventions(pool_counts_padding=True)),
    "zero to one": ({"model.cut": "stem"}, Conventions(ZERO_TO_ONE)),
    "means and deviations": ({"model.cut": "stem"}, Conventions(IMAGENET)),
    "BGR minus means": ({"model.cut": "stem"}, Conventions(BGR_MINUS_MEANS)),
    "vgg19": ({"model.backbone": "vgg19", "data.image_size": 64}, Conventions(BGR_MINUS_MEANS)),
    "vgg19, several blocks": (
        {"model.backbone": "vgg19", "data.image_size": 32, "model.pool_from": "block3", "model.pool": "max"},
        Conventions(BGR_MINUS_MEANS),
    ),
    "vgg19, a map": (
        {"model.backbone": "vgg19", "data.image_size": 32, "model.train_from": "block4"},
        Conventions(BGR_MINUS_MEANS),
    ),
}


def of_prefixes() -> Outputs:
    assert {changes.get("model.backbone", "inception_v3") for changes, _ in PREFIXES.values()} == set(BACKBONES)
    for name, (changes, conventions) in PREFIXES.items():
        config = default()
        config.update_from_flattened_dict({"data.image_size": 75, "model.width": 1 / 16, **changes})
        complete(config)
        size = config.data.image_size
        network = Network(config.model, classes=3, image_size=size, conventions=conventions)
        frozen, _ = network.split(*numbers(network))
        images = np.stack([pattern(size, size), pattern(size, size)[::-1, ::-1]]).astype(np.uint8)
        output = np.asarray(jax.jit(network.prefix)(frozen, images), np.float32)
        yield name, sample(output)


def numbers(network: Network) -> tuple[Tree, Tree]:
    """`Network.initialize`, with biases, means and variances that matter too."""
    generator = np.random.default_rng(1)

    def moved(leaf: np.ndarray) -> np.ndarray:
        return leaf if leaf.ndim > 1 else leaf + np.float32(0.1) * generator.random(leaf.shape, np.float32)

    params, stats = (jax.tree.map(moved, tree) for tree in network.initialize(0))
    return params, stats


STEPS: dict[str, Callable[[], Outputs]] = {
    "decode": decoded,
    "resize": resized,
    "augment": augmented,
    "prefix": of_prefixes,
}


COLOURED = ("augment: inception", "augment: mild", "augment: trivial_augment")


def differs(name: str, now: np.ndarray, golden: np.ndarray) -> bool:
    """Whether an output is another: exact for pixels, ± 1 level for colours, 1e-5 of the largest value of a prefix."""
    if now.shape != golden.shape or now.dtype != golden.dtype:
        return True
    difference = np.abs(now.astype(np.float64) - golden.astype(np.float64)).max()
    if name.startswith("prefix: "):
        return difference > 1e-5 * np.abs(golden).max()
    return difference > (1 if name.startswith(COLOURED) else 0)


def stored() -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """The versions and the outputs, by `STEP: NAME`, that the golden file holds."""
    with np.load(PATH) as file:
        return json.loads(str(file["versions"])), {name: file[name] for name in file.files if name != "versions"}


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_numbers_are_those_of_the_declared_version(step):
    versions, golden = stored()
    now = {f"{step}: {name}": output for name, output in STEPS[step]()}
    known = {name for name in golden if name.startswith(f"{step}: ")}
    changed = sorted(name for name in now.keys() & known if differs(name, now[name], golden[name]))
    advice = f"if they are meant to be, raise {OWNERS[step]} and run: python tests/test_golden.py --write"
    assert not changed, f"{len(changed)} outputs are not those of version {versions[step]}: {changed}; {advice}"
    assert versions[step] == step_versions()[step], "the version is another: python tests/test_golden.py --write"
    assert now.keys() == known, "the tables have other rows: python tests/test_golden.py --write"


@pytest.mark.slow
def test_views_of_the_device_are_the_golden_ones_to_one_grey_level():
    _, golden = stored()
    for name, output in augmented(by_device):
        assert np.abs(output - golden[f"augment: {name}"].astype(int)).max() <= 1, name


def test_the_golden_values_are_small():
    assert sum(path.stat().st_size for path in PATH.parent.rglob("*") if path.is_file()) < 210_000


def write() -> int:
    """Write the outputs of today; 1 if some changed without a new version."""
    versions, golden = stored() if PATH.exists() else (step_versions(), {})
    values: dict[str, np.ndarray] = {}
    for step, outputs in STEPS.items():
        for short, output in outputs():
            name = f"{step}: {short}"
            old = golden.get(name)
            changed = old is not None and differs(name, output, old)
            if changed and versions[step] == step_versions()[step]:
                print(f"{name} has changed and the version has not: raise {OWNERS[step]} first", file=sys.stderr)
                return 1
            values[name] = output if changed or old is None else old
    PATH.parent.mkdir(exist_ok=True)
    np.savez_compressed(PATH, versions=np.array(json.dumps(step_versions())), **values)
    print(f"{PATH}: {len(values)} outputs, {PATH.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", required=True, help="write the outputs of today")
    parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    sys.exit(write())
