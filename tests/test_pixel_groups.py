"""Groups of records that count as one: by decoded pixels, whose digests the cache keeps, and by `split.groups`."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from test_data import opened
from test_twins import fill, noise

from jaxcat import cache
from jaxcat.data import pixel_groups
from jaxcat.data.pixel_groups import groups_of
from jaxcat.data.records import Split, digest_of
from jaxcat.data.streaming import decode_all, stores_of
from jaxcat.errors import DataError
from jaxcat.system.files import cache_dir


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Train has four images a class; dog/3.bmp has the pixels of cat/0.png, and dog/copy.png its bytes."""
    fill(tmp_path / "images")
    train = tmp_path / "images" / "train"
    Image.open(train / "cat/0.png").save(train / "dog/3.bmp")
    (train / "dog/3.png").unlink()
    shutil.copy(train / "cat/0.png", train / "dog/copy.png")
    return tmp_path / "images"


def grouped(split: Split, **changes) -> list[int]:
    split = dataclasses.replace(split, **changes)
    digests = [split.digest(index) for index in range(len(split))]
    return groups_of(split, digests, console=Console(quiet=True)).tolist()


def counted(split: Split) -> tuple[Split, list[str]]:
    """The split, and the names of the records that are decoded."""
    names, lock = [], threading.Lock()

    class Counting(Split):
        def _decoded(self, content, index, *, shown):
            with lock:
                names.append(self.files[index])
            return super()._decoded(content, index, shown=shown)

    fields = {field.name: getattr(split, field.name) for field in dataclasses.fields(split)}
    return Counting(**fields), names


def partition(names: list) -> set[frozenset[int]]:
    """Which records share a name, whatever the names are."""
    return {frozenset(i for i, name in enumerate(names) if name == each) for each in names}


def pairs_file() -> Path:
    (path,) = cache_dir().glob("pixels/*/*.pairs")
    return path


def test_images_with_the_same_pixels_share_a_number(folder):
    train = opened(folder).splits["train"]
    assert train.files == tuple(f"train/cat/{i}.png" for i in range(4)) + tuple(
        f"train/dog/{name}" for name in ("0.png", "1.png", "2.png", "3.bmp", "copy.png")
    )
    found = grouped(train)
    assert found == [0, 1, 2, 3, 4, 5, 6, 0, 0]
    pixels = [hashlib.sha256(np.asarray(Image.open(folder / name)).tobytes()).hexdigest() for name in train.files]
    assert partition(found) == partition(pixels)


def test_the_shape_of_an_image_counts(folder):
    flat = np.full((6, 8, 3), 7, np.uint8)
    Image.fromarray(flat).save(folder / "train/cat/0.png")
    Image.fromarray(flat.reshape(8, 6, 3)).save(folder / "train/cat/1.png")
    found = grouped(opened(folder).splits["train"])
    assert found[0] != found[1]


