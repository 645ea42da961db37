"""The digits and glyphs that come with Python packages: what is in which split, and what the images look like."""

import numpy as np
import pytest

from jaxcat.config import default
from jaxcat.data.indexing.embedded import CANVAS, DETAIL, FONTS, GLYPHS, MAX_SHIFT, SCALES, place, printed
from jaxcat.data.sources import open_data
from jaxcat.errors import ConfigError, DataError


def opened(source: str, *, seed: int = 0, **settings):
    config = default()
    config.seed = seed
    config.data.source = source
    config.data.update(settings)
    return open_data(config)


def per_class(split, classes: int) -> set[int]:
    return set(np.bincount(split.labels, minlength=classes).tolist())


def fonts(split) -> set[str]:
    return {name.split("/")[1] for name in split.files}


def test_digits_all_1797_once():
    from sklearn.datasets import load_digits

    data = opened("digits")
    assert data.classes == tuple("0123456789")
    assert set(data.splits) == {"train", "validation"}, "nothing is left over for a test split"
    everything = [name for split in data.splits.values() for name in split.files]
    assert sorted(everything) == [f"digits/{i:04}" for i in range(1797)]
    target = load_digits().target
    for split in data.splits.values():
        assert split.labels.tolist() == [target[int(name[-4:])] for name in split.files]


def test_ten_examples_of_each_digit_and_all_others_for_the_test():
    splits = opened("digits", train_size=100, validation_size=50).splits
    assert per_class(splits["train"], 10) == {10}
    assert per_class(splits["validation"], 10) == {5}
    assert len(splits["test"]) == 1797 - 150
    everything = [name for split in splits.values() for name in split.files]
    assert len(set(everything)) == 1797


def test_some_digits_only():
    data = opened("digits", classes="7,1", train_size=20)
    assert data.classes == ("1", "7")
    assert per_class(data.splits["train"], 2) == {10}
    assert sum(map(len, data.splits.values())) == 182 + 179  # ones and sevens in load_digits
    with pytest.raises(ConfigError, match="there is no class 'seven'"):
        opened("digits", classes="1,seven")


def test_more_digits_than_there_are():
    with pytest.raises(DataError, match=r"--config\.data\.train_size=2000 asks for 200 of class '0'"):
        opened("digits", train_size=2000)


def test_a_seed_chooses_digits_and_does_not_change_how_they_look():
    images = {}
    chosen = []
    for seed in (0, 1):
        splits = opened("digits", seed=seed, train_size=100).splits
        chosen.append(set(splits["train"].files))
        images[seed] = {splits["test"].files[i]: splits["test"].fetch(i) for i in range(200)}
    assert chosen[0] != chosen[1]
    common = images[0].keys() & images[1].keys()
    assert common
    for name in common:
        np.testing.assert_array_equal(images[0][name], images[1][name])


def test_glyphs_hold_out_whole_fonts():
    data = opened("glyphs", validation_fraction=0.2)
    train, validation = data.splits["train"], data.splits["validation"]
    assert set(data.splits) == {"train", "validation"}
    assert len(data.classes) == 75
    assert not fonts(train) & fonts(validation)
    assert len(fonts(validation)) == 4
    assert len(fonts(train)) == 18
    assert per_class(validation, 75) == {16}, "four fonts with every glyph, four placements of each"
    assert min(per_class(train, 75)) >= 48, "every glyph in the twelve other fonts that have it all"
    for split in data.splits.values():
        assert [data.classes[label] for label in split.labels] == [name.split("/")[2] for name in split.files]
        assert len(set(split.files)) == len(split)


def test_the_seed_chooses_the_fonts():
    assert len({frozenset(fonts(opened("glyphs", seed=seed).splits["validation"])) for seed in range(4)}) > 1


def test_glyph_classes_are_no_digits_and_safe_as_names():
    assert not any(character.isdigit() for character in GLYPHS.values())
    assert all(name.isascii() and name.isidentifier() for name in GLYPHS)
    assert len({name.lower() for name in GLYPHS}) >= len(GLYPHS) - 6  # Phi and phi: the only thing apart is the case


def test_no_glyph_is_empty_or_another_one():
    """A font without a glyph would draw its box for missing ones: the same for all of them."""
    for font in FONTS:
        patches = [patch for (name, _), patch in printed().items() if name == font]
        assert len(patches) == len(GLYPHS)
        assert all(patch.max() > 120 for patch in patches)
        assert len({patch.tobytes() for patch in patches}) == len(GLYPHS)


@pytest.mark.parametrize("source", ["digits", "glyphs"])
def test_images_are_bright_ink_on_black_at_the_canvas_size(source):
    split = opened(source).splits["train"]
    for index in range(0, len(split), len(split) // 200):
        image = split.fetch(index)
        border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert border.sum() < 0.02 * image.sum(), "the ink lies within the canvas"
        assert image.shape == (CANVAS, CANVAS, 3)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image[:, :, 0], image[:, :, 2])
        assert image.max() > 90
        assert (image < 64).mean() > 0.5


def test_scales():
    """A full square covers as much of the canvas as its scale says."""
    patch = np.full((DETAIL, DETAIL), 255, np.uint8)
    covered = [place(patch, name=str(index)).mean() / 255 for index in range(300)]
    assert min(covered) == pytest.approx(SCALES[0] ** 2, rel=0.05)
    assert max(covered) == pytest.approx(SCALES[1] ** 2, rel=0.05)


def test_placements_move_the_centre_and_turn():
    patch = np.zeros((DETAIL, DETAIL), np.uint8)
    patch[:, 3:5] = 255  # a vertical bar
    rows, columns = np.mgrid[:CANVAS, :CANVAS] + 0.5
    centres, angles = [], []
    for index in range(300):
        ink = place(patch, name=str(index))[:, :, 0].astype(float)
        ink /= ink.sum()
        x, y = (ink * columns).sum(), (ink * rows).sum()
        centres.append((x, y))
        covariance = (ink * (columns - x) * (rows - y)).sum()
        angles.append(np.degrees(np.arctan2(covariance, (ink * (rows - y) ** 2).sum())))
    shifts = np.abs(np.array(centres) / CANVAS - 0.5)
    assert shifts.max() < MAX_SHIFT + 0.01
    assert (shifts.max(axis=0) > MAX_SHIFT * 0.9).all()
    assert 13 < max(angles) < 16
    assert -16 < min(angles) < -13


def test_placement_is_fixed():
    """Accuracies on the moved digits can be compared between versions only while they are moved alike."""
    patch = np.arange(DETAIL * DETAIL, dtype=np.uint8).reshape(DETAIL, DETAIL) * 4
    assert place(patch, name="digits/0000")[::15, ::15, 0].tolist() == [
        [0, 0, 0, 0, 0],
        [0, 0, 3, 19, 30],
        [0, 31, 59, 87, 115],
        [0, 45, 128, 156, 184],
        [0, 0, 197, 225, 191],
    ]
