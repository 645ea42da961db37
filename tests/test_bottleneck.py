"""Bottlenecks on disk: found again, and robust against change, interruption, damage and a full disk."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import shutil
from pathlib import Path

import filelock
import jax
import numpy as np
import pytest
import small
from small_cached import SILENT, config_of, opened, prepared, rows_of

from jaxcat import bottleneck, cache, cached, cli
from jaxcat.bottleneck import Rows, identities, key_of
from jaxcat.errors import CacheError, ConfigError, DataError
from jaxcat.extraction import regroup
from jaxcat.weights import ZERO_TO_ONE

pytestmark = pytest.mark.usefixtures("empty_cache")

KEY = {"stages": ["mixed0"], "image_size": 75, "dtype": "float32"}


@pytest.fixture
def folder(tmp_path) -> Path:
    return small.picture_folder(tmp_path / "pictures")


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
    source.prepare(SILENT)
    old, new = (rows_of(s.train(0, first=0), config, 0) for s in (before, source))
    assert np.flatnonzero((old != new).any(axis=1)).tolist() == [3]


def test_more_views_add_to_those_there_are(folder):
    prepared(config_of(folder, views=2))
    assert opened(config_of(folder, views=5, epochs=5)).to_compute == 3 * 24


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


def test_other_code_or_weights_are_another_key(folder, tmp_path, monkeypatch):
    config = config_of(folder)
    net = small.network(config)
    keys = [key_of(config, net, frozen_digests={"a": digest}) for digest in ("1", "2")]
    package = tmp_path / "package"
    shutil.copytree(bottleneck.PACKAGE, package)
    monkeypatch.setattr(bottleneck, "PACKAGE", package)
    assert key_of(config, net, frozen_digests={"a": "1"}) == keys[0]
    for name in ("inception", "network", "augment", "images", "pipeline", "extraction", "data/store", "data/records"):
        with open(package / f"{name}.py", "a") as file:
            file.write("# another line\n")
        keys.append(key_of(config, net, frozen_digests={"a": "1"}))
    assert all(a != b for a, b in itertools.combinations(keys, 2))


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
    for name, value in [("compiler_options", {"option": "1"}), ("installed_versions", {"jax": "0"})]:
        with monkeypatch.context() as patch:
            patch.setattr(bottleneck, name, lambda *_, value=value: value)
            keys.append(key_of(config, net, frozen_digests={}))
    for name, value in [("preprocessing", ZERO_TO_ONE), ("pool_counts_padding", True)]:
        other = small.network(config)
        setattr(other, name, value)
        keys.append(key_of(config, other, frozen_digests={}))
    config.model.width = 1 / 8
    keys.append(key_of(config, small.network(config), frozen_digests={}))
    for name, value in [("XLA_FLAGS", "--xla_gpu_deterministic_ops=true"), ("TF_ENABLE_ONEDNN_OPTS", "0")]:
        monkeypatch.setenv(name, value)
        keys.append(key_of(config, net, frozen_digests={}))
    assert all(a != b for a, b in itertools.combinations(keys, 2))


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
    """No file may grow beyond 200 bytes, which the system refuses in mid-write as it refuses on a full disk."""
    source, add, limits = opened(config_of(folder)), Rows.add, resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(self, wanted, rows):
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
        try:
            add(self, wanted, rows)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with monkeypatch.context() as patch:
        patch.setattr(Rows, "add", limited)
        with pytest.raises(CacheError, match=r"written: File too large.*JAXCAT_CACHE.*bottleneck\.views=0"):
            source.prepare(SILENT)
    assert not block_files(empty_cache)
    assert {path.name for path in source._rows.folder.iterdir()} == {".lock", "key.json"}
    assert prepared(config_of(folder)).to_compute == 60


def test_a_disk_that_is_full_at_the_marker_leaves_no_block_without_it(empty_cache, monkeypatch):
    rows, write = Rows(KEY, shape=(2,)), Rows._write

    def full(self, path, content):
        if path.suffix == ".json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Rows, "_write", full)
        with pytest.raises(CacheError, match="No space left on device"):
            rows.add([b"a" * 16], np.ones((1, 2)))
    assert not block_files(empty_cache)
    rows.add([b"a" * 16], np.ones((1, 2)))
    assert not Rows(KEY, shape=(2,)).missing([b"a" * 16])


def test_a_cache_of_someone_else_that_lacks_a_row_is_an_error_that_says_what_to_do(folder, monkeypatch):
    source = opened(config_of(folder))

    def refused(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(filelock.FileLock, "acquire", refused)
    with pytest.raises(CacheError, match=r"cannot be written: Permission denied.*JAXCAT_CACHE"):
        source.prepare(SILENT)


def test_what_killed_writers_left_is_removed_in_time(folder):
    """Files aside, and a block whose marker was not written."""
    source = prepared(config_of(folder))
    names = (".block.npy.left", ".block.npy.under_way", "left.npy", "under_way.npy")
    left = [source._rows.folder / name for name in names]
    for path in left:
        path.touch()
        if "left" in path.name:
            os.utime(path, times=(0, 0))
    assert opened(config_of(folder)).to_compute == 0
    assert [path.name for path in left if path.exists()] == [".block.npy.under_way", "under_way.npy"]


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


def test_the_rows_of_a_run_that_leaves_pictures_out_are_found_again(folder, monkeypatch):
    (folder / "train" / "disc" / "000.png").write_bytes(b"no picture")
    config = config_of(folder, **{"data.skip_bad": True})
    assert prepared(config).to_compute == 2 * 23 + 12
    no_room(monkeypatch)  # and none needed
    assert opened(config).to_compute == 0
    config.seed = 1
    with pytest.raises(CacheError, match="bottlenecks need"):
        opened(config)


def no_room(monkeypatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=100)
    monkeypatch.setattr(cached.shutil, "disk_usage", lambda path: usage)


def test_too_little_space_is_found_out_before_the_work(folder, monkeypatch):
    no_room(monkeypatch)
    monkeypatch.setattr(cached, "open_pictures", None)
    with pytest.raises(CacheError, match=r"bottlenecks need .* MB, .* has 0\.0 MB free.*--config\.bottleneck\.views"):
        opened(config_of(folder))


def test_too_little_space_of_another_process_ends_this_one_too(folder, monkeypatch):
    monkeypatch.setattr(cached, "values_of_processes", lambda value: [int(value), 1])
    with pytest.raises(CacheError, match="enough, but not where another process of this run writes"):
        opened(config_of(folder))


def test_values_that_do_not_fit_are_refused(empty_cache):
    rows = Rows({**KEY, "dtype": "float16"}, shape=(2,))
    with pytest.raises(CacheError, match="float32"):
        rows.add([b"a" * 16], np.array([[1.0, 70000.0]]))


def test_a_signal_ends_the_wait_for_another_run(folder):
    source = opened(config_of(folder))
    with filelock.FileLock(source._rows.folder / ".lock"):
        assert source.prepare(SILENT, stop=lambda: 143) == 143
    assert source.prepare(SILENT) == 0


def test_two_runs_that_compute_the_same_leave_one_good_cache(folder):
    config = config_of(folder)
    first, second = opened(config), opened(config)
    first.prepare(SILENT)
    second.prepare(SILENT)  # finds the rows of the first
    assert len(list(second._rows.folder.glob("*.npy"))) == 3
    np.testing.assert_array_equal(*(rows_of(s.train(1, first=0), config, 1) for s in (first, second)))


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


def test_the_cache_command_lists_and_clears(folder, empty_cache, capsys, monkeypatch):
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
    monkeypatch.setattr(Path, "rglob", lambda *_: [empty_cache / "weights.h5", empty_cache / "renamed meanwhile"])
    assert cache.size(empty_cache) == 1000
    with pytest.raises(SystemExit) as caught:
        cli.run(cache.main, ["clear"])
    assert caught.value.code == 2
