"""HEIC files: read with pi-heif as all other images are; without it refused with the line that installs it.

The files in tests/data were made by pillow-heif from four areas of one colour each.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data import flat, opened

from jaxcat.data.images import heif
from jaxcat.data.images.decoding import decode
from jaxcat.data.images.profiles import of_code_points
from jaxcat.data.indexing.skipped import Reason, Skipped
from jaxcat.data.indexing.walking import walk
from jaxcat.data.records import digest_of
from jaxcat.errors import DataError

REPOSITORY = Path(__file__).resolve().parent.parent
FILES = Path(__file__).parent / "data"
STORED = np.full((32, 48, 3), 180, np.uint8)
STORED[:16, :24], STORED[:16, 24:], STORED[16:, :24] = (200, 90, 90), (90, 200, 90), (90, 90, 200)
with_pi_heif = pytest.mark.skipif(not heif.installed(), reason=f"pi-heif is not installed: {heif.INSTALL}")


def difference(shown: np.ndarray, expected: np.ndarray) -> int:
    """The largest one away from the borders of the areas, which the compression blurs."""
    assert shown.shape == expected.shape
    inner = np.abs(shown.astype(int) - expected)
    height, width = shown.shape[:2]
    return max(inner[y::16, x::16].max() for y in (4, 8, 12) for x in (4, 8, 12) if y < height and x < width)


@with_pi_heif
def test_a_turned_photograph_is_upright():
    assert difference(decode(FILES / "turned.heic", "x"), np.rot90(STORED, -1)) <= 4


@with_pi_heif
def test_ten_bits_become_eight():
    assert difference(decode((FILES / "ten_bits.heic").read_bytes(), "x"), STORED) <= 4


@with_pi_heif
def test_colours_of_phones_are_those_of_a_png_with_the_same_profile():
    file = io.BytesIO()
    Image.fromarray(STORED).save(file, "PNG", icc_profile=of_code_points(12, 13))
    expected = decode(file.getvalue(), "x")
    assert difference(decode(FILES / "display_p3.heic", "x"), expected) <= 5
    assert np.abs(expected.astype(int) - STORED).max() > 10, "the profile changes nothing"


@with_pi_heif
@pytest.mark.parametrize(
    ("name", "cut", "said"), [("pq", None, "high dynamic range"), ("turned", 600, "a HEIC file, ")]
)
def test_what_is_not_read_is_named(name, cut, said):
    with pytest.raises(DataError, match=said):
        decode((FILES / f"{name}.heic").read_bytes()[:cut], name)


@with_pi_heif
def test_the_digest_of_a_heic_changes_with_its_decoder(monkeypatch):
    import pi_heif

    files = [(FILES / "turned.heic").read_bytes(), b"\xff\xd8 another file"]
    before = [digest_of(file) for file in files]
    monkeypatch.setattr(pi_heif, "__version__", "9.9")
    after = [digest_of(file) for file in files]
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_folders_with_photographs_of_phones(tmp_path):
    flat(tmp_path, cat=3, dog=3)
    shutil.copy(FILES / "turned.heic", tmp_path / "cat" / "IMG_1.HEIC")
    data = opened(tmp_path)
    assert sum(map(len, data.splits.values())) == 6 + heif.installed()
    assert data.skipped.count(Reason.HEIC) == len(data.skipped) == (not heif.installed())
    for rules, count in ((2, 6), (3, 7), (4, 6), (5, 7)):  # a run keeps its rules, whatever is installed since
        skipped = Skipped()
        assert len(list(walk(tmp_path, skipped, rules=rules))) == count
        assert skipped.count(Reason.HEIC) == len(skipped) == 7 - count


def test_without_pi_heif_the_error_has_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(heif, "installed", lambda: False)
    with pytest.raises(DataError, match=r"HEIC.*pip install .*heif.*JPEG"):
        decode(FILES / "turned.heic", "x")


def test_pi_heif_is_imported_for_heic_files_only(tmp_path):
    flat(tmp_path, cat=1)
    program = (
        "import sys; from pathlib import Path; from jaxcat.data.images.decoding import decode;"
        "[decode(path, 'x') for path in Path(sys.argv[1]).rglob('*.png')]; print('pi_heif' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout == "False\n", done.stderr
