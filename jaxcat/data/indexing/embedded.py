"""Data that come inside Python packages: scikit-learn's digits, glyphs of matplotlib's fonts.

Scanned handwriting and printed glyphs are both 8×8 pixels, bright ink on black. Both are then rotated, scaled and
shifted a little onto a 75×75 canvas, so that a network trained on print can be transferred to handwriting. A record's
placement depends on its name alone: neither the seed nor the split changes an image.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxcat.data.division import divide
from jaxcat.data.records import Data, Split, choose_classes, keep_classes, rank_key

CANVAS = 75  # pixels; the smallest input of Inception-v3
DETAIL = 8  # pixels across a digit of load_digits; its values are 0 … 16
MAX_ROTATION = 15.0  # degrees, either way
SCALES = (0.6, 0.8)  # side of the 8×8 square as a fraction of the canvas
MAX_SHIFT = 0.07  # of the canvas, either way, in x and in y
PLACEMENTS = 4  # images of each printed glyph

# Left out are letters that look like another glyph at 8×8 pixels (c k o p s u v w x z γ π ψ …, and l, which looks like
# I), and digits, the classes that the demonstration transfers to. The keys are the class names in files and tables.
GLYPHS: Mapping[str, str] = {
    **{letter: letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"},
    **{f"{letter}_lower": letter for letter in "abdefghijmnqrty"},
    **{"Gamma": "Γ", "Delta": "Δ", "Theta": "Θ", "Lambda": "Λ", "Xi": "Ξ", "Pi": "Π", "Sigma": "Σ", "Phi": "Φ"},
    **{"Psi": "Ψ", "Omega": "Ω", "alpha": "α", "beta": "β", "delta": "δ", "epsilon": "ε", "zeta": "ζ"},
    **{"lambda": "λ", "mu": "μ", "xi": "ξ", "sigma": "σ", "tau": "τ", "phi": "φ", "omega": "ω"},
    **{"ampersand": "&", "percent": "%", "at": "@", "hash": "#", "dollar": "$", "question": "?", "plus": "+"},
    **{"equals": "=", "less": "<", "greater": ">", "section": "§", "asterisk": "*"},
}

FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
)
# Outside A–Z and a–z, Computer Modern does not follow Unicode, so only its letters are used.
LETTER_FONTS = ("cmr10", "cmb10", "cmss10", "cmtt10", "cmti10", "cmmi10")


def open_digits(config: Any) -> Data:
    """The 1,797 scanned digits, classes "0" … "9".

    `data.validation_fraction` of each digit is held out, then the two parts are cut to `data.train_size` and
    `data.validation_size`. The records that are left are the test split; if none are left, there is no test split.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    patches = np.round(digits.images * (255 / 16)).astype(np.uint8)
    files = tuple(f"digits/{index:04d}" for index in range(len(patches)))
    everything = Split(
        "test", files, digits.target.astype(np.int32), lambda index: place(patches[index], name=files[index])
    )
    available = tuple("0123456789")
    classes = choose_classes(available, config.data.classes)
    everything = keep_classes(everything, available, classes)
    splits = divide({"train": everything.take(np.arange(len(everything)), "train")}, config, classes)
    taken = {name for split in splits.values() for name in split.files}
    rest = np.array([index for index, name in enumerate(everything.files) if name not in taken], np.int64)
    if len(rest):
        splits["test"] = everything.take(rest)
    return Data(classes, splits)


def open_glyphs(config: Any) -> Data:
    """Printed letters, Greek and symbols: 75 classes in up to 22 fonts, four placements of each.

    Whole fonts are held out: `data.validation_fraction` of them, chosen by the seed among those that have every glyph,
    so validation measures letter shapes that are not in train. (Other weights and slants of the same family may stay in
    train.) With `data.fold`, each font is in one fold.
    """
    patches = printed()
    available = tuple(GLYPHS)
    classes = choose_classes(available, config.data.classes)
    wanted = round(config.data.validation_fraction * len(FONTS + LETTER_FONTS))
    held_count = max(1, min(wanted, len(FONTS) - 1)) if config.data.validation_fraction else 0
    held = set(sorted(FONTS, key=lambda font: rank_key(config.seed, font))[:held_count])
    splits = {}
    if config.data.fold:
        held = set()
    for name, fonts in (("train", set(FONTS + LETTER_FONTS) - held), ("validation", held)):
        split = _glyph_split(name, {key: patch for key, patch in patches.items() if key[0] in fonts})
        splits[name] = keep_classes(split, available, classes)
    if config.data.fold:
        del splits["validation"]
    return Data(classes, divide(splits, config, classes))


