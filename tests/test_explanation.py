"""Heat maps: Grad-CAM against finite differences and closed forms, its place on the original image, its colours."""

from __future__ import annotations

import numpy as np
import pytest
import small
from PIL import Image
from plan_numpy import computed
from scipy.ndimage import zoom
from small_export import classifier_of

from jaxcat.data.images.resizing import RESIZES, resize, seen
from jaxcat.errors import ConfigError
from jaxcat.inference.classifier import Classifier
from jaxcat.inference.explanation import colours, normalized, overlay, placed
from jaxcat.models.backbone import BACKBONES
from jaxcat.models.plan import folded, plan_of

THREE = ("a", "b", "c")
VGG = {"model__backbone": "vgg19", "model__cut": "block3", "data__image_size": 40}


# Grad-CAM -------------------------------------------------------------------------------------------------------------


def by_differences(classifier: Classifier, image: np.ndarray, label: int, *, block: str, top: bool) -> np.ndarray:
    """Grad-CAM in NumPy's float64. The sum of a channel's gradient is how the score grows with the whole channel.

    So the importance of a channel is a central difference: everything after the block is computed with a little more
    in all its values, and with a little less.
    """
    config, size = classifier.config, classifier.config.data.image_size
    conventions, classes = classifier.meta.conventions, len(classifier.classes)
    row = BACKBONES[config.model.backbone]
    plan = plan_of(
        config.model, image_size=size, conventions=conventions, classes=classes, top=row.top if top else None
    )
    arrays = folded(plan, classifier.params, classifier.stats)
    values, name, step = computed(plan, arrays, image), f"{block}/output", 1e-6
    names = [layer.name for layer in plan.layers]
    before = {each: values[each] for each in names[: names.index(name)]}
    output = values[name]

    def score(channel: int, change: float) -> float:
        moved = output.copy()
        moved[..., channel] += change
        logits = computed(plan, arrays, image, before | {name: moved})["logits"]
        return logits[label] if classes > 2 else (logits[0] if label else -logits[0])

    growth = [(score(k, step) - score(k, -step)) / (2 * step) for k in range(output.shape[2])]
    return np.maximum(output @ np.array(growth) / (output.shape[0] * output.shape[1]), 0)


SEVERAL = {"model__cut": "mixed1", "model__pool_from": "stem", "model__pool": "avg_std"}
KINDS = {
    "one block": ({}, "mixed0", ("a", "b")),
    "a block before it": ({}, "stem", THREE),
    "several blocks": (SEVERAL, "stem", THREE),
    "the second of them": (SEVERAL, "mixed0", ("a", "b")),
    "grid, trained": (
        {"model__pool": "max", "model__pool_grid": 2, "model__train_from": "mixed0"},
        "mixed0",
        THREE,
    ),
    "maximum, all trained": (
        {"model__pool": "max", "model__pool_from": "stem", "model__train_from": "stem"},
        "stem",
        ("a", "b"),
    ),
    "flattened, hidden": ({"model__pool": "flatten", "model__hidden": 6}, "mixed0", THREE),
    "grid, bfloat16": (
        {"model__dtype": "bfloat16", "model__pool": "avg_std", "model__pool_grid": 3},
        "mixed0",
        THREE,
    ),
    "vgg19": (
        VGG | {"model__pool_from": "block2", "model__pool": "avg_std", "model__hidden": 5},
        "block2",
        ("a", "b"),
    ),
    "vgg19, trained": (VGG | {"model__train_from": "block2", "model__pool": "flatten"}, "block1", THREE),
}


@pytest.mark.parametrize("kind", small.slow_except(["one block", "grid, trained", "vgg19, trained"], KINDS))
def test_maps_are_those_of_finite_differences(kind):
    settings, block, classes = KINDS[kind]
    classifier = classifier_of(classes=classes, **settings)
    images = small.images(2 * len(classes), classifier.config.data.image_size)
    labels = [number % len(classes) for number in range(len(images))]
    expected = [
        by_differences(classifier, image, label, block=block, top=False)
        for image, label in zip(images, labels, strict=True)
    ]
    assert_close(list(classifier.xla.raw_maps(images, labels, block=block)), expected)


def test_maps_of_a_published_top_are_those_of_finite_differences(monkeypatch):
    """Three dense layers, of which two are hidden, on all values of the last block."""
    row = BACKBONES["vgg19"]
    narrow = row.top.__class__(pool="flatten", hidden={"fc1": 7, "fc2": 5}, classes=3)
    monkeypatch.setitem(BACKBONES, "vgg19", row.__class__(**{**vars(row), "top": narrow}))
    settings = {"model__backbone": "vgg19", "model__cut": "block5", "data__image_size": 64}
    classifier = classifier_of(classes=THREE, published=True, **settings)
    images = small.images(6, 64)
    expected = [by_differences(classifier, image, i % 3, block="block5", top=True) for i, image in enumerate(images)]
    assert_close(list(classifier.xla.raw_maps(images, [0, 1, 2] * 2)), expected)


