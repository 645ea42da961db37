"""Views are a function of seed, view and record; the article's are Keras's own; colours and rounding are right."""

import numpy as np
import pytest

from jaxcat.data.augmentation import draws, host, table


def smooth_images(count: int, size: int) -> np.ndarray:
    """Smooth images that are neither symmetric nor the same in two channels."""
    y, x = np.mgrid[:size, :size] / size
    phases = np.arange(count)[:, None, None]
    channels = [np.sin(7 * x + phases), np.cos(5 * y + 3 * x), np.sin(4 * x * y + phases)]
    return np.stack([np.broadcast_to(127.5 + 120 * c, (count, size, size)) for c in channels], -1).astype(np.uint8)


@pytest.mark.parametrize("name", table.AUGMENTATIONS)
def test_view_depends_on_seed_view_and_record_only(name):
    def drawn(indices, seed=3, view=1):
        return table.parameters(name, seed=seed, view=view, indices=np.array(indices), size=32)

    whole, alone = drawn([5, 9, 2, 9]), drawn([9])
    assert whole.keys() == alone.keys()
    for part, batch in whole.items():
        np.testing.assert_array_equal(batch[1], alone[part][0])
        np.testing.assert_array_equal(batch[1], batch[3])
        assert batch.dtype == np.float32
        assert len(np.unique(batch, axis=0)) == 3 or name == "trivial_augment"  # which leaves all parts but one as is
    if name != "none":
        every, nine, seed, view = (
            np.concatenate(list(each.values()), axis=1)
            for each in (whole, alone, drawn([9], seed=4), drawn([9], view=2))
        )
        assert len(np.unique(every, axis=0)) == 3
        assert not np.array_equal(nine, seed)
        assert not np.array_equal(nine, view)
        assert len(drawn([])["matrices"]) == 0


def test_seed_and_view_are_not_interchangeable():
    one = table.parameters("article", seed=1, view=2, indices=np.arange(4), size=32)
    other = table.parameters("article", seed=2, view=1, indices=np.arange(4), size=32)
    assert not np.array_equal(one["matrices"], other["matrices"])


def test_unknown_name_lists_the_known():
    with pytest.raises(
        ValueError, match="artcile.*none, article, mild, mild_unmirrored, digits, inception, trivial_augment"
    ):
        table.parameters("artcile", seed=0, view=0, indices=np.arange(2), size=32)


def test_none_is_the_identity():
    images = smooth_images(2, 16)
    nothing = table.parameters("none", seed=0, view=0, indices=np.arange(2), size=16)
    assert host.apply(images, nothing, size=16) is images


@pytest.mark.slow
@pytest.mark.parametrize("size", [40, 75])
def test_article_equals_keras(size):
    pytest.importorskip("scipy")
    from keras.src.legacy.preprocessing.image import apply_affine_transform

    rng = np.random.default_rng(0)
    count = 12
    drawn = {
        "theta": rng.uniform(-40, 40, count),
        "tx": rng.uniform(-0.2, 0.2, count) * size,
        "ty": rng.uniform(-0.2, 0.2, count) * size,
        "shear": rng.uniform(-30, 30, count),  # more than the article's 0.2 degrees, so that a mistake shows
        "zx": rng.uniform(0.8, 1.2, count),
        "zy": rng.uniform(0.8, 1.2, count),
    }
    flip = np.arange(count) % 2 == 0
    images = smooth_images(count, size)
    matrices = draws.affine_matrices(**drawn, flip=flip, size=size)
    ours = host.apply(images, {"matrices": matrices}, size=size).numpy()
    for i in range(count):
        one = {key: value[i] for key, value in drawn.items()}
        theirs = apply_affine_transform(
            images[i].astype(np.float32), **one, row_axis=0, col_axis=1, channel_axis=2, fill_mode="nearest", order=1
        )
        theirs = theirs[:, ::-1] if flip[i] else theirs
        assert np.abs(ours[i] - theirs).max() <= 0.51  # rounding alone, at the repeated edges too


