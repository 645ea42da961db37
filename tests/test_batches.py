"""Every record once, in order, whatever the batch size, processes or threads; errors come out as they went in."""

import threading
import time

import jax
import numpy as np
import pytest
import small

from jaxcat.data import batches
from jaxcat.data.augmentation import host, table
from jaxcat.data.augmentation.table import Views
from jaxcat.errors import DataError
from jaxcat.system import devices


class FakeStore:
    """Random images; record 13 cannot be read when `bad`, and each fetch takes `seconds`."""

    def __init__(self, *, size: int = 8, bad: bool = False, seconds: float = 0.0) -> None:
        self.images = np.random.default_rng(0).integers(0, 256, (60, size, size, 3), np.uint8)
        self.bad = bad
        self.seconds = seconds
        self.fetched: list[int] = []
        self._lock = threading.Lock()

    def gather(self, indices: np.ndarray) -> np.ndarray:
        assert len(indices) > 0
        time.sleep(self.seconds)
        with self._lock:
            self.fetched += list(indices)
        if self.bad and 13 in indices:
            raise DataError("cannot read thirteen.jpg")
        return self.images[indices]


LABELS = np.arange(60) % 7
ORDER = np.random.default_rng(1).permutation(60)


def collect(store=None, indices=ORDER, **options) -> list[dict[str, np.ndarray]]:
    settings = {"batch_size": 20, "size": 8, "mesh": devices.make_mesh(), **options}
    return [jax.device_get(batch) for batch in batches.batches(store or FakeStore(), LABELS, indices, **settings)]


def real(batches, name):
    return np.concatenate([batch[name][batch["mask"]] for batch in batches])