def place(patch: np.ndarray, *, name: str) -> np.ndarray:
    """Rotates, scales and shifts a small image onto the canvas, bilinearly and by amounts from a hash of its name.

    Args:
        patch: uint8 (DETAIL, DETAIL), bright ink on black.
        name: the name of the record.

    Returns:
        uint8 (CANVAS, CANVAS, 3), grey.
    """
    numbers = np.frombuffer(rank_key(0, name), np.uint32) / 2.0**32  # four of them, uniform in [0, 1)
    angle = math.radians((2 * numbers[0] - 1) * MAX_ROTATION)
    side = CANVAS * (SCALES[0] + numbers[1] * (SCALES[1] - SCALES[0]))
    center_x, center_y = CANVAS * (0.5 + (2 * numbers[2:] - 1) * MAX_SHIFT)
    pad = 1  # black pixels around the patch: its edge fades instead of being cut
    padded = np.zeros((DETAIL + 2 * pad, DETAIL + 2 * pad), np.uint8)
    padded[pad:-pad, pad:-pad] = patch
    step = DETAIL / side  # patch pixels per canvas pixel
    cosine, sine = math.cos(angle) * step, math.sin(angle) * step
    middle = DETAIL / 2 + pad
    inverse = (
        *(cosine, sine, middle - cosine * center_x - sine * center_y),
        *(-sine, cosine, middle + sine * center_x - cosine * center_y),
    )
    canvas = Image.fromarray(padded).transform(
        (CANVAS, CANVAS), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR
    )
    return np.asarray(canvas.convert("RGB"))


def _glyph_split(name: str, patches: dict[tuple[str, str], np.ndarray]) -> Split:
    """A split with all placements of every glyph in `patches`, which maps (font, class) to a patch."""
    names = list(GLYPHS)
    keys = [key for key in patches for _ in range(PLACEMENTS)]
    files = tuple(f"glyphs/{font}/{glyph}/{number}" for font, glyph in patches for number in range(PLACEMENTS))
    labels = np.array([names.index(glyph) for _, glyph in keys], np.int32)
    fonts = tuple(font for font, _ in keys)
    return Split(name, files, labels, lambda index: place(patches[keys[index]], name=files[index]), groups=fonts)


@functools.cache
def printed() -> dict[tuple[str, str], np.ndarray]:
    """Maps (font, class) to the glyph at the resolution of the scanned digits, uint8 (DETAIL, DETAIL)."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    patches = {}
    for font_name in FONTS + LETTER_FONTS:
        path = folder / f"{font_name}.ttf"
        font = ImageFont.truetype(path, 16 * DETAIL)
        has = FT2Font(path).get_charmap()
        for glyph, character in GLYPHS.items():
            letter = character.isascii() and character.isalpha()
            if ord(character) in has and (letter or font_name in FONTS):
                patches[font_name, glyph] = _render(font, character)
    return patches


def _render(font: ImageFont.FreeTypeFont, character: str) -> np.ndarray:
    """Draws a character that fills the patch in height or width, and rounds it to 17 levels, as the digits have."""
    left, top, right, bottom = (int(edge) for edge in font.getbbox(character))
    drawn = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(drawn).text((-left, -top), character, fill=255, font=font)
    scale = DETAIL / max(drawn.size)
    width, height = (max(1.0, scale * edge) for edge in drawn.size)
    fine = 8  # pixels per pixel of the patch
    drawn = drawn.resize((round(width * fine), round(height * fine)), Image.Resampling.BILINEAR)
    square = Image.new("L", (DETAIL * fine, DETAIL * fine))
    square.paste(drawn, ((square.width - drawn.width) // 2, (square.height - drawn.height) // 2))
    levels = np.asarray(square.resize((DETAIL, DETAIL), Image.Resampling.BOX)).astype(np.float64) * (16 / 255)
    return np.round(np.round(levels) * (255 / 16)).astype(np.uint8)