def test_article_ranges_are_those_of_the_article():
    zero = np.zeros(4)
    matrices = table.parameters("article", seed=0, view=0, indices=np.arange(4000), size=100)["matrices"]
    linear = matrices[:, [0, 1, 3, 4]].reshape(-1, 2, 2)
    flipped = np.linalg.det(linear) < 0
    assert flipped.mean() == pytest.approx(0.5, abs=0.03)
    linear = np.where(flipped[:, None, None], linear * [-1, 1], linear)
    angle = np.rad2deg(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    zoom = np.linalg.norm(linear, axis=1)
    assert (angle.min(), angle.max()) == (pytest.approx(-40, abs=0.3), pytest.approx(40, abs=0.3))
    for axis in (0, 1):
        assert (zoom[:, axis].min(), zoom[:, axis].max()) == (
            pytest.approx(0.8, abs=3e-3),
            pytest.approx(1.2, abs=3e-3),
        )
    assert np.corrcoef(zoom.T)[0, 1] == pytest.approx(0, abs=0.06)  # zx and zy are drawn apart, as Keras draws them
    still = draws.affine_matrices(zero, tx=zero, ty=zero, shear=zero, zx=zero + 1, zy=zero + 1, flip=zero > 0, size=100)
    np.testing.assert_allclose(still, np.tile([1, 0, 0, 0, 1, 0, 0, 0], (4, 1)), atol=1e-6)


@pytest.mark.parametrize("name", ["mild", "mild_unmirrored"])
def test_mild_ranges(name):
    drawn = table.parameters(name, seed=0, view=0, indices=np.arange(2000), size=100)
    linear = drawn["matrices"][:, [0, 1, 3, 4]].reshape(-1, 2, 2)
    mirrored = np.linalg.det(linear) < 0
    assert mirrored.mean() == pytest.approx(0.5 if name == "mild" else 0, abs=0.04)
    linear = np.where(mirrored[:, None, None], linear * [-1, 1], linear)
    angle = np.rad2deg(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    zoom = np.linalg.norm(linear, axis=1)
    for found, most in ((angle, 10), (zoom - 1, 0.1), (drawn["colours"] - 1, 0.1)):
        assert (found.min(), found.max()) == (pytest.approx(-most, rel=0.02), pytest.approx(most, rel=0.02))


def test_digits_are_never_mirrored():
    matrices = table.parameters("digits", seed=0, view=0, indices=np.arange(500), size=75)["matrices"]
    linear = matrices[:, [0, 1, 3, 4]].reshape(-1, 2, 2)
    assert np.linalg.det(linear).min() > 0
    assert np.abs(np.rad2deg(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))).max() <= 12


def test_between_pixels_the_value_is_rounded_not_cut_off():
    images = np.tile(np.array([0, 1, 2, 3], np.uint8)[None, None, :, None], (1, 4, 1, 3))
    shift = np.array([[1, 0, 0.75, 0, 1, 0, 0, 0]], np.float32)
    views = host.apply(images, {"matrices": shift}, size=4).numpy()
    np.testing.assert_array_equal(views[0, 0, :, 0], [1, 2, 3, 3])


def test_inception_crops_lie_inside_a_larger_store():
    size, count = 50, 2000
    store = table.store_size("inception", size)
    assert (store, table.store_size("inception", 299), table.store_size("article", 299)) == (75, 449, 299)
    matrices = table.parameters("inception", seed=0, view=0, indices=np.arange(count), size=size)["matrices"]
    corners = np.array([[-0.5, -0.5], [size - 0.5, size - 0.5]])
    x = matrices[:, [0]] * corners[:, 0] + matrices[:, [2]]
    y = matrices[:, [4]] * corners[:, 1] + matrices[:, [5]]
    assert min(x.min(), y.min()) >= -0.5 - 1e-3
    assert max(x.max(), y.max()) <= store - 0.5 + 1e-3
    width, height = np.abs(np.diff(x)[:, 0]), np.diff(y)[:, 0]
    area, aspect = width * height / store**2, width / height
    assert (area.min(), area.max()) == (pytest.approx(0.3, abs=0.01), pytest.approx(1, abs=0.05))
    assert (aspect.min(), aspect.max()) == (pytest.approx(3 / 4, abs=0.01), pytest.approx(4 / 3, abs=0.01))
    assert (matrices[:, 0] < 0).mean() == pytest.approx(0.5, abs=0.05)


def test_inception_view_has_the_output_size():
    drawn = table.parameters("inception", seed=0, view=0, indices=np.arange(3), size=20)
    views = host.apply(smooth_images(3, 30), drawn, size=20)
    assert views.shape == (3, 20, 20, 3)
    assert views.dtype == "uint8"


@pytest.mark.parametrize(("column", "method"), [(0, "Brightness"), (1, "Contrast"), (2, "Color")])
@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_colour_factors_are_pillows(column, method, factor):
    from PIL import Image, ImageEnhance

    images = smooth_images(1, 24) // 2 + 50  # no channel reaches 0 or 255, where Pillow's separate steps clip
    colours = np.ones((1, 3), np.float32)
    colours[0, column] = factor
    ours = host.apply(images, {"colours": colours}, size=24).numpy()[0].astype(int)
    theirs = np.array(getattr(ImageEnhance, method)(Image.fromarray(images[0])).enhance(factor)).astype(int)
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - images[0]).max() > 3


