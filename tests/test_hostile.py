"""Everything that turns up among images: what a browser shows is read as it shows it, the rest is named."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import make_hostile_images as hostile
import numpy as np
import pytest
import small
from PIL import Image

from jaxcat.config import default
from jaxcat.data.images import deep
from jaxcat.data.images.decoding import decode
from jaxcat.data.images.formats import open_image
from jaxcat.data.indexing.skipped import Reason, Skipped
from jaxcat.data.indexing.walking import image_files
from jaxcat.data.sources import open_data
from jaxcat.data.store import open_stores
from jaxcat.errors import DataError

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("hostile") / "corpus"
    hostile.make(root)
    yield root
    (root / "refused" / "forbidden.png").chmod(0o600)


def test_every_readable_image_is_read_as_a_browser_shows_it(corpus):
    expected = hostile.readable()
    found = list(image_files(corpus / "readable", Skipped()))
    assert {os.fsencode(path.relative_to(corpus / "readable")) for path in found} == expected.keys()
    for path in found:
        pixels = decode(path, str(path))
        shown = expected[os.fsencode(path.relative_to(corpus / "readable"))]
        assert pixels.dtype == np.uint8
        assert pixels.shape == shown.pixels.shape, path
        assert np.abs(pixels.astype(int) - shown.pixels).max() <= shown.tolerance, path


def test_the_corpus_holds_16_bit_images_and_orientations_that_differ():
    """What an encoder or this script quietly made ordinary would prove nothing."""
    for name, shown in hostile.readable().items():
        if name.startswith(b"16_bit"):
            assert shown.content[12:16] != b"IHDR" or shown.content[24] == 16, name
            assert not shown.content.startswith((b"II", b"MM")) or deep.is_deep(open_image(shown.content)), name
        if name.startswith(b"1x1"):
            assert shown.pixels.shape == (1, 1, 3)
    assert len({stored(hostile.example()).tobytes() for stored in hostile.STORED.values()}) == 8


def test_everything_refused_is_named_in_one_line(corpus):
    found = list(image_files(corpus / "refused", Skipped()))
    expected = len(hostile.refused()) + 4  # two links that lead nowhere, a huge file, one without permission
    assert len(found) == expected
    for path in found:
        if path.name == "forbidden.png" and os.access(path, os.R_OK):
            continue  # root may read it
        with pytest.raises(DataError) as caught:
            decode(path, str(path))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_is_no_image_by_name_or_kind_is_passed_over(corpus):
    """A FIFO would block for ever if it were opened; links back up end the walk."""
    skipped = Skipped()
    found = [path.relative_to(corpus / "passed_over") for path in image_files(corpus / "passed_over", skipped)]
    assert found == []
    assert {reason: count for reason in Reason if (count := skipped.count(reason))} == {
        Reason.LEFT: 2,  # Thumbs.db, .DS_Store
        Reason.HIDDEN: 2,  # .hidden.png, .hidden_folder/image.png
        Reason.SPECIAL: 3,  # fifo.png, the link to it, the link to a device
        Reason.OTHER: 1,  # notes.txt
    }
    for name in ("fifo.png", "link_to_fifo.png", "endless.png"):
        with pytest.raises(DataError, match="not a regular file"):
            decode(corpus / "passed_over" / name, name)


@pytest.mark.parametrize("skip", [False, True])
def test_a_class_folder_of_all_of_it(corpus, tmp_path, skip, caplog):
    data = tmp_path / "data"
    for name in ("first", "second"):
        (data / name).mkdir(parents=True)
    for number, pixels in enumerate(small.images(10)):
        Image.fromarray(pixels).save(data / "first" / f"{number}.png")
    (data / "second" / "readable").symlink_to(corpus / "readable")
    (data / "second" / "refused").symlink_to(corpus / "refused")
    config = default()
    config.data.dir = config.data.train_dir = str(data)  # `second` is a class, though folders of images are in it
    splits = open_data(config).splits
    sizes = dict.fromkeys(splits, 32)
    bad = len(hostile.refused()) + 3 + (not os.access(corpus / "refused" / "forbidden.png", os.R_OK))
    if not skip:
        with pytest.raises(DataError) as caught:
            open_stores(splits, sizes=sizes, mode="squash", cache_gb=1.0)
        assert str(caught.value).startswith(f"{bad} of ")
        assert str(caught.value).count("refused/") == bad
        return
    stores = open_stores(splits, sizes=sizes, mode="squash", cache_gb=1.0, skip_bad=True)
    assert sum(len(store.unreadable) for store in stores.values()) == bad
    assert sum(map(len, stores.values())) == sum(map(len, splits.values())) - bad


def test_memory_stays_bounded(corpus):
    """The bomb asks for 10 GiB; checking the whole corpus takes a fraction of one."""
    limit = 3 * 2**30  # of address space, most of it libraries
    done = subprocess.run(
        # the folder of what is passed over would be a class without images
        [sys.executable, "-m", "jaxcat.check", str(corpus), "--jobs", "2", "--config.data.min_per_class=1"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 1, done.stderr
    assert b"bomb.png" in done.stdout
    assert b"pixels" in done.stdout


def test_the_script_refuses_a_folder_that_is_there(tmp_path):
    done = subprocess.run(
        [sys.executable, "scripts/make_hostile_images.py", str(tmp_path)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert b"is there already" in done.stderr
