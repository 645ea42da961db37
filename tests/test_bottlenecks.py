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
from rich.console import Console
from small_bottlenecks import SILENT, config_of, made, opened, prepared, rows_of

from jaxcat import cache
from jaxcat.bottlenecks import rows, source
from jaxcat.bottlenecks.compute import Blocks
from jaxcat.bottlenecks.engines import xla
from jaxcat.bottlenecks.key import keys_of
from jaxcat.bottlenecks.rows import Rows, identities
from jaxcat.bottlenecks.versions import step_versions
from jaxcat.data.store import Store
from jaxcat.errors import CacheError, ConfigError, DataError
from jaxcat.models.preprocessing import MINUS_ONE_TO_ONE, ZERO_TO_ONE, Conventions
from jaxcat.system import cli

pytestmark = pytest.mark.usefixtures("empty_cache", "small_batches")

KEY = {"stages": ["mixed0"], "pool": None, "image_size": 75, "dtype": "float32"}
STEPS = {
    "decode": "data.images.decoding",
    "resize": "data.images.resizing",
    "augment": "data.augmentation.table",
    "prefix": "models.backbone",
}


@pytest.fixture
def folder(tmp_path) -> Path:
    return small.image_folder(tmp_path / "images")


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """A folder of images, and a cache with their rows; nobody computes more."""
    root = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXCAT_CACHE", str(root / "cache"))
        prepared(config_of(small.image_folder(root / "images")))
    return root


@pytest.fixture
def computed(kept, empty_cache, monkeypatch) -> Path:
    """Images whose rows are in the cache; only to look rows up."""
    monkeypatch.setenv("JAXCAT_CACHE", str(kept / "cache"))
    return kept / "images"


def test_a_second_run_computes_nothing_and_decodes_nothing(folder, monkeypatch):
    config = config_of(folder)
    assert opened(config).to_compute == 2 * 24 + 12
    prepared(config)
    monkeypatch.setattr(Store, "prepare", None)
    monkeypatch.setattr(xla, "_compiled", None)
    assert prepared(config).to_compute == 0
    moved = folder.with_name("elsewhere")
    shutil.move(folder, moved)
    config.data.dir = str(moved)
    assert prepared(config).to_compute == 0
    config.data.augment = "none"  # another key
    with pytest.raises(TypeError):
        opened(config)


@pytest.mark.slow
def test_a_changed_image_loses_its_own_rows_only(folder):
    config = config_of(folder)
    before = prepared(config)
    small.draw("cross", np.random.default_rng(9)).save(folder / "train" / "disc" / "003.png")
    source = prepared(config)
    assert source.to_compute == 2
    old, new = (rows_of(s.train(0, first=0), config, 0) for s in (before, source))
    assert np.flatnonzero((old != new).any(axis=1)).tolist() == [3]


@pytest.mark.slow
def test_more_views_add_to_those_there_are(folder):
    prepared(config_of(folder, views=2))
    assert opened(config_of(folder, views=5, epochs=5)).to_compute == 3 * 24


