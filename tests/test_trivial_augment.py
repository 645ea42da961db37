"""TrivialAugment Wide: the operations and strengths of torchvision's TrivialAugmentWide, done as Pillow does them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from test_augment_device import most_different, noise, on_device

from jaxcat.data.augmentation import host
from jaxcat.data.augmentation.draws import DRAWS, Parameters, trivial
from jaxcat.data.augmentation.table import parameters

SIZE = 40
# torchvision.transforms.TrivialAugmentWide._augmentation_space, of 31 strengths; and whether a strength has a sign.
SPACE: dict[str, tuple[np.ndarray, bool]] = {
    "Identity": (np.zeros(31), False),
    "ShearX": (np.linspace(0.0, 0.99, 31), True),
    "ShearY": (np.linspace(0.0, 0.99, 31), True),
    "TranslateX": (np.linspace(0.0, 32.0, 31), True),
    "TranslateY": (np.linspace(0.0, 32.0, 31), True),
    "Rotate": (np.linspace(0.0, 135.0, 31), True),
    "Brightness": (np.linspace(0.0, 0.99, 31), True),
    "Color": (np.linspace(0.0, 0.99, 31), True),
    "Contrast": (np.linspace(0.0, 0.99, 31), True),
    "Sharpness": (np.linspace(0.0, 0.99, 31), True),
    "Posterize": (8 - (np.arange(31) / (30 / 6)).round().astype(int), False),
    "Solarize": (np.linspace(255.0, 0.0, 31), False),
    "AutoContrast": (np.zeros(31), False),
    "Equalize": (np.zeros(31), False),
}


def affine(x: float = 0, y: float = 0, dx: int = 0, dy: int = 0) -> Callable[[Image.Image], Image.Image]:
    """torchvision.transforms.functional.affine with its centre at (0, 0): a shear by atan(x) or a shift of dx pixels.

    Pillow puts black around an image, so the image gets its own edges around it first, as jaxcat has it.
    """
    return lambda image: enlarged(image).transform(
        image.size,
        Image.Transform.AFFINE,
        (1, x, -dx + SIZE * 2, y, 1, -dy + SIZE * 2),
        Image.Resampling.BILINEAR,
    )


def rotated(angle: float) -> Callable[[Image.Image], Image.Image]:
    def turn(image: Image.Image) -> Image.Image:
        turned = enlarged(image).rotate(angle, Image.Resampling.BILINEAR)
        return turned.crop((2 * SIZE, 2 * SIZE, 3 * SIZE, 3 * SIZE))

    return turn


def enlarged(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.pad(np.asarray(image), ((2 * SIZE,) * 2, (2 * SIZE,) * 2, (0, 0)), mode="edge"))


# torchvision.transforms.autoaugment._apply_op on an image of Pillow.
APPLY: dict[str, Callable[[float], Callable[[Image.Image], Image.Image]]] = {
    "Identity": lambda m: lambda image: image,
    "ShearX": lambda m: affine(x=m),
    "ShearY": lambda m: affine(y=m),
    "TranslateX": lambda m: affine(dx=int(m)),
    "TranslateY": lambda m: affine(dy=int(m)),
    "Rotate": rotated,
    "Brightness": lambda m: lambda image: ImageEnhance.Brightness(image).enhance(1 + m),
    "Color": lambda m: lambda image: ImageEnhance.Color(image).enhance(1 + m),
    "Contrast": lambda m: lambda image: ImageEnhance.Contrast(image).enhance(1 + m),
    "Sharpness": lambda m: lambda image: ImageEnhance.Sharpness(image).enhance(1 + m),
    "Posterize": lambda m: lambda image: ImageOps.posterize(image, int(m)),
    "Solarize": lambda m: lambda image: ImageOps.solarize(image, m),
    "AutoContrast": lambda m: lambda image: ImageOps.autocontrast(image),
    "Equalize": lambda m: lambda image: ImageOps.equalize(image),
}


def every(name: str) -> tuple[list[float], Parameters]:
    """All strengths of an operation, with both signs, and the parameters that `trivial` makes for them."""
    magnitudes, signed = SPACE[name]
    number = list(SPACE).index(name)
    drawn = np.full((62, DRAWS), 0.5)
    drawn[:, 0] = (number + 0.5) / len(SPACE)
    drawn[:, 1] = (np.arange(62) % 31 + 0.5) / 31
    drawn[:, 2] = np.repeat([0.25, 0.75], 31)
    signs = np.repeat([-1 if signed else 1, 1], 31)
    return (signs * np.tile(magnitudes, 2)).tolist(), trivial(drawn, SIZE)


def photographs(count: int) -> np.ndarray:
    """Blurred noise of few and many levels: histograms with gaps, and channels that do not reach 0 or 255."""
    images = []
    for i, image in enumerate(noise(count, SIZE)):
        blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1 + i % 3)))
        images.append((20 + (i % 5) * 11 + blurred // (1 + i % 4) * [0.9, 0.6, 0.8]).astype(np.uint8))
    return np.stack(images)


@pytest.mark.parametrize("name", SPACE)
def test_every_strength_is_torchvisions_to_one_grey_level(name):
    magnitudes, drawn = every(name)
    images = photographs(62)
    ours = host.apply(images, drawn, size=SIZE).numpy().astype(int)
    theirs = np.stack(
        [np.asarray(APPLY[name](m)(Image.fromarray(image))) for m, image in zip(magnitudes, images, strict=True)]
    )
    assert np.abs(ours - theirs).max() <= 1
    if name in ("Identity", "TranslateX", "TranslateY", "Posterize", "Solarize", "Equalize"):
        np.testing.assert_array_equal(ours, theirs)
    assert (np.abs(theirs.astype(int) - images).max() > 3) == (name != "Identity")
    assert most_different(images, drawn, SIZE) <= 1


def test_operations_are_equally_likely():
    drawn = parameters("trivial_augment", seed=0, view=0, indices=np.arange(14_000), size=SIZE)
    still = [np.eye(3).reshape(-1)[:8], [1, 1, 1], [0, 0]]
    changed = [(array != same).any(axis=1) for array, same in zip(drawn.values(), still, strict=True)]
    assert (np.sum(changed, axis=0) <= 1).all()
    counts = Counter(drawn["operations"][:, 0])
    for number in range(1, 6):
        assert counts[number] == pytest.approx(1000, abs=100)
    unlike = 30 / 31  # one strength of a map or a colour changes nothing, and of a shift two
    assert changed[0].sum() == pytest.approx(5000 * unlike, abs=200)
    assert changed[1].sum() == pytest.approx(3000 * unlike, abs=170)


PLAIN = {
    "one level": np.full((SIZE, SIZE, 3), 77),
    "two levels": np.broadcast_to(np.where(np.arange(SIZE) < 3, 12, 201)[:, None, None], (SIZE, SIZE, 3)),
    "black": np.zeros((SIZE, SIZE, 3)),
    "white": np.full((SIZE, SIZE, 3), 255),
    "every level": np.arange(3 * SIZE * SIZE).reshape(SIZE, SIZE, 3) % 256,
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("operation", ["AutoContrast", "Equalize", "Posterize", "Solarize", "Sharpness"])
def test_images_of_few_levels_and_few_pixels(name, operation):
    """Where a channel has one level, or fewer than 255 pixels besides its brightest, it has nothing to equalize."""
    magnitudes, drawn = every(operation)
    drawn = {part: array[40:41] for part, array in drawn.items()}
    for side in (SIZE, 9):
        image = PLAIN[name][None, :side, :side].astype(np.uint8)
        theirs = np.asarray(APPLY[operation](magnitudes[40])(Image.fromarray(image[0]))).astype(int)
        assert np.abs(host.apply(image, drawn, size=side).numpy()[0] - theirs).max() <= 1
        assert np.abs(on_device(image, drawn, side)[0] - theirs).max() <= 1
