"""Views that the devices make: those of the host to one grey level, and the same bits however they are computed."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import small

from jaxcat.data.augmentation.device import for_device, inputs, views, with_views
from jaxcat.data.augmentation.host import apply
from jaxcat.data.augmentation.table import AUGMENTATIONS, parameters, store_size
from jaxcat.system.devices import by_batch, make_mesh


def noise(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Images in which neighbours differ as much as they can."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def on_device(images: np.ndarray, drawn: dict[str, np.ndarray], size: int) -> np.ndarray:
    return np.asarray(jax.jit(views)({"image": images, **for_device(drawn, size=size)}))


def most_different(images: np.ndarray, drawn: dict[str, np.ndarray], size: int) -> int:
    """The largest difference between the views of host and device, in grey levels."""
    device, host = on_device(images, drawn, size), np.asarray(apply(images, drawn, size=size))
    assert device.shape == host.shape == (len(images), size, size, 3)
    assert device.dtype == host.dtype == np.uint8
    return int(np.abs(device.astype(int) - host.astype(int)).max())


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("size", small.slow_except([15], [2, 15, 75, 299]))
@pytest.mark.parametrize("erase", [0.0, 0.7])
def test_equals_the_host_to_one_grey_level(name, size, erase):
    count = 24 if size < 100 else 4
    drawn = parameters(name, seed=1, view=2, indices=np.arange(count), size=size, erase=erase)
    assert most_different(noise(count, store_size(name, size)), drawn, size) <= 1


EXTREME = {
    "far outside": [1, 0, 1e6, 0, 1, -1e6, 0, 0],
    "one pixel enlarged": [1e-3, 0, 7.3, 0, 1e-3, 4.1, 0, 0],
    "strongly reduced": [40, 3, -300, -5, 60, -400, 0, 0],
    "turned and mirrored": [-0.7, 0.7, 19, 0.7, 0.7, -4, 0, 0],
    "upside down": [-1, 0, 20, 0, -1, 20, 0, 0],
    "halves": [1, 0, 0.5, 0, 1, 0.5, 0, 0],
    "the last pixel": [1, 0, 20, 0, 1, 20, 0, 0],
    "a perspective": [1, 0.2, -2, 0.1, 1.1, 1, 0.013, -0.007],
    "a horizon in view": [1, 0, -2, 0, 1, 1, -0.0713, 0.0131],
    "nowhere": [1, 0, 0, 0, 1, 0, -0.125, 0],
}


@pytest.mark.parametrize("name", EXTREME)
@pytest.mark.parametrize("sides", [(21, 21), (21, 8), (5, 33)])
def test_extreme_matrices(name, sides):
    side, size = sides
    drawn = {"matrices": np.array([EXTREME[name]] * 2, np.float32)}
    assert most_different(noise(2, side), drawn, size) <= 1


def test_between_pixels_the_value_is_rounded_not_cut_off():
    images = np.tile(np.array([0, 1, 2, 3], np.uint8)[None, None, :, None], (1, 4, 1, 3))
    shift = {"matrices": np.array([[1, 0, 0.75, 0, 1, 0, 0, 0]], np.float32)}
    np.testing.assert_array_equal(on_device(images, shift, 4)[0, 0, :, 0], [1, 2, 3, 3])


@pytest.mark.parametrize("colours", [[1.2, 1.2, 1.2], [0.8, 1.2, 0.8], [1.2, 0.8, 1.2], [1, 1, 1], [0.8, 1, 1.2]])
def test_colours_alone(colours):
    drawn = {"colours": np.array([colours] * 3, np.float32)}
    assert most_different(noise(3, 40), drawn, 40) <= 1
    bright = np.full((3, 300, 300, 3), 255, np.uint8)  # the sum of all its pixels' levels exceeds 32 bits
    assert most_different(bright, drawn, 300) <= 1


def test_nothing_drawn_is_the_image_itself():
    images = noise(2, 9)
    assert views({"image": images}) is images


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inception", "trivial_augment"])
def test_the_same_bits_in_any_batch_on_any_number_of_devices_and_one_by_one(monkeypatch, name):
    """Arithmetic on pixels in whole numbers: a compiler has nothing to round otherwise."""
    size, count = 33, 24
    drawn = parameters(name, seed=0, view=0, indices=np.arange(count), size=size, erase=0.5)
    batch = {"image": noise(count, store_size(name, size)), **for_device(drawn, size=size)}
    whole = np.asarray(jax.jit(views)(batch))
    parts = [jax.jit(views)({name: array[i : i + 5] for name, array in batch.items()}) for i in range(0, count, 5)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    split = jax.device_put(batch, by_batch(make_mesh()))
    compiled = jax.jit(views, out_shardings=by_batch(make_mesh())).lower(split).compile()
    assert not any(word in compiled.as_text() for word in ("all-gather", "all-reduce", "all-to-all", "permute"))
    np.testing.assert_array_equal(compiled(split), whole)
    np.testing.assert_array_equal(views(batch), whole)  # operation by operation
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    looped = jax.jit(lambda batch: views(batch))
    assert "while" in looped.lower(batch).as_text()
    np.testing.assert_array_equal(looped(batch), whole)


@pytest.mark.slow
def test_a_batch_with_views_has_nothing_left_to_make_them_of():
    drawn = parameters("inception", seed=0, view=0, indices=np.arange(3), size=8, erase=1.0)
    images = {"image": noise(3, 12), **for_device(drawn, size=8)}
    made = with_views(images | {"label": np.arange(3), "mask": np.ones(3, bool)})
    assert made.keys() == {"image", "label", "mask"}
    np.testing.assert_array_equal(made["image"], views(images))
    for nothing_to_do in ({"image": noise(1, 4)}, {"bottleneck": np.zeros((1, 4))}):
        assert with_views(nothing_to_do) is nothing_to_do


def test_only_the_arrays_of_views_reach_the_program():
    batch = {"image": noise(1, 4), "label": np.zeros(1), "mask": np.ones(1), "erased": np.zeros((1, 4), np.float32)}
    assert inputs(batch).keys() == {"image", "erased"}