@pytest.mark.parametrize(
    "changes",
    [
        {"model.cut": "mixed1"},
        {"model.pool": "max"},
        {"model.pool_grid": 2},
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
def test_whatever_shapes_a_row_is_in_the_key(computed, changes):
    assert opened(config_of(computed, **changes)).to_compute == 2 * 24 + 12


@pytest.mark.parametrize(
    "changes", [{"optim.learning_rate": 1.0}, {"model.hidden": 3}, {"epochs": 9}, {"batch_size": 3}], ids=str
)
def test_what_does_not_shape_a_row_is_not_in_the_key(computed, changes):
    assert opened(config_of(computed, **changes)).to_compute == 0


def key(*arguments, **others) -> dict:
    """The key of bottlenecks of one part."""
    (only,) = keys_of(*arguments, **others)
    return only


def test_other_weights_are_another_key(folder):
    config = config_of(folder)
    net = small.network(config)
    first, second = (key(config, net, frozen_digests={"params/stem/a": digest}) for digest in ("1", "2"))
    assert first != second


@pytest.mark.parametrize("step", step_versions())
def test_rows_of_two_versions_of_a_step_never_share_a_key(computed, step, monkeypatch):
    monkeypatch.setattr(f"jaxcat.{STEPS[step]}.{step.upper()}_VERSION", step_versions()[step] + 1)
    assert opened(config_of(computed)).to_compute == 2 * 24 + 12


def test_another_backbone_is_another_key(folder):
    config = config_of(folder)
    net = small.network(config)
    first = key(config, net, frozen_digests={})
    config.model.backbone = "vgg19"
    assert key(config, net, frozen_digests={}) != first


def test_the_key_names_everything_that_shapes_a_row(folder):
    """None of these may go: each is there because a row once differed by it."""
    config = config_of(folder)
    names = """
        format steps numbers backbone stages width pool pool_counts_padding preprocessing image_size resize augment seed
        compute_dtype matmul_precision dtype platform compiler_options xla_flags tensorflow_onednn versions
    """
    assert key(config, small.network(config), frozen_digests={}).keys() == set(names.split())


@pytest.mark.slow
def test_a_batch_too_large_for_the_device_is_halved_until_it_fits(folder, empty_cache, monkeypatch):
    config, compile = config_of(folder), xla.jit

    def rows_with_memory_for(most: int) -> tuple[np.ndarray, list[int]]:
        sizes = []

        def limited(function, **arguments):
            compiled = compile(function, **arguments)

            def call(frozen, batch):
                sizes.append(len(batch["image"]))
                if sizes[-1] > most:
                    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
                return compiled(frozen, batch)

            return call

        monkeypatch.setattr(xla, "jit", limited)
        shutil.rmtree(empty_cache, ignore_errors=True)
        return rows_of(prepared(config).train(0, first=0), config, 0), sizes

    expected, whole = rows_with_memory_for(1000)
    rows, halved = rows_with_memory_for(8)
    np.testing.assert_allclose(rows, expected, rtol=1e-5)  # on some processors not the same bits
    assert set(whole) == {32}
    assert halved[:3] == [32, 16, 8]
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        rows_with_memory_for(7)  # eight devices, an image each


def test_another_arithmetic_is_another_key(folder, monkeypatch):
    config = config_of(folder)
    net = small.network(config)
    keys = [key(config, net, frozen_digests={})]
    with jax.default_matmul_precision("highest"):
        keys.append(key(config, net, frozen_digests={}))
    changed = [
        ("system.compilation.compiler_options", {"option": "1"}),
        ("bottlenecks.key.installed_versions", {"jax": "0"}),
    ]
    for name, value in changed:
        with monkeypatch.context() as patch:
            patch.setattr(f"jaxcat.{name}", lambda *_, value=value: value)
            keys.append(key(config, net, frozen_digests={}))
    for conventions in (Conventions(ZERO_TO_ONE, False), Conventions(MINUS_ONE_TO_ONE, True)):
        keys.append(key(config, small.network(config, conventions=conventions), frozen_digests={}))
    config.model.width = 1 / 8
    keys.append(key(config, small.network(config), frozen_digests={}))
    for name, value in [("XLA_FLAGS", "--xla_gpu_deterministic_ops=true"), ("TF_ENABLE_ONEDNN_OPTS", "0")]:
        monkeypatch.setenv(name, value)
        keys.append(key(config, net, frozen_digests={}))
    assert all(a != b for a, b in itertools.combinations(keys, 2))


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_after_the_last_whole_block(folder, monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_ROWS", 5)
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


def opened_rows(key: dict) -> Rows:
    found = Rows(key, shape=(2,))
    found.open()
    return found


def block_files(root: Path) -> list[Path]:
    return sorted((root / "bottlenecks").rglob("*.npy"))


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flip", "header", "cut", "empty", "gone", "marker"])
def test_damage_is_noticed_and_repaired(kept, empty_cache, damage, caplog):
    config = config_of(kept / "images")
    shutil.copytree(kept / "cache", empty_cache)
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


@pytest.mark.slow
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
    assert {path.name for path in source.parts.rows[0].folder.iterdir()} == {".lock", "key.json"}
    assert prepared(config_of(folder)).to_compute == 60


def test_a_disk_that_is_full_at_the_marker_leaves_no_block_without_it(empty_cache, monkeypatch):
    found = opened_rows(KEY)

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(rows, "write_bytes", full)  # of markers; arrays are written otherwise
        with pytest.raises(CacheError, match="No space left on device"):
            found.add([b"a" * 16], np.ones((1, 2)))
    assert not block_files(empty_cache)
    found.add([b"a" * 16], np.ones((1, 2)))
    assert not opened_rows(KEY).missing([b"a" * 16])


def test_a_cache_of_someone_else_that_lacks_a_row_is_an_error_that_says_what_to_do(folder, monkeypatch):
    source = opened(config_of(folder))

    def refused(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(filelock.FileLock, "acquire", refused)
    with pytest.raises(CacheError, match=r"cannot be written: Permission denied.*JAXCAT_CACHE"):
        source.prepare(SILENT)


@pytest.mark.slow
def test_what_killed_writers_left_is_removed_in_time(folder):
    """Files aside, and a block whose marker was not written."""
    source = prepared(config_of(folder))
    names = (".left.aside", ".under_way.aside", ".block.npy.left", "left.npy", "under_way.npy")
    left = [source.parts.rows[0].folder / name for name in names]
    for path in left:
        path.touch()
        if "left" in path.name:
            os.utime(path, times=(0, 0))
    assert opened(config_of(folder)).to_compute == 0
    assert [path.name for path in left if path.exists()] == [".under_way.aside", "under_way.npy"]


@pytest.mark.slow
@pytest.mark.parametrize("skip", [False, True])
def test_files_that_cannot_be_opened_are_listed_or_left_out(folder, skip):
    for name in ("one.png", "two.png"):
        (folder / "train" / "disc" / name).symlink_to("nowhere")
    config = config_of(folder, **{"data.skip_bad": skip})
    if skip:
        assert prepared(config).to_compute == 2 * 24 + 12
        assert opened(config).to_compute == 0
    else:
        with pytest.raises(DataError, match=r"(?s)2 of 38 images.*one\.png.*two\.png"):
            opened(config)


@pytest.mark.slow
def test_the_rows_of_a_run_that_leaves_images_out_are_found_again(folder, monkeypatch):
    (folder / "train" / "disc" / "000.png").write_bytes(b"no image")
    config = config_of(folder, **{"data.skip_bad": True})
    assert prepared(config).to_compute == 2 * 23 + 12
    no_room(monkeypatch)  # and none needed
    assert opened(config).to_compute == 0
    config.seed = 1
    with pytest.raises(CacheError, match="bottlenecks need"):
        opened(config)


def no_room(monkeypatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=100)
    monkeypatch.setattr(source.shutil, "disk_usage", lambda path: usage)


def test_too_little_space_is_found_out_before_the_work(folder, monkeypatch):
    no_room(monkeypatch)
    monkeypatch.setattr(Store, "prepare", None)
    with pytest.raises(CacheError, match=r"bottlenecks need .* MB, .* has 0\.0 MB free.*--config\.bottleneck\.views"):
        opened(config_of(folder))


def test_too_little_space_of_another_process_ends_this_one_too(folder, monkeypatch):
    monkeypatch.setattr(source, "values_of_processes", lambda value: [int(value), 1])
    with pytest.raises(CacheError, match="enough, but not where another process of this run writes"):
        opened(config_of(folder))


def test_values_that_do_not_fit_are_refused(empty_cache):
    found = opened_rows({**KEY, "dtype": "float16"})
    with pytest.raises(CacheError, match="float32"):
        found.add([b"a" * 16], np.array([[1.0, 70000.0]]))


def looked_up(config, monkeypatch) -> source.BottleneckSource:
    """A source that has looked rows up and will not again: what others write meanwhile is news to it."""
    found = opened(config)
    monkeypatch.setattr(found, "look_up", lambda *_, **__: 0)
    return found


def test_a_signal_ends_the_wait_for_another_run(folder, monkeypatch):
    source = looked_up(config_of(folder), monkeypatch)
    with filelock.FileLock(source.parts.rows[0].folder / ".lock"):
        assert source.prepare(SILENT, stop=lambda: 143) == 143
    assert source.prepare(SILENT) == 0


@pytest.mark.slow
def test_two_runs_that_compute_the_same_leave_one_good_cache(folder, monkeypatch):
    config = config_of(folder)
    first, second = (looked_up(config, monkeypatch) for _ in range(2))
    first.prepare(SILENT)
    second.prepare(SILENT)  # finds the rows of the first
    assert first.to_compute == second.to_compute == 60
    assert len(list(second.parts.rows[0].folder.glob("*.npy"))) == 3
    np.testing.assert_array_equal(*(rows_of(s.train(1, first=0), config, 1) for s in (first, second)))


@pytest.mark.parametrize(("sizes", "written"), [([3, 0, 8, 8, 1], [4] * 5), ([17, 2], [4] * 4 + [3]), ([], [])])
def test_blocks_hold_their_rows_in_order(sizes, written, monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_ROWS", 4)
    values = np.arange(2 * sum(sizes), dtype=np.float32).reshape(-1, 2)
    names = [bytes([number] * 16) for number in range(len(values))]
    found = opened_rows(KEY)
    blocks = Blocks(found, names)
    for part in np.split(values, np.cumsum(sizes))[:-1]:
        before = len(found._blocks)
        assert blocks.add(part) == (len(found._blocks) > before)
    blocks.finish()
    assert [len(np.load(found.folder / f"{name}.npy")) for name in found._blocks] == written
    read = np.empty_like(values)
    found.gather(found.positions(names), read)
    np.testing.assert_array_equal(read, values)


def test_rows_are_found_by_all_bytes_of_their_identity(empty_cache):
    """Also by zeros at the end, which NumPy's strings leave out; and a row that was never added is missing."""
    names = [bytes([*range(15), last]) for last in (0, 1, 255)] + [bytes(16), b"\xff" * 16, bytes([0] * 15 + [1])]
    found = opened_rows(KEY)
    for name in names[::-1]:
        found.add([name], np.full((1, 2), names.index(name)))
    for rows_ in (found, opened_rows(KEY)):  # the same object, and what it wrote
        assert rows_.missing([*names, b"a" * 16]).tolist() == [False] * 6 + [True]
        read = np.empty((6, 2), np.float32)
        rows_.gather(rows_.positions(names), read)
        assert read[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
        with pytest.raises(KeyError, match="lacks 1 of 2 rows"):
            rows_.positions([names[0], b"a" * 16])
    assert opened_rows({**KEY, "image_size": 80}).missing(names).all()
    with pytest.raises(ValueError, match="more than 16 bytes"):
        found.missing([b"a" * 17])


def test_identities_tell_record_view_and_content_apart():
    digests = [b"a" * 16, b"a" * 16, b"b" * 16]
    assert identities(digests, view=None) == digests
    found = [identity for view in (0, 1) for identity in identities(digests, view=view)]
    assert len(set(found)) == 6


@pytest.mark.slow
def test_nothing_is_read_or_written_before_it_is_prepared(folder, empty_cache, monkeypatch, capsys):
    """And a source says of itself what it knows: before, and after."""
    with monkeypatch.context() as patch:
        for name in ("fetch", "digest"):
            patch.setattr(f"jaxcat.data.records.Split.{name}", None)
        waiting = made(config_of(folder))
        assert waiting.describe() == "24 train / 12 validation bottlenecks, 2 views"
        assert not waiting.parts.rows[0].folder.exists()
    console = Console(soft_wrap=True)
    assert waiting.prepare(console) == 0
    shape = "×".join(map(str, waiting.parts.shape))
    assert f"bottlenecks: {shape} float32, 0.0 MB, 60 of 60 to compute" in capsys.readouterr().out
    assert waiting.describe() == (
        f"24 train / 12 validation bottlenecks, 2 views, {shape} float32, 0.0 MB, 60 of 60 computed"
    )
    assert prepared(config_of(folder)).describe().endswith(", all 60 found")


def test_a_stop_while_images_are_decoded_ends_with_its_status(folder, monkeypatch):
    monkeypatch.setattr("jaxcat.data.store._REPORTED", 5)
    source = made(config_of(folder))
    assert source.prepare(SILENT, stop=lambda: 143) == 143
    assert source.prepare(SILENT) == 0


def test_the_cache_command_lists_and_clears(folder, empty_cache, capsys, monkeypatch):
    for name in ("xla", "xla-01234567"):
        (empty_cache / name).mkdir(parents=True)
        (empty_cache / name / "program").write_bytes(b"1" * 1000)
    (empty_cache / "weights.h5").write_bytes(b"1" * 1000)
    prepared(config_of(folder))
    prepared(config_of(folder, **{"model.pool": "avg_std"}))  # the averages are there
    prepared(config_of(folder, **{"model.cut": "mixed1", "model.train_from": "mixed1"}))
    maps = next(path.name for path in (empty_cache / "bottlenecks").glob("mixed0-75px-*"))
    (name,) = [entry.name for entry in cache.entries(empty_cache) if entry.name.startswith("pooled-75px-")]
    assert cache.main(["list"]) == 0
    shown = "".join(capsys.readouterr().out.split())
    assert name in shown
    assert "60rowsofmixed0,avgstd,float32" in shown
    assert maps in shown
    assert "60rowsuptomixed0" in shown
    assert "weights.h5" in shown
    with pytest.raises(ConfigError, match="nonesuch"):
        cache.main(["clear", "nonesuch"])
    assert cache.main(["clear", name]) == 0
    assert [path.name for path in (empty_cache / "bottlenecks").iterdir()] == [maps]
    assert cache.main(["clear", "--all"]) == 0
    assert [path.name for path in empty_cache.iterdir() if path.is_file()] == ["weights.h5"]
    assert not list(empty_cache.glob("xla*"))
    monkeypatch.setattr(Path, "rglob", lambda *_: [empty_cache / "weights.h5", empty_cache / "renamed meanwhile"])
    assert cache.size(empty_cache) == 1000
    with pytest.raises(SystemExit) as caught:
        cli.run(cache.main, ["clear"])
    assert caught.value.code == 2
