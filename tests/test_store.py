"""The store gives the same images from memory and on demand, and knows every one that cannot be read."""

import numpy as np
import pytest
from rich.console import Console
from small import draw, image_folder

from jaxcat.config import default
from jaxcat.data.images.decoding import decode
from jaxcat.data.images.resizing import resize
from jaxcat.data.records import Data, Split, order
from jaxcat.data.sources import open_data
from jaxcat.data.store import Store, open_stores
from jaxcat.data.streaming import Streaming
from jaxcat.errors import DataError
from jaxcat.system.devices import make_mesh

SIZE = 32


@pytest.fixture
def splits(tmp_path) -> dict[str, Split]:
    """Train with 2 × 6 images and validation with 2 × 3, not all of one shape."""
    folder = image_folder(tmp_path / "data", train=6, validation=3)
    draw("disc", np.random.default_rng(1)).resize((120, 60)).save(folder / "train/disc/000.png")
    config = default()
    config.data.dir = str(folder)
    return open_data(config).splits


def opened(splits, *, cache_gb=1.0, **options) -> dict[str, Store]:
    options = {"mode": "squash", "workers": 2, **options}
    return open_stores(splits, sizes=dict.fromkeys(splits, SIZE), cache_gb=cache_gb, **options)


@pytest.mark.parametrize("mode", ["squash", "center_crop"])
def test_memory_and_disk_give_the_same_bytes(splits, mode, tmp_path):
    held, on_demand = opened(splits, mode=mode), opened(splits, mode=mode, cache_gb=0.0)
    assert held["train"].in_memory
    assert not on_demand["train"].in_memory
    indices = np.array([11, 0, 5, 0])
    for name, split in splits.items():
        assert len(held[name]) == len(on_demand[name]) == len(split)
        for index, file in enumerate(split.files):
            expected = resize(decode(tmp_path / "data" / file, file), SIZE, mode=mode)
            np.testing.assert_array_equal(held[name][index], expected)
            np.testing.assert_array_equal(on_demand[name][index], expected)
    gathered = held["train"].gather(indices)
    assert gathered.shape == (4, SIZE, SIZE, 3)
    assert gathered.dtype == np.uint8
    np.testing.assert_array_equal(gathered, on_demand["train"].gather(indices))
    np.testing.assert_array_equal(gathered, np.stack([held["train"][i] for i in indices]))


def test_what_is_gathered_is_the_callers_and_the_store_stays_as_it_is(splits):
    store = opened(splits)["train"]
    before = store[3].copy()
    store.gather(np.array([3]))[:] = 0
    np.testing.assert_array_equal(store[3], before)
    with pytest.raises(ValueError, match="read-only"):
        store[3][:] = 0


def test_splits_share_the_memory_in_their_order(splits):
    """12 + 6 images of 3 KiB: one limit for both."""
    image = SIZE * SIZE * 3 / 2**30
    for limit, expected in ((18.5, (True, True)), (17.5, (True, False)), (11.5, (False, True)), (5.5, (False, False))):
        stores = opened(splits, cache_gb=limit * image)
        assert (stores["train"].in_memory, stores["validation"].in_memory) == expected


def spoil(tmp_path) -> list[str]:
    """Damages three images of twelve in train and one in validation."""
    folder = tmp_path / "data"
    (folder / "train/disc/001.png").write_bytes(b"")
    (folder / "train/disc/004.png").write_bytes(b"<html>")
    (folder / "train/square/005.png").write_bytes((folder / "train/square/005.png").read_bytes()[:-500])
    (folder / "validation/square/000.png").unlink()
    return ["train/disc/001.png", "train/disc/004.png", "train/square/005.png", "validation/square/000.png"]


@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_one_error_lists_every_unreadable_image(splits, cache_gb, tmp_path):
    bad = spoil(tmp_path)
    with pytest.raises(DataError) as caught:
        opened(splits, cache_gb=cache_gb)
    message = str(caught.value)
    assert message.startswith("4 of 18 images cannot be read")
    lines = [line.strip() for line in message.splitlines() if str(tmp_path) in line]
    assert [line.split(": ")[0] for line in lines] == [str(tmp_path / "data" / name) for name in bad]
    for line, reason in zip(lines, ("empty", "HTML", "truncated", "No such file"), strict=True):
        assert reason in line
    assert "--config.data.skip_bad=True" in message


