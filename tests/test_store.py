"""The store gives the same pictures from memory and on demand, and knows every one that cannot be read."""

import numpy as np
import pytest
from small import draw, picture_folder

from jaxcat.config import default
from jaxcat.data import Split, Store, open_data, open_stores, order
from jaxcat.errors import DataError
from jaxcat.images import decode, resize

SIZE = 32


@pytest.fixture
def splits(tmp_path) -> dict[str, Split]:
    """Train with 2 × 6 pictures and validation with 2 × 3, not all of one shape."""
    folder = picture_folder(tmp_path / "data", train=6, validation=3)
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
    """12 + 6 pictures of 3 KiB: one limit for both."""
    picture = SIZE * SIZE * 3 / 2**30
    for limit, expected in ((18.5, (True, True)), (17.5, (True, False)), (11.5, (False, True)), (5.5, (False, False))):
        stores = opened(splits, cache_gb=limit * picture)
        assert (stores["train"].in_memory, stores["validation"].in_memory) == expected


def spoil(tmp_path) -> list[str]:
    """Damages three pictures of twelve in train and one in validation."""
    folder = tmp_path / "data"
    (folder / "train/disc/001.png").write_bytes(b"")
    (folder / "train/disc/004.png").write_bytes(b"<html>")
    (folder / "train/square/005.png").write_bytes((folder / "train/square/005.png").read_bytes()[:-500])
    (folder / "validation/square/000.png").unlink()
    return ["train/disc/001.png", "train/disc/004.png", "train/square/005.png", "validation/square/000.png"]


@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_one_error_lists_every_unreadable_picture(splits, cache_gb, tmp_path):
    bad = spoil(tmp_path)
    with pytest.raises(DataError) as caught:
        opened(splits, cache_gb=cache_gb)
    message = str(caught.value)
    assert message.startswith("4 of 18 pictures cannot be read")
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
    assert [message.split(" pictures")[0] for message in messages] == ["3 of 12", "1 of 6"]
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
    with pytest.raises(DataError, match="no readable picture is left of 1 class.* in validation.*disc.*empty"):
        opened(splits, skip_bad=True)


def test_a_picture_lost_after_the_check_is_an_error_that_names_it(splits, tmp_path):
    store = opened(splits, cache_gb=0.0)["train"]
    (tmp_path / "data" / splits["train"].files[2]).unlink()
    with pytest.raises(DataError, match=splits["train"].files[2]):
        store.gather(np.array([1, 2]))


def test_progress_ends_at_the_whole_number(splits):
    reports = []
    opened({"train": splits["train"]}, progress=reports.append)
    assert sum(reports) == 12


def test_order_is_a_permutation_of_seed_and_epoch():
    visits = order(1000, seed=3, epoch=2)
    np.testing.assert_array_equal(np.sort(visits), np.arange(1000))
    np.testing.assert_array_equal(visits, order(1000, seed=3, epoch=2))
    for seed, epoch in ((3, 1), (2, 3), (4, 2), (0, 0)):
        assert (visits == order(1000, seed=seed, epoch=epoch)).mean() < 0.05


def test_orders_stay_the_same_from_version_to_version():
    """A run that goes on after an update of numpy must visit what it would have visited."""
    assert order(8, seed=0, epoch=1).tolist() == [1, 3, 7, 6, 0, 4, 2, 5]