@pytest.mark.parametrize("batch_size", [1, 3, 8, 20, 59, 60, 64])
def test_every_record_once_in_order(batch_size):
    store = FakeStore()
    result = collect(store, batch_size=batch_size)
    padded = -(-batch_size // 8) * 8
    assert all(batch["image"].shape == (padded, 8, 8, 3) for batch in result)
    full, rest = divmod(60, batch_size)
    assert [batch["mask"].sum() for batch in result] == [batch_size] * full + [rest] * bool(rest)
    np.testing.assert_array_equal(real(result, "image"), store.images[ORDER])
    np.testing.assert_array_equal(real(result, "label"), LABELS[ORDER])
    assert sorted(store.fetched) == list(range(60))  # padding is not fetched
    assert {batch["image"].dtype.name for batch in result} == {"uint8"}
    assert {batch["label"].dtype.name for batch in result} == {"int32"}


def test_what_is_left_of_an_epoch_comes_in_batches_of_the_same_shape():
    """So that a run that continues there ends at the same bits."""
    (left,) = collect(indices=ORDER[50:])
    assert left["image"].shape[0] == 24
    assert left["mask"].sum() == 10


def test_batches_are_split_over_the_devices():
    mesh = devices.make_mesh()
    batch = next(batches.batches(FakeStore(), LABELS, ORDER, batch_size=20, size=8, mesh=mesh))
    for array in batch.values():
        assert array.sharding.is_equivalent_to(devices.by_batch(mesh), array.ndim)


def test_an_augmentation_may_draw_colours_alone(monkeypatch):
    """Its parts go through tf.data by name: by position, colours would be taken for matrices."""

    def draw(drawn, size):
        return {"colours": 1 + 0.2 * drawn[:, :3].astype(np.float32)}

    monkeypatch.setitem(table.AUGMENTATIONS, "colours", table.Augmentation("colours alone", draw))
    store = FakeStore()
    drawn = table.parameters("colours", seed=0, view=0, indices=ORDER, size=8)
    expected = host.apply(store.images[ORDER], drawn, size=8)
    np.testing.assert_array_equal(real(collect(store, augment=Views("colours")), "image"), expected)


def test_one_iterator_for_whatever_is_read():
    """Batches of any content, stacked by the sizes given; labels and mask are joined once."""
    rows = np.arange(61, dtype=np.float32)
    mesh = devices.make_mesh()
    share = batches.share_of(ORDER, batch_size=20, mesh=mesh)

    def read(records):
        return {"bottleneck": np.where(records < 0, 0, rows[records])}

    made = batches.Batches(read, share, labels=LABELS, mesh=mesh, sizes=[2, 1])
    two, one = map(jax.device_get, made)
    assert two["bottleneck"].shape == two["label"].shape == two["mask"].shape == (2, 24)
    assert one["bottleneck"].shape == (24,)
    np.testing.assert_array_equal(real([two, one], "bottleneck"), ORDER)
    np.testing.assert_array_equal(real([two, one], "label"), LABELS[ORDER])
    assert not two["label"][~two["mask"]].any()
    assert made.wait_seconds > 0


def test_no_records_no_batches():
    assert collect(indices=ORDER[:0]) == []


def test_resumed_pass_continues_the_whole_one():
    whole, resumed = collect(augment=Views("article")), collect(indices=ORDER[20:], augment=Views("article"))
    for name in ("image", "label", "mask"):
        np.testing.assert_array_equal([batch[name] for batch in whole[1:]], [batch[name] for batch in resumed])


@pytest.mark.parametrize(
    "name", small.slow_except(["article", "inception"], ["article", "digits", "inception", "trivial_augment"])
)
def test_a_record_has_the_same_view_in_any_batch_order_and_thread_count(name):
    store = FakeStore(size=table.store_size(name, 8))
    first = collect(store, augment=Views(name), seed=5, view=2, threads=1)
    turned = {"indices": ORDER[::-1], "batch_size": 7, "prefetch": 1, "threads": 4}
    second = collect(store, augment=Views(name), seed=5, view=2, **turned)
    np.testing.assert_array_equal(real(first, "image"), real(second, "image")[::-1])
    for other in ({"view": 3, "seed": 5}, {"view": 2, "seed": 6}):
        assert not np.array_equal(real(first, "image"), real(collect(store, augment=Views(name), **other), "image"))


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
@pytest.mark.parametrize("batch_size", [1, 20, 24])
def test_processes_share_every_global_batch(processes, batch_size):
    padded = -(-batch_size // 8) * 8
    shares = [batches.Share(ORDER[:50], batch_size, padded, process, processes) for process in range(processes)]
    for step in range(-(-50 // batch_size)):
        parts = [share.records(step) for share in shares]
        np.testing.assert_array_equal(np.concatenate(parts), ORDER[:50][step * batch_size : (step + 1) * batch_size])
        filled = [len(part) for part in parts]
        assert max(filled) <= padded // processes
        assert filled == sorted(filled, reverse=True)  # padding comes last
    assert {share.steps for share in shares} == {-(-50 // batch_size)}


def test_error_of_the_store_comes_out_as_it_is():
    good = list(ORDER).index(13) // 4
    made = batches.batches(
        FakeStore(bad=True), LABELS, ORDER, batch_size=4, size=8, mesh=devices.make_mesh(), augment=Views("article")
    )
    for _ in range(good):
        next(made)
    with pytest.raises(DataError, match=r"^cannot read thirteen.jpg$"):
        next(made)


@pytest.mark.parametrize(
    ("views", "says"),
    [
        (Views(), "^the network is away$"),
        (Views("article", on=table.DEVICE), "^the network is away$"),
        (Views("article"), r"at the next attempt it could \(UnknownError\)"),
    ],
)
def test_error_that_does_not_come_again_is_an_error_all_the_same(views, says):
    store = FakeStore()
    gather, failed = store.gather, []

    def once(indices):
        if not failed:
            failed.append(True)
            raise DataError("the network is away")
        return gather(indices)

    store.gather = once
    with pytest.raises(DataError, match=says):
        collect(store, augment=views)


def test_store_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"uint8 \(20, 8, 8, 3\), expected uint8 \(20, 12, 12, 3\)"):
        collect(FakeStore(size=8), augment=Views("inception"))


def test_unknown_augmentation_is_refused_at_once():
    with pytest.raises(ValueError, match="unknown augmentation 'nothing'"):
        collect(augment=Views("nothing"))


@pytest.mark.slow
def test_waiting_is_counted_only_where_the_data_are_late():
    def waited(store_seconds, step_seconds):
        store = FakeStore(seconds=store_seconds)
        made = batches.batches(
            store, LABELS, ORDER, batch_size=10, size=8, mesh=devices.make_mesh(), threads=1, prefetch=2
        )
        next(made)
        start = made.wait_seconds
        for _ in made:
            time.sleep(step_seconds)
        return made.wait_seconds - start

    assert waited(0.1, 0.0) > 0.3
    assert waited(0.05, 0.3) < 0.15