@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_skip_bad_leaves_them_out_and_says_how_many(splits, cache_gb, tmp_path, caplog):
    good = {name: opened(splits)[name] for name in splits}
    bad = spoil(tmp_path)
    stores = opened(splits, cache_gb=cache_gb, skip_bad=True)
    messages = [record.getMessage() for record in caplog.records]
    assert [message.split(" images")[0] for message in messages] == ["3 of 12", "1 of 6"]
    assert "001.png" in messages[0]
    for name, split in splits.items():
        left = [i for i, file in enumerate(split.files) if file not in bad]
        store = stores[name]
        assert store.split.files == tuple(split.files[i] for i in left)
        np.testing.assert_array_equal(store.split.labels, split.labels[left])
        assert len(store) == len(left)
        assert len(store.unreadable) == len(split) - len(left)
        for position, index in enumerate(left):
            np.testing.assert_array_equal(store[position], good[name][index])
        np.testing.assert_array_equal(store.gather(np.arange(len(left))), good[name].gather(np.array(left)))


def test_skip_bad_refuses_to_lose_a_whole_class(splits, tmp_path):
    for path in (tmp_path / "data/validation/disc").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no readable image is left of 1 class.* in validation.*disc.*empty"):
        opened(splits, skip_bad=True)


def test_a_image_lost_after_the_check_is_an_error_that_names_it(splits, tmp_path):
    store = opened(splits, cache_gb=0.0)["train"]
    (tmp_path / "data" / splits["train"].files[2]).unlink()
    with pytest.raises(DataError, match=splits["train"].files[2]):
        store.gather(np.array([1, 2]))


def test_progress_ends_at_the_whole_number(splits):
    reports = []
    opened({"train": splits["train"]}, progress=reports.append)
    assert sum(reports) == 12


def test_nothing_is_decoded_before_it_is_prepared(splits, monkeypatch):
    monkeypatch.setattr(Split, "examine", None)
    store = Store(splits["train"], size=SIZE, mode="squash", cache_gb=1.0)
    assert (len(store), store.in_memory) == (12, True)
    with pytest.raises(TypeError):
        store.prepare()


@pytest.mark.parametrize("skip", [False, True])
def test_streaming_decodes_when_it_is_prepared(splits, tmp_path, skip):
    """Before, its splits are the data's own; after, unreadable images are left out or refused."""
    config = default()
    config.data.image_size, config.data.skip_bad = SIZE, skip
    source = Streaming(config, Data(("disc", "square"), splits), mesh=make_mesh())
    bad = spoil(tmp_path)
    assert source.splits == splits
    assert source.describe() == "12 train / 6 validation images, in memory"
    if not skip:
        with pytest.raises(DataError, match="4 of 18 images cannot be read"):
            source.prepare(Console(quiet=True))
        return
    assert source.prepare(Console(quiet=True)) == 0
    assert source.describe() == "9 train / 5 validation images, in memory"
    assert not set(bad) & {file for split in source.splits.values() for file in split.files}
    (batch,) = source.train(0, first=0)
    assert np.asarray(batch["mask"]).sum() == 9


def test_a_stop_ends_the_work_with_its_status_and_changes_nothing(splits, tmp_path, monkeypatch):
    spoil(tmp_path)
    monkeypatch.setattr("jaxcat.data.store._REPORTED", 5)
    store, asked = Store(splits["train"], size=SIZE, mode="squash", cache_gb=1.0), []

    def stop() -> int:
        asked.append(True)
        return 143 if len(asked) == 2 else 0

    assert store.prepare(stop=stop) == 143
    assert len(store) == 12
    assert not store.unreadable
    assert store.prepare(stop=stop) == 0
    assert len(asked) == 2 + 2  # at 5 and at 10 images
    assert len(store) == 9


def test_order_is_a_permutation_of_seed_and_epoch():
    visits = order(1000, seed=3, epoch=2)
    np.testing.assert_array_equal(np.sort(visits), np.arange(1000))
    np.testing.assert_array_equal(visits, order(1000, seed=3, epoch=2))
    for seed, epoch in ((3, 1), (2, 3), (4, 2), (0, 0)):
        assert (visits == order(1000, seed=seed, epoch=epoch)).mean() < 0.05


def test_orders_stay_the_same_from_version_to_version():
    """A run that goes on after an update of numpy must visit what it would have visited."""
    assert order(8, seed=0, epoch=1).tolist() == [1, 3, 7, 6, 0, 4, 2, 5]