def test_colours_do_not_wrap_around():
    images = np.full((1, 4, 4, 3), 250, np.uint8)
    brighter = host.apply(images, {"colours": np.array([[1.2, 1, 1]], np.float32)}, size=4)
    assert brighter.numpy().min() == 255


def test_parts_are_told_apart_by_name():
    """Colours alone are no matrices, whatever their place."""
    still = np.array([[1, 0, 0, 0, 1, 0, 0, 0]] * 2, np.float32)
    colours = np.array([[0.9, 1.1, 0.8], [1.1, 0.9, 1.2]], np.float32)
    both = host.apply(smooth_images(2, 16), {"colours": colours, "matrices": still}, size=16)
    alone = host.apply(smooth_images(2, 16), {"colours": colours}, size=16)
    np.testing.assert_array_equal(alone, both)
    assert not np.array_equal(alone, smooth_images(2, 16))


def test_every_augmentation_has_a_meaning():
    assert all(augmentation.meaning for augmentation in table.AUGMENTATIONS.values())


def test_erased_rectangles_are_those_of_the_paper():
    """Zhong et al.: 0.02 to 0.4 of the area, height 0.3 to 1 / 0.3 of the width, inside the image, anywhere."""
    size, count = 200, 4000
    erased = table.parameters("none", seed=0, view=0, indices=np.arange(count), size=size, erase=0.25)["erased"]
    assert erased.dtype == np.float32
    np.testing.assert_array_equal(erased, np.round(erased))
    width, height = erased[:, 2] - erased[:, 0], erased[:, 3] - erased[:, 1]
    there = width > 0
    assert there.mean() == pytest.approx(0.25, abs=0.03)
    assert not erased[~there].any()
    left, top, right, bottom = erased[there].T
    area, aspect = (width * height)[there] / size**2, height[there] / width[there]
    assert (area.min(), area.max()) == (pytest.approx(0.02, abs=0.003), pytest.approx(0.4, abs=0.02))
    assert (aspect.min(), aspect.max()) == (pytest.approx(0.3, abs=0.03), pytest.approx(1 / 0.3, abs=0.2))
    assert (left.min(), top.min(), right.max(), bottom.max()) == (0, 0, size, size)
    every = table.parameters("article", seed=0, view=0, indices=np.arange(50), size=size, erase=1.0)
    assert (every["erased"][:, 2] > every["erased"][:, 0]).all()
    same = table.parameters("article", seed=0, view=0, indices=np.arange(50), size=size)
    np.testing.assert_array_equal(every["matrices"], same["matrices"])


def test_an_erased_rectangle_is_the_mean_of_imagenet_and_the_rest_as_it_was():
    images = smooth_images(2, 12)
    rectangles = np.array([[2, 3, 7, 12], [0, 0, 0, 0]], np.float32)
    views = host.apply(images, {"erased": rectangles}, size=12).numpy()
    expected = images.copy()
    expected[0, 3:12, 2:7] = [124, 117, 104]
    np.testing.assert_array_equal(views, expected)