def assert_close(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Within 1e-3 of the largest value of each map, and enough maps that have one."""
    assert sum(one.max() > 0 for one in expected) >= len(expected) / 3
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3 * theirs.max())


def test_on_a_global_average_the_map_is_the_class_activation_map():
    """Zhou et al., arXiv:1512.04150: the channels of the last block, each times its weight for the class."""
    images = small.images(6)
    classifier, whole = (classifier_of(classes=THREE, model__pool=kind) for kind in ("avg", "flatten"))
    channels = classifier.network.features
    blocks = whole.features(list(images)).reshape(6, -1, channels)
    kernel, labels = np.asarray(classifier.params["logits"]["kernel"]), [0, 1, 2, 2, 1, 0]
    side = int(np.sqrt(blocks.shape[1]))
    for number, raw in enumerate(classifier.xla.raw_maps(images, labels)):
        activation = np.maximum(blocks[number] @ kernel[:, labels[number]], 0).reshape(side, side)
        np.testing.assert_allclose(normalized(raw), activation / activation.max(), atol=1e-4)


# explain --------------------------------------------------------------------------------------------------------------


def test_explain_gives_maps_on_the_square_that_the_network_sees():
    classifier, images = classifier_of(), small.images(3)
    found = classifier.explain(list(images))
    assert (found.shape, found.dtype) == ((3, 75, 75), np.float32)
    assert found.min() >= 0
    assert found.max() <= 1
    labels = classifier.predict(list(images)).argmax(axis=1)
    for one, raw in zip(found, classifier.xla.raw_maps(images, labels), strict=True):
        assert one.argmax() == spread(raw, 75).argmax()
        np.testing.assert_allclose(one, spread(normalized(raw), 75), atol=1e-5)
    assert classifier.explain([]).shape == (0, 75, 75)


def spread(values: np.ndarray, side: int) -> np.ndarray:
    """SciPy's linear interpolation between the centres of the cells; beyond the outer centres nothing changes."""
    return zoom(values, side / np.array(values.shape), order=1, mode="nearest", grid_mode=True)


def test_without_names_the_predicted_class_is_explained():
    classifier = classifier_of(classes=THREE)
    images = [image // (number + 1) for number, image in enumerate(small.images(8))]  # ever darker
    predicted = [classifier.classes[label] for label in classifier.predict(images).argmax(axis=1)]
    assert len(set(predicted)) > 1
    found = classifier.explain(images)
    np.testing.assert_array_equal(found, classifier.explain(images, classes=predicted))
    others = [THREE[(THREE.index(name) + 1) % 3] for name in predicted]
    assert np.abs(found - classifier.explain(images, classes=others)).max(axis=(1, 2)).min() > 0.05


def test_the_predicted_class_is_that_of_the_engine_of_the_answers(monkeypatch):
    classifier, images = classifier_of(), list(small.images(4))
    expected = classifier.explain(images, classes=["cat"] * 4)

    class Engine:
        engine, interpreter, features = "other", None, 1

        def outputs(self, pixels, *, batch_size, features):
            yield from ((np.full((1, 1), -9.0, np.float32), None) for _ in pixels)

    monkeypatch.setattr(classifier.engine, "_computation", Engine())
    np.testing.assert_array_equal(classifier.explain(images), expected)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_size_of_a_batch_does_not_matter(batch_size):
    classifier = classifier_of(model__cut="mixed1", model__pool_from="stem", model__pool="avg_std")
    images = list(small.images(7))
    expected = classifier.explain(images, block="stem")
    np.testing.assert_array_equal(classifier.explain(images, block="stem"), expected)
    found = classifier.explain(images, block="stem", batch_size=batch_size)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_images_of_16_bits_are_scaled_as_in_training():
    classifier, levels = classifier_of(data__grey_bits=12), small.images(1)[0, :, :, 0]
    deep = levels.astype(np.uint16) << 4
    np.testing.assert_array_equal(classifier.explain([deep]), classifier.explain([levels]))


@pytest.mark.parametrize(("wanted", "said"), [
    ({"block": "mixed7"}, "block=mixed7 comes after mixed0, the last block that the head reads: use mixed0 or an"),
    ({"block": "mixed_0"}, "block=mixed_0: must be one of stem, mixed0, .*did you mean mixed0"),
    ({"block": "logits"}, "block=logits: must be one of"),
    ({"classes": ["cat"]}, "classes: 1 name for 2 images; give a list with one name for each image"),
    ({"classes": "cat"}, "classes: 'cat' for 2 images"),
    ({"classes": ["cat", "cow\n"]}, r"classes: cow\\n is none of the 2 classes of this classifier"),
])  # fmt: skip
def test_what_cannot_be_explained_is_refused_before_the_work(wanted, said, monkeypatch):
    classifier = classifier_of()
    monkeypatch.setattr(Classifier, "decode", lambda *_: pytest.fail("work began"))
    with pytest.raises(ConfigError, match=said):
        classifier.explain(list(small.images(2)), **wanted)


def test_one_image_in_place_of_a_list():
    with pytest.raises(TypeError, match=r"explain takes a list of images: explain\(\[image\]\)"):
        classifier_of().explain("cat.jpg")


# on the original image ------------------------------------------------------------------------------------------------

SHAPES = [(120, 200), (200, 120), (75, 75), (64, 64), (61, 640), (900, 90)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("mode", RESIZES)
def test_what_the_network_saw_comes_back_to_its_place(mode, shape):
    """An image whose grey levels grow to the right, then downwards: made square and placed, it is itself again."""
    size, (left, top, right, bottom) = 75, seen(shape, 75, mode=mode)
    for axis in (0, 1):
        ramp = np.linspace(0, 255, shape[axis])
        levels = np.broadcast_to(ramp[:, None] if axis == 0 else ramp, shape)
        image = np.repeat(np.rint(levels).astype(np.uint8)[..., None], 3, axis=2)
        heat = resize(image, size, mode=mode)[..., 0] / np.float32(255)
        found = placed(heat, shape=shape, size=size, mode=mode)
        assert (found.shape, found.dtype) == (shape, np.float32)
        rows, columns = np.arange(shape[0])[:, None] + 0.5, np.arange(shape[1]) + 0.5
        inside = (top <= rows) & (rows <= bottom) & (left <= columns) & (columns <= right)
        cell = (bottom - top, right - left)[axis] / size * 255 / shape[axis]  # grey levels from one pixel to the next
        np.testing.assert_allclose(found[inside], levels[inside] / 255, atol=(1.2 + cell / 2) / 255)
        assert (found[~inside] == 0).all()
        assert inside.any()


def test_the_part_that_is_seen():
    assert seen((300, 500), 75, mode="squash") == (0, 0, 500, 300)
    assert seen((300, 500), 75, mode="center_crop") == (100, 0, 400, 300)
    # 85 pixels stand for 300, and the middle 75 of them and of 141 are taken: from 5 and from 33
    np.testing.assert_allclose(seen((300, 500), 75, mode="timm"), np.array([33 / 141, 5 / 85, 108 / 141, 80 / 85])
                               * [500, 300, 500, 300])  # fmt: skip
    with pytest.raises(ValueError, match="mode='crop'"):
        seen((300, 500), 75, mode="crop")


def test_pixels_outside_of_the_part_that_is_seen_do_not_matter():
    """Beyond a margin, since the filters of Pillow reach a few pixels over the border."""
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (300, 500, 3), np.uint8)
    for mode in RESIZES:
        left, top, right, bottom = (round(edge) for edge in seen((300, 500), 75, mode=mode))
        other, reach = 255 - image, 16
        other[max(0, top - reach) : bottom + reach, max(0, left - reach) : right + reach] = image[
            max(0, top - reach) : bottom + reach, max(0, left - reach) : right + reach
        ]
        np.testing.assert_array_equal(resize(other, 75, mode=mode), resize(image, 75, mode=mode))


def test_a_map_on_a_smaller_copy():
    heat = np.random.default_rng(0).random((8, 8), np.float32)
    whole = placed(heat, shape=(300, 500), size=75, mode="center_crop")
    small_one = placed(heat, shape=(300, 500), size=75, mode="center_crop", output=(60, 100))
    assert small_one.shape == (60, 100)
    np.testing.assert_allclose(small_one, whole[2::5, 2::5], atol=1e-6)  # the middles of 5 by 5 pixels
    assert placed(heat[:1, :1], shape=(3, 4), size=75, mode="squash") == pytest.approx(heat[0, 0])


# colours --------------------------------------------------------------------------------------------------------------


def test_normalized_maps():
    np.testing.assert_array_equal(normalized(np.float32([[0, 2], [1, 4]])), [[0, 0.5], [0.25, 1]])
    np.testing.assert_array_equal(normalized(np.zeros((2, 2), np.float32)), np.zeros((2, 2)))


def test_colours_are_transparent_at_0_and_an_overlay_shows_the_image_there():
    heat = np.float32([[0, 0.5, 1]])
    drawn = colours(heat)
    assert (drawn.shape, drawn.dtype) == ((1, 3, 4), np.uint8)
    assert drawn[0, :, 3].tolist() == [0, 128, 255]
    image = np.full((1, 3, 3), 100, np.uint8)
    over = overlay(image, heat)
    assert over.dtype == np.uint8
    assert over[0, 0].tolist() == [100, 100, 100]
    np.testing.assert_allclose(over[0, 2], (100 + drawn[0, 2, :3].astype(float)) / 2, atol=0.51)
    np.testing.assert_array_equal(overlay(image, heat, opacity=1)[0, 2], drawn[0, 2, :3])
    reference = Image.alpha_composite(
        Image.fromarray(image).convert("RGBA"), Image.fromarray(np.dstack([drawn[..., :3], drawn[..., 3:]]))
    )
    np.testing.assert_allclose(overlay(image, heat, opacity=1), np.asarray(reference)[..., :3], atol=1)
