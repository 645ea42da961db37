"""Training on bottlenecks: the same as streaming, computed once, and robust against change, interruption and damage."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import filelock
import jax
import numpy as np
import pytest
import small

import jaxcat
from jaxcat import bottleneck, cache, cached, cli
from jaxcat.bottleneck import Rows, identities, key_of
from jaxcat.cached import chunks
from jaxcat.config import validate
from jaxcat.data import open_data
from jaxcat.errors import CacheError, ConfigError, DataError
from jaxcat.extraction import regroup
from jaxcat.sharding import make_mesh
from jaxcat.train import train

KEY = {"stages": ["mixed0"], "image_size": 75, "dtype": "float32"}


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch) -> Path:
    """A cache for each test; compiled programs stay where all tests share them."""
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path) -> Path:
    return small.picture_folder(tmp_path / "pictures")


def epochs(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def figures(workdir: Path, quantity: str) -> list[float]:
    return [record[f"{split}/{quantity}"] for record in epochs(workdir) for split in ("train", "validation")]


def config_of(folder: Path, *, views: int = 2, **changes):
    config = small.tiny_config(folder)
    config.data.augment, config.batch_size = "article", 7  # 24 pictures: 4 steps, the last of 3
    config.bottleneck.views, config.bottleneck.dtype = views, "float32"
    config.update_from_flattened_dict(changes)
    return config


VARIANTS = {
    "pooled": {},
    "flattened with a hidden layer and dropout": {
        "model.pool": "flatten",
        "model.hidden": 5,
        "model.dropout": 0.3,
        "checkpoint.every_steps": 3,
    },
    "with the last block trained": {"model.cut": "mixed1", "model.train_from": "mixed1", "model.train_bn": True},
    "without augmentation": {"data.augment": "none", "bottleneck.views": 1},
    "random crops": {"data.augment": "inception"},
    "balanced class weights": {"optim.class_weight": "balanced"},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_cached_training_equals_streaming(folder, tmp_path, changes):
    """As many views as epochs, rows in float32: the same losses, the same parameters."""
    assert train(config_of(folder, **changes), tmp_path / "cached") == 0
    assert train(config_of(folder, **{**changes, "bottleneck.views": 0}), tmp_path / "streamed") == 0
    for quantity in ("loss", "accuracy"):
        np.testing.assert_allclose(
            figures(tmp_path / "cached", quantity), figures(tmp_path / "streamed", quantity), rtol=2e-5, atol=1e-6
        )
    a, b = (jaxcat.load(tmp_path / name, step="latest") for name in ("cached", "streamed"))
    for x, y in zip(jax.tree.leaves(a.trained), jax.tree.leaves(b.trained), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=2e-5)


def test_half_precision_rows_are_close(folder, tmp_path):
    assert train(config_of(folder, **{"bottleneck.dtype": "float16"}), tmp_path / "half") == 0
    assert train(config_of(folder), tmp_path / "single") == 0
    np.testing.assert_allclose(figures(tmp_path / "half", "loss"), figures(tmp_path / "single", "loss"), rtol=2e-3)


def test_fewer_views_than_epochs_come_round_again(folder):
    config = config_of(folder, views=2)
    source = opened(config)
    source.prepare(_silent())
    first, third = (rows_of(source.train(epoch, first=0), config, epoch) for epoch in (0, 2))
    second = rows_of(source.train(1, first=0), config, 1)
    np.testing.assert_array_equal(first, third)
    assert not np.array_equal(first, second)


def rows_of(batches, config, epoch: int) -> np.ndarray:
    """The rows of an epoch by record number."""
    from jaxcat.data import order

    rows = []
    for batch in batches:
        mask = np.asarray(batch["mask"]).reshape(-1)
        rows.append(np.asarray(batch["bottleneck"]).reshape(len(mask), -1)[mask])
    return np.concatenate(rows)[np.argsort(order(24, seed=config.seed, epoch=epoch))]


def opened(config) -> cached.Cached:
    """The source of a run of this configuration, nothing computed yet."""
    from jaxcat import checkpoint_meta

    data = open_data(config)
    net = small.network(config, classes=len(data.classes))
    params, stats = net.initialize(0)
    frozen = {"params": net.divide(params)[0], "stats": net.divide(stats)[0]}
    key = key_of(config, net, frozen_digests=checkpoint_meta.digests(frozen))
    return cached.Cached(config, data, network=net, frozen=frozen, key=key, mesh=make_mesh())


def _silent():
    from rich.console import Console

    return Console(quiet=True)


def prepared(config) -> cached.Cached:
    source = opened(config)
    source.prepare(_silent())
    return source


def test_a_second_run_computes_nothing_and_decodes_nothing(folder, monkeypatch):
    config = config_of(folder)
    assert opened(config).to_compute == 2 * 24 + 12
    prepared(config)
    monkeypatch.setattr(cached, "open_pictures", None)
    monkeypatch.setattr(cached, "jit", None)
    assert prepared(config).to_compute == 0
    moved = folder.with_name("elsewhere")
    shutil.move(folder, moved)
    config.data.dir = str(moved)
    assert prepared(config).to_compute == 0
    config.data.augment = "none"  # another key
    with pytest.raises(TypeError):
        opened(config)


def test_a_changed_picture_loses_its_own_rows_only(folder):
    config = config_of(folder)
    before = prepared(config)
    small.draw("cross", np.random.default_rng(9)).save(folder / "train" / "disc" / "003.png")
    source = opened(config)
    assert source.to_compute == 2
    source.prepare(_silent())
    old, new = (rows_of(s.train(0, first=0), config, 0) for s in (before, source))
    assert np.flatnonzero((old != new).any(axis=1)).tolist() == [3]


def test_more_views_add_to_those_there_are(folder):
    prepared(config_of(folder, views=2))
    assert opened(config_of(folder, views=5)).to_compute == 3 * 24


@pytest.mark.parametrize(
    "changes",
    [
        {"model.cut": "mixed1"},
        {"model.pool": "max"},
        {"model.pool_grid": 2},
        {"model.pool_from": "stem"},
        {"data.image_size": 80},
        {"data.resize": "center_crop"},
        {"data.augment": "inception"},
        {"seed": 1},
        {"bottleneck.dtype": "float16"},
        {"model.dtype": "bfloat16"},
        {"model.train_from": "mixed0"},
    ],
    ids=str,
)
def test_whatever_shapes_a_row_is_in_the_key(folder, changes):
    prepared(config_of(folder))
    assert opened(config_of(folder, **changes)).to_compute == 2 * 24 + 12


@pytest.mark.parametrize(
    "changes", [{"optim.learning_rate": 1.0}, {"model.hidden": 3}, {"epochs": 9}, {"batch_size": 3}], ids=str
)
def test_what_does_not_shape_a_row_is_not_in_the_key(folder, changes):
    prepared(config_of(folder))
    assert opened(config_of(folder, **changes)).to_compute == 0


def test_other_code_or_weights_are_another_key(folder, monkeypatch):
    config = config_of(folder)
    net = small.network(config)
    keys = [key_of(config, net, frozen_digests={"a": digest}) for digest in ("1", "2")]
    assert keys[0] != keys[1]
    source = bottleneck.inspect.getsource
    monkeypatch.setattr(bottleneck.inspect, "getsource", lambda module: source(module) + "# another line\n")
    assert key_of(config, net, frozen_digests={"a": "1"}) != keys[0]


def test_a_batch_too_large_for_the_device_is_halved_until_it_fits(folder, empty_cache, monkeypatch):
    config, compile = config_of(folder), cached.jit

    def rows_with_memory_for(most: int) -> tuple[np.ndarray, list[int]]:
        sizes = []

        def limited(function, **arguments):
            compiled = compile(function, **arguments)

            def call(frozen, images):
                sizes.append(len(images))
                if len(images) > most:
                    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
                return compiled(frozen, images)

            return call

        monkeypatch.setattr(cached, "jit", limited)
        shutil.rmtree(empty_cache, ignore_errors=True)
        return rows_of(prepared(config).train(0, first=0), config, 0), sizes

    expected, whole = rows_with_memory_for(1000)
    rows, halved = rows_with_memory_for(64)
    np.testing.assert_allclose(rows, expected, rtol=1e-5)  # on some processors not the same bits
    assert set(whole) == {256}
    assert halved[:3] == [256, 128, 64]
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        rows_with_memory_for(7)  # eight devices, a picture each


def test_another_arithmetic_is_another_key(folder, monkeypatch):
    config = config_of(folder)
    net = small.network(config)
    keys = [key_of(config, net, frozen_digests={})]
    with jax.default_matmul_precision("highest"):
        keys.append(key_of(config, net, frozen_digests={}))
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
    keys.append(key_of(config, net, frozen_digests={}))
    assert keys[0] != keys[1] != keys[2] != keys[0]


def test_killed_in_the_middle_it_goes_on_after_the_last_whole_block(folder, monkeypatch):
    monkeypatch.setattr(bottleneck, "BLOCK_ROWS", 5)
    config, add, written = config_of(folder), Rows.add, []

    def killed(self, wanted, rows):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(len(rows))
        add(self, wanted, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Rows, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            prepared(config)
    assert written == [5, 5, 2, 5]  # 12 of validation, then of train
    assert opened(config).to_compute == 60 - 17
    assert prepared(config).to_compute == 60 - 17
    assert opened(config).to_compute == 0


def test_a_signal_while_rows_are_computed_ends_the_run_with_its_status(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bottleneck, "BLOCK_ROWS", 5)
    config, add = config_of(folder, epochs=1), Rows.add

    def interrupted(self, wanted, rows):
        add(self, wanted, rows)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Rows, "add", interrupted)
        assert train(config, tmp_path / "run") == 143
    assert "interrupted while bottlenecks were computed" in capsys.readouterr().out
    assert opened(config).to_compute < 60
    assert train(config, tmp_path / "run") == 0


def block_files(root: Path) -> list[Path]:
    return sorted((root / "bottlenecks").rglob("*.npy"))


@pytest.mark.parametrize("damage", ["flip", "header", "cut", "empty", "gone", "marker"])
def test_damage_is_noticed_and_repaired(folder, empty_cache, damage, caplog):
    config = config_of(folder)
    before = rows_of(prepared(config).train(0, first=0), config, 0)
    for path in block_files(empty_cache):
        content = bytearray(path.read_bytes())
        if damage == "flip":
            content[-5] ^= 4
            path.write_bytes(content)
        elif damage == "header":
            path.write_bytes(bytes(content).replace(b"'shape': (", b"'shape': {"))
        elif damage == "cut":
            path.write_bytes(content[:-40])
        elif damage == "empty":
            path.write_bytes(b"")
        elif damage == "gone":
            path.unlink()
        else:
            path.with_suffix(".json").write_text('{"rows": ["zz"]')
    source = prepared(config)
    assert source.to_compute == 60
    assert "is damaged: its rows are computed again" in caplog.text
    np.testing.assert_array_equal(rows_of(source.train(0, first=0), config, 0), before)
    assert opened(config).to_compute == 0


def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(folder, empty_cache, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    source = opened(config_of(folder))
    with monkeypatch.context() as patch:
        patch.setattr(bottleneck.np, "save", full)
        with pytest.raises(CacheError, match=r"No space left on device.*JAXCAT_CACHE.*bottleneck\.views=0"):
            source.prepare(_silent())
    assert not block_files(empty_cache)
    assert {path.name for path in source._rows.folder.iterdir()} == {".lock", "key.json"}


def test_half_written_blocks_of_killed_writers_are_removed_in_time(folder):
    source = prepared(config_of(folder))
    left, under_way = (source._rows.folder / f".block.npy.{name}" for name in ("left", "under_way"))
    left.touch()
    under_way.touch()
    os.utime(left, times=(0, 0))
    opened(config_of(folder))
    assert not left.exists()
    assert under_way.exists()


@pytest.mark.parametrize("skip", [False, True])
def test_files_that_cannot_be_opened_are_listed_or_left_out(folder, skip):
    for name in ("one.png", "two.png"):
        (folder / "train" / "disc" / name).symlink_to("nowhere")
    config = config_of(folder, **{"data.skip_bad": skip})
    if skip:
        assert prepared(config).to_compute == 2 * 24 + 12
        assert opened(config).to_compute == 0
    else:
        with pytest.raises(DataError, match=r"(?s)2 of 38 pictures.*one\.png.*two\.png"):
            opened(config)


def test_a_picture_left_out_is_not_looked_for_again(folder):
    (folder / "train" / "disc" / "000.png").write_bytes(b"no picture")
    config = config_of(folder, **{"data.skip_bad": True})
    assert prepared(config).to_compute == 2 * 23 + 12
    assert opened(config).to_compute == 0


def test_too_little_space_is_found_out_before_the_work(folder, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=100)
    monkeypatch.setattr(cached.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(cached, "open_pictures", None)
    with pytest.raises(CacheError, match=r"bottlenecks need .* MB, .* has 0\.0 MB free.*--config\.bottleneck\.views"):
        opened(config_of(folder))


def test_values_that_do_not_fit_are_refused(empty_cache):
    rows = Rows({**KEY, "dtype": "float16"}, shape=(2,))
    with pytest.raises(CacheError, match="float32"):
        rows.add([b"a" * 16], np.array([[1.0, 70000.0]]))


def test_a_run_interrupted_within_an_epoch_ends_at_the_same_bits(folder, tmp_path, monkeypatch):
    """With bottlenecks and stacked steps, at a checkpoint within the epoch."""
    from jaxcat import checkpoint_meta
    from jaxcat import train as module

    config = config_of(folder, **{"checkpoint.every_steps": 3, "model.dropout": 0.3})
    assert train(config, tmp_path / "whole") == 0

    with monkeypatch.context() as patch:
        patch.setattr(module, "Interruption", small.InterruptedAt(5))
        assert train(config, tmp_path / "cut") == 143
    (step,) = checkpoint_meta.steps(tmp_path / "cut")[-1:]
    assert 4 < step < 8
    assert train(config, tmp_path / "cut") == 0
    whole, cut = (checkpoint_meta.read_meta(tmp_path / name, 8)["digests"] for name in ("whole", "cut"))
    assert whole == cut
    assert figures(tmp_path / "whole", "loss") == figures(tmp_path / "cut", "loss")


def test_a_signal_ends_the_wait_for_another_run(folder):
    source = opened(config_of(folder))
    with filelock.FileLock(source._rows.folder / ".lock"):
        assert source.prepare(_silent(), stop=lambda: 143) == 143
    assert source.prepare(_silent()) == 0


def test_two_runs_that_compute_the_same_leave_one_good_cache(folder):
    config = config_of(folder)
    first, second = opened(config), opened(config)
    first.prepare(_silent())
    second.prepare(_silent())  # finds the rows of the first
    assert len(list(second._rows.folder.glob("*.npy"))) == 3
    np.testing.assert_array_equal(*(rows_of(s.train(1, first=0), config, 1) for s in (first, second)))


def test_nothing_is_compiled_after_the_first_epoch(folder, tmp_path, monkeypatch):
    from jaxcat.report import Reporter

    compilations, seen = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compilations.append(name) if "backend_compile" in name else None
    )
    epoch = Reporter.epoch
    monkeypatch.setattr(Reporter, "epoch", lambda self, record: (seen.append(len(compilations)), epoch(self, record)))
    for views in (0, 2):
        config = config_of(folder, views=views)
        config.epochs = 4
        assert train(config, tmp_path / f"run{views}") == 0
        assert seen[0] > 0
        assert seen[1] <= seen[0] + 3, "only the reset of the sums and the like"
        assert seen[2] == seen[3]
        seen.clear()


def test_views_need_something_frozen(folder):
    config = config_of(folder, **{"model.train_from": "stem"})
    with pytest.raises(ConfigError, match=r"--config\.bottleneck\.views=2.*train_from=stem"):
        validate(config)


@pytest.mark.parametrize("every", [0, 1, 3, 10, 64, 1000])
@pytest.mark.parametrize(("begin", "end", "most"), [(0, 100, 50), (7, 100, 50), (300, 401, 25), (5, 6, 4), (8, 8, 4)])
def test_chunks_reach_the_end_and_cross_no_checkpoint(begin, end, most, every):
    sizes = chunks(begin, end, every=every, most=most)
    assert sum(sizes) == end - begin
    assert set(sizes) <= {1, most}
    if every:
        edges = set(np.cumsum([begin, *sizes]).tolist())
        assert {step for step in range(begin + 1, end + 1) if step % every == 0} <= edges


def test_regroup_keeps_rows_and_order():
    rows = np.arange(20)
    parts = list(regroup(np.split(rows, [3, 3, 11, 19]), 4))
    assert [len(part) for part in parts] == [4] * 5
    np.testing.assert_array_equal(np.concatenate(parts), rows)
    assert [len(part) for part in regroup(np.split(rows, [17]), 8)] == [8, 8, 4]
    assert not list(regroup([], 4))


def test_identities_tell_record_view_and_content_apart():
    digests = [b"a" * 16, b"a" * 16, b"b" * 16]
    assert identities(digests, view=None) == digests
    found = [identity for view in (0, 1) for identity in identities(digests, view=view)]
    assert len(set(found)) == 6


def test_the_cache_command_lists_and_clears(folder, empty_cache, capsys):
    for name in ("xla", "xla-01234567"):
        (empty_cache / name).mkdir(parents=True)
        (empty_cache / name / "program").write_bytes(b"1" * 1000)
    (empty_cache / "weights.h5").write_bytes(b"1" * 1000)
    prepared(config_of(folder))
    (name,) = [path.name for path in (empty_cache / "bottlenecks").iterdir()]
    assert cache.main(["list"]) == 0
    shown = "".join(capsys.readouterr().out.split())
    assert name in shown
    assert "60rows" in shown
    assert "weights.h5" in shown
    with pytest.raises(ConfigError, match="nonesuch"):
        cache.main(["clear", "nonesuch"])
    assert cache.main(["clear", name]) == 0
    assert not (empty_cache / "bottlenecks" / name).exists()
    assert cache.main(["clear", "--all"]) == 0
    assert [path.name for path in empty_cache.iterdir() if path.is_file()] == ["weights.h5"]
    assert not list(empty_cache.glob("xla*"))
    with pytest.raises(SystemExit) as caught:
        cli.run(cache.main, ["clear"])
    assert caught.value.code == 2
