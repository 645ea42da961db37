"""Pooled bottlenecks have one key for each block and statistic: what one run has computed, another one finds."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import filelock
import jax
import numpy as np
import pytest
import small
from rich.console import Console
from small_bottlenecks import SILENT, config_of, made, opened, prepared

from jaxcat.bottlenecks import compute, rows, source
from jaxcat.bottlenecks.engines import xla
from jaxcat.bottlenecks.key import keys_of
from jaxcat.bottlenecks.parts import Parts
from jaxcat.bottlenecks.rows import Rows
from jaxcat.bottlenecks.source import BottleneckSource
from jaxcat.data.records import order
from jaxcat.data.store import Store

pytestmark = pytest.mark.usefixtures("empty_cache", "small_batches")
NUMBER = 24 + 12  # of images, each with one view


@pytest.fixture
def folder(tmp_path) -> Path:
    return small.image_folder(tmp_path / "images")


def pooling(folder: Path, cut: str = "mixed1", pool_from: str = "stem", **changes):
    """A config without augmentation that pools averages and deviations of some blocks."""
    model = {"model.cut": cut, "model.pool_from": pool_from, "model.pool": "avg_std"}
    return config_of(folder, views=1, **{"data.augment": "none", **model, **changes})


def values_of(found: BottleneckSource, split: str) -> dict[str, np.ndarray]:
    number = len(found.splits[split])
    return {f"{part.block}-{part.statistic}": read(0, number) for part, read in found.reader_of(split)}


def test_another_recipe_computes_only_what_is_missing(folder, rows_written, monkeypatch):
    prepared(pooling(folder, "mixed0"))
    assert rows_written == dict.fromkeys(("stem-avg", "stem-std", "mixed0-avg", "mixed0-std"), NUMBER)
    rows_written.clear()
    wider = opened(pooling(folder, "mixed1"))
    assert wider.to_compute == NUMBER
    assert wider.describe().endswith("36 of 36 to compute, for 2 of 6 parts")
    wider.prepare(SILENT)
    assert rows_written == dict.fromkeys(("mixed1-avg", "mixed1-std"), NUMBER)
    monkeypatch.setattr(Store, "prepare", None)
    monkeypatch.setattr(xla, "_compiled", None)
    for config in (
        pooling(folder, "mixed0", "stem"),
        pooling(folder, "mixed1", "mixed0"),
        pooling(folder, "mixed0", "mixed0"),
        pooling(folder, "mixed1", "mixed0", **{"model.pool": "avg"}),
    ):
        assert prepared(config).to_compute == 0


@pytest.mark.slow
def test_averages_add_to_deviations(folder, rows_written):
    prepared(pooling(folder, **{"model.pool": "avg"}))
    rows_written.clear()
    prepared(pooling(folder))
    assert set(rows_written) == {"stem-std", "mixed0-std", "mixed1-std"}


@pytest.mark.slow
def test_images_that_came_later_get_all_parts_and_others_what_they_lack(folder, rows_written):
    """One forward pass for both, and each part gets only the rows that it lacks."""
    prepared(pooling(folder, "mixed0", "mixed0"))
    for number in range(3):
        small.draw("cross", np.random.default_rng(number)).save(folder / "train" / "disc" / f"new{number}.png")
    rows_written.clear()
    found = prepared(pooling(folder, "mixed1", "mixed0"))
    assert found.to_compute == NUMBER + 3
    assert rows_written == {"mixed0-avg": 3, "mixed0-std": 3, "mixed1-avg": NUMBER + 3, "mixed1-std": NUMBER + 3}
    fresh = values_of(found, "train")
    for path in (found.parts.rows[0].folder.parent).iterdir():
        for block in path.iterdir():
            block.unlink()
    for name, values in values_of(prepared(pooling(folder, "mixed1", "mixed0")), "train").items():
        np.testing.assert_allclose(fresh[name], values, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"model.cut": "mixed3"}], ids=["two blocks", "four blocks"])
def test_where_the_pass_ended_changes_no_value(folder, empty_cache, changes):
    """At most 1e-6 of each value; both from float32 rows."""
    first = {name: values_of(prepared(pooling(folder, "mixed0")), name) for name in ("train", "validation")}
    for path in (empty_cache / "bottlenecks").rglob("*.*"):
        path.unlink()
    later = prepared(pooling(folder, **changes))
    assert later.to_compute == NUMBER
    for split, parts in first.items():
        found = values_of(later, split)
        for name, values in parts.items():
            scale = np.abs(values).max()
            np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-6 * scale, err_msg=f"{split} {name}")


def test_the_key_has_the_weights_up_to_its_block_and_no_others(folder):
    config = pooling(folder)
    network = small.network(config)
    digests = {f"params/{block}/kernel": "1" for block in network.blocks}

    def keys(**changed) -> list[dict]:
        others = {f"params/{block}/kernel": digest for block, digest in changed.items()}
        return keys_of(config, network, frozen_digests={**digests, **others})

    before = keys()
    assert len({json.dumps(key) for key in before}) == 6
    assert [a == b for a, b in zip(before, keys(mixed0="2"), strict=True)] == [True] * 2 + [False] * 4
    assert [a == b for a, b in zip(before, keys(mixed1="2"), strict=True)] == [True] * 4 + [False] * 2
    assert not any(a == b for a, b in zip(before, keys(stem="2"), strict=True))
    assert [key["stages"][-1] for key in before] == ["stem", "stem", "mixed0", "mixed0", "mixed1", "mixed1"]


@pytest.mark.slow
def test_whatever_shapes_a_part_is_in_its_key(folder):
    prepared(pooling(folder, "mixed0"))
    for name, value in (
        ("bottleneck.dtype", "float16"),
        ("model.pool_grid", 2),
        ("data.image_size", 80),
        ("data.augment", "article"),
    ):
        found = opened(pooling(folder, "mixed0", **{name: value}))
        assert found.to_compute == NUMBER, name
        assert found._lacking == 4, name


@pytest.mark.slow
def test_maps_keep_their_key_and_older_folders_their_files(folder, empty_cache):
    """The key of maps as it was rows_written before parts had their own, made by hand from a key of today."""
    config = pooling(folder, "mixed1", "cut", **{"model.train_from": "mixed1"})
    ready = made(config)
    (key,) = ready.keys
    digests = {"params/stem/a": "1", "params/mixed0/a": "2"}
    (named,) = keys_of(config, ready._network, frozen_digests=digests)
    assert named["numbers"] == hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    assert (named["stages"], named["pool"], named["format"]) == (["stem", "mixed0"], None, 1)
    text = json.dumps(key, indent=1, sort_keys=True).encode()
    assert ready.parts.rows[0].folder.name == f"mixed0-75px-{hashlib.sha256(text).hexdigest()[:16]}"

    old = {**key, "stages": ["stem", "mixed0", "pool"], "pool": ["avg", 1, "mixed0"]}
    older = empty_cache / "bottlenecks" / "pool-75px-0123456789abcdef"
    older.mkdir(parents=True)
    (older / "key.json").write_text(json.dumps(old))
    (older / "block.npy").write_bytes(b"rows")
    prepared(config)
    prepared(pooling(folder))
    assert {path.name: path.read_bytes() for path in older.iterdir()} == {
        "key.json": json.dumps(old).encode(),
        "block.npy": b"rows",
    }


@pytest.mark.slow
def test_interrupted_it_goes_on_after_the_last_whole_blocks_of_each_part(folder, rows_written, monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_ROWS", 5)
    config, counted = pooling(folder, "mixed0"), Rows.add
    expected = {name: values_of(prepared(config), name) for name in ("train", "validation")}
    for path in made(config).parts.rows[0].folder.parent.rglob("*.*"):
        path.unlink()
    rows_written.clear()

    def killed(self, wanted, values):
        if sum(rows_written.values()) >= 4 * 12 + 13:
            raise KeyboardInterrupt
        counted(self, wanted, values)

    with monkeypatch.context() as patch:
        patch.setattr(Rows, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            prepared(config)
    assert sorted(rows_written.values()) == [12, 12, 12, 27]  # of train, all whole blocks of one part
    assert opened(config).to_compute == 24
    found = prepared(config)
    assert rows_written == dict.fromkeys(rows_written, NUMBER)
    for split, parts in expected.items():
        for name, values in values_of(found, split).items():
            np.testing.assert_allclose(values, parts[name], rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_damaged_block_of_one_part_is_computed_again_and_no_other(folder, rows_written, caplog):
    before = values_of(prepared(pooling(folder)), "train")
    (path,) = (path for path in opened(pooling(folder)).parts.rows[3].folder.glob("*.npy") if len(np.load(path)) == 24)
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    rows_written.clear()
    found = prepared(pooling(folder))
    assert found.to_compute == 24
    assert rows_written == {"mixed0-std": 24}
    assert "is damaged: its rows are computed again" in caplog.text
    for name, values in values_of(found, "train").items():
        np.testing.assert_allclose(values, before[name], rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [0, source.IN_MEMORY], ids=["from maps", "from memory"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_readers_and_batches_give_the_parts_side_by_side(folder, monkeypatch, in_memory, dtype):
    monkeypatch.setattr(source, "IN_MEMORY", in_memory)
    monkeypatch.setattr(rows, "BLOCK_ROWS", 5)
    whole = prepared(pooling(folder, **{"bottleneck.dtype": dtype}))
    narrow = prepared(pooling(folder, "mixed1", "mixed0", **{"bottleneck.dtype": dtype}))
    monkeypatch.setattr(Rows, "missing", None)
    monkeypatch.setattr(BottleneckSource, "_identify", None)
    for found, network in ((whole, whole._network), (narrow, narrow._network)):
        shuffled = order(24, seed=found._config.seed, epoch=0)
        passes = {"train": (found.train(0, first=0), shuffled), "validation": (found.validation(), np.arange(12))}
        for split, (batches, records) in passes.items():
            parts, number = found.reader_of(split), len(records)
            assert tuple(part for part, _ in parts) == network.parts
            columns = [read(0, number) for _, read in parts]
            assert {column.dtype for column in columns} == {np.dtype(np.float32)}
            assert [column.shape for column in columns] == [(number, part.width) for part, _ in parts]
            np.testing.assert_array_equal(parts[1][1](3, 11), columns[1][3:11])
            real = [{name: array[np.asarray(batch["mask"])] for name, array in batch.items()} for batch in batches]
            seen = np.concatenate([batch["bottleneck"] for batch in real])
            assert seen.dtype == dtype
            assert seen.shape[-1] == found._network.features
            np.testing.assert_array_equal(seen.astype(np.float32), np.concatenate(columns, axis=1)[records])
            labels = np.concatenate([batch["label"] for batch in real])
            np.testing.assert_array_equal(labels, found.splits[split].labels[records])
    assert narrow.describe().startswith(f"24 train / 12 validation bottlenecks, 1 view, {narrow._network.features} ")


@pytest.mark.slow
def test_a_reader_of_a_part_reads_the_first_view(folder):
    config = pooling(folder, "mixed0", **{"data.augment": "article", "bottleneck.views": 2})
    found = prepared(config)
    columns = np.concatenate([read(0, 24) for _, read in found.reader_of("train")], axis=1)
    read = np.empty_like(columns)
    found._readers[found._passes[1]](np.arange(24), read)
    assert found._passes[1].view == 0
    np.testing.assert_array_equal(columns, read)


@pytest.mark.slow
def test_all_parts_together_keep_to_the_limits_of_open_maps(folder, monkeypatch):
    monkeypatch.setattr(source, "IN_MEMORY", 0)
    monkeypatch.setattr(rows, "BLOCK_ROWS", 2)
    monkeypatch.setattr(rows, "_open_files", lambda: 64)
    found = prepared(pooling(folder))
    values_of(found, "train")
    assert [each._mapped.cache_info().currsize for each in found.parts.rows] == [2] * 6  # of 16, and 18 blocks each
    monkeypatch.setattr(rows, "_open_files", lambda: 10**6)
    monkeypatch.setattr(rows, "OPEN_BYTES", 6 * 3 * 2 * found.parts.rows[-1].row_bytes)
    found = prepared(pooling(folder))
    values_of(found, "train")
    mapped = sum(each._mapped.cache_info().currsize * 2 * each.row_bytes for each in found.parts.rows)
    assert 0 < mapped <= rows.OPEN_BYTES


@pytest.mark.slow
def test_a_run_waits_for_another_that_computes_one_of_its_missing_parts(folder, capsys, monkeypatch):
    prepared(pooling(folder, "stem"))
    found = opened(pooling(folder, "mixed1"))
    monkeypatch.setattr(found, "look_up", lambda *_, **__: 0)
    with filelock.FileLock(found.parts.rows[0].folder / ".lock"):  # whose rows are all there
        with filelock.FileLock(found.parts.rows[5].folder / ".lock"):
            assert found.prepare(Console(soft_wrap=True), stop=lambda: 143) == 143
        assert capsys.readouterr().out.count("waiting for another run that computes the same bottlenecks") == 1
        assert found.prepare(SILENT) == 0


def test_runs_with_parts_in_common_never_wait_for_each_other(folder):
    parts = opened(pooling(folder)).parts.rows
    entered = []

    def run(mine: list[Rows]) -> None:
        for _ in range(5):
            with compute.alone(mine, SILENT, stop=lambda: 0) as status:
                assert not status
                entered.append(len(mine))

    runs = [threading.Thread(target=run, args=(mine,), daemon=True) for mine in (parts[::-1], parts, parts[3:0:-1])]
    for each in runs:
        each.start()
    for each in runs:
        each.join(60)
    assert sorted(entered) == [3] * 5 + [6] * 10


@pytest.mark.slow
def test_a_part_is_computed_by_the_blocks_up_to_it(folder, monkeypatch, no_kept_programs):
    """What is compiled for averages of the first block has no parameters of the second."""
    prepared(pooling(folder, "mixed1", "mixed1"))
    seen, compiled = [], xla.jit

    def noted(function, **arguments):
        def call(frozen, images):
            text = jax.jit(function).lower(frozen, images).as_text()
            seen.append(text.count("stablehlo.convolution"))
            return compiled(function, **arguments)(frozen, images)

        return call

    monkeypatch.setattr(xla, "jit", noted)
    prepared(pooling(folder, "mixed1", "stem", **{"model.pool": "avg"}))  # lacks the stem and mixed0
    assert set(seen) == {5 + 7}


def test_parts_of_one_row_shape_are_maps():
    key = {"stages": ["mixed0"], "pool": None, "image_size": 75, "dtype": "float32"}
    parts = Parts([Rows(key, shape=(2, 3, 4))])
    assert (parts.shape, parts.row_bytes) == ((2, 3, 4), 96)
