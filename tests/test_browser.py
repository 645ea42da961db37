"""What jaxcat decodes is what Chromium 150 showed: its pixels are kept, so the test needs no browser.

tests/data/browser.npz is written by scripts/make_image_corpus.py and scripts/compare_browser.py --write.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxcat.data.images.decoding import decode
from jaxcat.errors import DataError

PATH = Path(__file__).with_name("data") / "browser.npz"
TOLERANCE = 1  # grey levels: browsers round colours of wide profiles, alpha and 5-bit colours in other places
# Where jaxcat differs on purpose; docs/reliability.md says why.
REFUSED = {"cicp_pq.png", "cicp_hlg.png", "code_points_pq.avif"}
TURNED = {"orientation_6.webp"}


def kept() -> dict[str, tuple[bytes, np.ndarray]]:
    """File name → its content and what the browser showed, uint8 (H, W, 3)."""
    with np.load(PATH) as file:
        names = [name.removeprefix("file: ") for name in file.files if name.startswith("file: ")]
        return {name: (file[f"file: {name}"].tobytes(), file[f"shown: {name}"]) for name in names}


KEPT = kept()


@pytest.mark.parametrize("name", sorted(KEPT.keys() - REFUSED - TURNED))
def test_every_kind_of_image_looks_as_in_a_browser(name):
    encoded, shown = KEPT[name]
    ours = decode(encoded, name)
    assert ours.shape == shown.shape
    assert np.abs(ours.astype(int) - shown).max() <= TOLERANCE


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_high_dynamic_range_is_refused(name):
    encoded, shown = KEPT[name]
    assert shown.size, "a browser maps it to the range of the screen in a way of its own"
    with pytest.raises(DataError, match=f"{name}: its colours have a high dynamic range"):
        decode(encoded, name)


def test_a_webp_is_turned_upright_where_the_browser_shows_it_as_stored():
    encoded, shown = KEPT["orientation_6.webp"]
    assert np.array_equal(decode(encoded, "x"), np.rot90(shown, -1))


def test_the_corpus_is_of_many_kinds_and_its_images_differ():
    assert len(KEPT) > 120
    assert len({shown.tobytes() for _, shown in KEPT.values()}) > 60
    assert {name.rpartition(".")[2] for name in KEPT} == {"png", "jpg", "gif", "webp", "avif", "bmp", "ico"}