def test_records_of_one_group_and_chains_share_a_number(folder):
    train = opened(folder).splits["train"]
    patients = ("a", "b", "b", "c", "a", "d", "e", "e", "f")  # cat/0, dog/3 and dog/copy have the same pixels
    assert grouped(train, groups=patients) == [0, 1, 1, 2, 0, 3, 0, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_components_are_those_of_a_walk_over_all_pairs(seed):
    generator = np.random.default_rng(seed)
    images = [noise(int(number), 4, 5) for number in generator.integers(0, 30, 40)]
    names = tuple(map(str, generator.integers(0, 30, 40)))
    split = Split("train", tuple(map(str, range(40))), np.zeros(40, np.int32), images.__getitem__)
    found = grouped(split, groups=names)
    component = list(range(40))
    for _ in range(40):  # the least number of a neighbour, until nothing changes
        for i in range(40):
            near = [j for j in range(40) if names[i] == names[j] or np.array_equal(images[i], images[j])]
            component[i] = min(component[j] for j in near)
    assert partition(found) == partition(component)
    assert found == np.unique(component, return_inverse=True)[1].tolist()  # numbered by the first of each


def test_no_records():
    empty = Split("train", (), np.zeros(0, np.int32), lambda _: b"", groups=())
    assert groups_of(empty, [], console=Console(quiet=True)).shape == (0,)


def test_a_second_call_decodes_nothing(folder):
    train, names = counted(opened(folder).splits["train"])
    first = grouped(train)
    assert len(names) == 8  # of nine: two have the same bytes
    assert len({"train/cat/0.png", "train/dog/copy.png"} & set(names)) == 1
    names.clear()
    assert grouped(train) == first
    assert names == []


def test_a_changed_image_is_decoded_alone(folder):
    train, names = counted(opened(folder).splits["train"])
    grouped(train)
    names.clear()
    Image.fromarray(noise(99)).save(folder / "train/dog/3.bmp")
    assert grouped(train) == [0, 1, 2, 3, 4, 5, 6, 7, 0]
    assert names == ["train/dog/3.bmp"]


def test_what_a_run_has_decoded_is_not_decoded_again(folder):
    from jaxcat.config import default

    config = default()
    config.data.dir, config.data.image_size = str(folder), 75
    data = opened(folder)
    stores = stores_of(config, data.splits)
    decode_all(stores, Console(quiet=True), classes=data.classes, skip_bad=False)
    train, names = counted(data.splits["train"])
    assert grouped(train) == [0, 1, 2, 3, 4, 5, 6, 0, 0]
    assert names == []
    assert list(stores["train"].pixels) == [digest_of(train.fetch(index)) for index in range(len(train))]


@pytest.mark.parametrize("change", ["version", "grey_bits"])
def test_images_decoded_in_another_way_are_decoded_again(change, folder, monkeypatch):
    train, names = counted(opened(folder).splits["train"])
    grouped(train)
    names.clear()
    if change == "version":
        monkeypatch.setattr(pixel_groups, "DECODE_VERSION", pixel_groups.DECODE_VERSION + 1)
    else:
        train = dataclasses.replace(train, decoding=train.decoding._replace(grey_bits=12))
    grouped(train)
    assert len(names) == 8  # nine files, two of them with the same bytes


@pytest.mark.parametrize("damage", [lambda old: old[:-1], lambda old: bytes([old[0] ^ 1]) + old[1:], lambda old: b""])
def test_a_damaged_file_is_made_again(damage, folder, caplog):
    train, names = counted(opened(folder).splits["train"])
    first = grouped(train)
    path = pairs_file()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    names.clear()
    assert grouped(train) == first
    assert len(names) == 8
    assert "is damaged" in caplog.text
    assert pairs_file() == path
    assert path.read_bytes() == whole


def test_runs_at_the_same_time_leave_one_whole_file(folder):
    train = opened(folder).splits["train"]
    found: list[list[int]] = []
    threads = [threading.Thread(target=lambda: found.append(grouped(train))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[0, 1, 2, 3, 4, 5, 6, 0, 0]] * 8
    assert len(pairs_file().read_bytes()) == 8 * 32
    assert [path.name for path in pairs_file().parent.iterdir()] == [pairs_file().name]


def test_a_cache_that_cannot_be_written_is_done_without(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path / "file"))
    train, names = counted(opened(folder).splits["train"])
    for _ in range(2):
        assert grouped(train) == [0, 1, 2, 3, 4, 5, 6, 0, 0]
    assert len(names) == 16


def test_an_unreadable_image_is_named(folder):
    train = opened(folder).splits["train"]
    (folder / "train/cat/2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2\.png"):
        grouped(train)


def test_the_command_lists_and_clears_the_digests(folder, capsys):
    grouped(opened(folder).splits["train"])
    assert cache.main(["list"]) == 0
    assert "digests of decoded images" in capsys.readouterr().out
    assert cache.main(["clear", "--all"]) == 0
    assert "removed pixels" in capsys.readouterr().out
    assert not (cache_dir() / "pixels").exists()
