"""Converted prefixes in the cache: found by what shapes them, made once, checked, listed, and errors in one line."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
import small
from rich.console import Console
from small_engines import Small, config_of, side_by_side, small_of

from jaxcat import cache
from jaxcat.bottlenecks import key
from jaxcat.bottlenecks.engines import converted, litert
from jaxcat.bottlenecks.engines.litert import LiteRTPrefix
from jaxcat.errors import CacheError, EngineError
from jaxcat.models.preprocessing import MINUS_ONE_TO_ONE, Conventions

pytestmark = pytest.mark.slow  # each conversion is a process that imports TensorFlow
SILENT = Console(quiet=True)


def make(of: Small) -> converted.Converted:
    return converted.make(of.config, of.network.conventions, of.digests, arrays=lambda: of.frozen, console=SILENT)


def found(of: Small) -> converted.Converted | None:
    return converted.find(of.config, of.network.conventions, of.digests)


@pytest.fixture(scope="module", autouse=True)
def in_a_process_of_its_own(conversions_are_forked):
    """Gives what other tests have in place of `subprocess`."""
    forking = converted.subprocess
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converted, "subprocess", subprocess)
        yield forking


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Small]:
    """A cache with one converted prefix, made as a run makes it."""
    of, root = small_of(config_of(model__cut="mixed1")), tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXCAT_CACHE", str(root))
        make(of)
    return root, of


@pytest.fixture
def whole(made, empty_cache) -> Small:
    """The same network, and a copy of that cache."""
    shutil.copytree(made[0], empty_cache)
    return made[1]


@pytest.fixture
def no_conversion(monkeypatch) -> None:
    monkeypatch.setattr(converted, "PROGRAM", "json.no_such_program")


def file_of(of: Small) -> Path:
    there = found(of)
    assert there is not None
    return there.path


def test_what_was_made_is_found_and_computes_what_jax_does(whole, empty_cache, no_conversion):
    there = make(whole)  # it does not convert
    assert there == found(whole)
    assert there.path.is_relative_to(empty_cache / "converted")
    assert {path.name for path in there.path.parent.iterdir()} == {"key.json", "prefix.tflite", ".lock"}
    images = small.images(4)
    wanted = whole.features(images)
    rms = np.sqrt(
        np.mean((side_by_side(LiteRTPrefix(there).rows(images)) - wanted) ** 2) / np.var(wanted, axis=0).mean()
    )
    assert rms < 0.15


def test_a_network_that_ends_earlier_uses_a_longer_file(whole):
    shorter = small_of(config_of(model__cut="mixed0", model__pool="avg", model__pool_from="cut"))
    there = found(shorter)
    assert there is not None
    assert (there.path, there.outputs) == (file_of(whole), ("mixed0/avg",))
    (row,) = LiteRTPrefix(there).rows(small.images(1))
    assert [values.shape for values in row] == [(shorter.network.features,)]


@pytest.mark.parametrize(
    "changes",
    [
        {"model__cut": "mixed2"},
        {"model__pool": "max"},
        {"model__pool_grid": 2},
        {"model__width": 0.2},
        {"data__image_size": 80},
        {"engine": "litert_float32"},
    ],
    ids=str,
)
def test_what_shapes_a_file_is_in_its_key(whole, changes):
    assert found(small_of(config_of(**{"model__cut": "mixed1", **changes}))) is None


def test_weights_and_conventions_are_in_the_key_up_to_the_last_block(whole, monkeypatch):
    digests = whole.digests
    last = {name: "0" if "/mixed1/" in name else digest for name, digest in digests.items()}
    assert found(whole._replace(digests=last)) is None
    shorter = small_of(config_of(model__cut="mixed0"))
    assert found(shorter._replace(digests=last)) is not None
    assert found(shorter._replace(digests=dict.fromkeys(digests, "0"))) is None
    other = Conventions(MINUS_ONE_TO_ONE, pool_counts_padding=True)
    assert converted.find(whole.config, other, digests) is None
    monkeypatch.setattr(key, "GRAPH_VERSION", key.GRAPH_VERSION + 1)
    assert found(whole) is None


def test_another_converter_is_another_key(whole, monkeypatch):
    monkeypatch.setattr(key, "installed_versions", lambda *names: dict.fromkeys(names, "0"))
    assert found(whole) is None


@pytest.mark.parametrize("damage", ["changed byte", "cut", "empty", "gone", "a folder", "no key", "key is no object"])
def test_a_damaged_file_is_not_used(whole, damage, no_conversion):
    path = file_of(whole)
    if damage == "changed byte":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage in ("gone", "a folder"):
        path.unlink()
        if damage == "a folder":
            path.mkdir()  # as what may not be read, it raises another OSError
    elif damage in ("cut", "empty"):
        path.write_bytes(path.read_bytes()[:-100] if damage == "cut" else b"")
    else:
        path.with_name("key.json").write_text("" if damage == "no key" else "[3]")
    assert found(whole) is None
    with pytest.raises(EngineError):  # it would be made again
        make(whole)


def test_a_damaged_file_is_made_again(whole, in_a_process_of_its_own, monkeypatch):
    """A forked process makes it here, and makes the same bytes as one of its own."""
    monkeypatch.setattr(converted, "subprocess", in_a_process_of_its_own)
    path = file_of(whole)
    good = path.read_bytes()
    path.write_bytes(good[:1000] + b"x" + good[1001:])
    assert make(whole).content == good
    assert path.read_bytes() == good


def test_a_failed_conversion_is_one_line_and_leaves_nothing(empty_cache, no_conversion):
    of = small_of(config_of(model__cut="mixed0"))
    with pytest.raises(EngineError) as refused:
        make(of)
    says = str(refused.value)
    assert says.startswith("the network could not be converted for litert_int8: ")
    assert "No module named json.no_such_program" in says
    assert "--" not in says, "training and evaluate have other flags"
    assert "\n" not in says
    assert {path.name for path in (empty_cache / "converted").rglob("*") if path.is_file()} <= {".lock"}


def test_the_reason_of_the_other_process_is_said(empty_cache):
    of = small_of(config_of(model__cut="mixed0"))
    empty = {"params": {}, "stats": {}}
    with (
        contextlib.closing(
            converted.Making(of.config, of.network.conventions, of.digests, arrays=lambda: empty)
        ) as making,
        pytest.raises(RuntimeError, match="without a result") as refused,
    ):
        assert making.wait(SILENT) or making.result()
    assert isinstance(refused.value.__cause__, KeyError)  # arrays that are missing are an error of jaxcat
    with pytest.raises(EngineError, match="could not be converted for .*litert_int7"):
        _converse(of, request=converted.request_of(config_of("litert_int7"), of.network.conventions))
    with pytest.raises(EngineError, match="ended by SIGKILL, perhaps for lack of memory"):
        _converse(of, closed=True)


def _converse(of: Small, *, request: str | None = None, closed: bool = False) -> None:
    """Runs the other process without arrays."""
    making = converted.Making.__new__(converted.Making)
    making._engine, making._request, making._closed = "litert_int8", request or "{}", threading.Event()
    if closed:
        making._closed.set()
    making._converse(converted.packed({}), Path.cwd())


def test_it_can_be_interrupted_while_it_converts(empty_cache):
    of = small_of(config_of(model__cut="mixed0"))
    began = time.monotonic()
    making = converted.Making(of.config, of.network.conventions, of.digests, arrays=lambda: of.frozen)
    with contextlib.closing(making):
        assert making.wait(SILENT, stop=lambda: 143 if making._process else 0) == 143
    assert not making._thread.is_alive()
    assert time.monotonic() - began < 30
    assert found(of) is None
    assert not list((empty_cache / "converted").rglob("*.aside"))


def test_two_runs_do_not_convert_the_same_network_twice(whole, empty_cache, no_conversion):
    path = file_of(whole)
    key_file = path.with_name("key.json")
    hidden = key_file.rename(path.with_name("hidden"))
    with filelock.FileLock(path.with_name(".lock")):
        making = converted.Making(
            whole.config, whole.network.conventions, whole.digests, arrays=lambda: pytest.fail("it converts")
        )
        time.sleep(0.2)
        assert making._thread.is_alive()
        hidden.rename(key_file)  # the other run has finished
    with contextlib.closing(making):
        assert making.wait(SILENT) == 0
        assert making.result().path == path


def test_a_cache_that_cannot_be_written_is_said(empty_cache):
    of = small_of(config_of(model__cut="mixed0"))
    empty_cache.mkdir()
    (empty_cache / "converted").write_text("a file where a folder should be")
    with pytest.raises(CacheError, match="cannot be written: .*; free space .* set JAXCAT_CACHE to another directory$"):
        make(of)


def test_the_cache_command_lists_and_removes_it(whole, empty_cache, capsys):
    assert cache.main(["list"]) == 0
    folder = file_of(whole).parent
    listed = capsys.readouterr().out
    assert folder.name in listed
    assert "inception_v3 up to mixed1, 75 px, for litert_int8" in " ".join(listed.split())
    (folder / "key.json").write_text("{}")
    cache.main(["list"])
    assert "without a readable key" in " ".join(capsys.readouterr().out.split())
    assert cache.main(["clear", folder.name]) == 0
    assert not folder.exists()


def test_keys_of_rows_name_everything_that_shapes_them(whole, monkeypatch):
    of = whole
    keys = key.litert_keys(of.config, of.network.conventions, of.digests)
    assert [(each["stages"][-1], each["pool"]) for each in keys] == [
        (part.block, [part.statistic, 1]) for part in of.network.parts
    ]
    names = """
        format steps numbers backbone stages width pool pool_counts_padding preprocessing image_size resize augment seed
        compute_dtype dtype engine plan converter delegate machine versions
    """
    assert all(each.keys() == set(names.split()) for each in keys)
    text = json.dumps(keys)
    assert "jax" not in text
    assert "xla" not in text
    assert keys == key.keys_of(of.config, of.network, frozen_digests=of.digests)

    def others() -> list[bool]:
        now = key.litert_keys(of.config, of.network.conventions, of.digests)
        return [a == b for a, b in zip(keys, now, strict=True)]

    assert all(others())
    with monkeypatch.context() as patch:
        newer = litert.required_interpreter()._replace(version="9")
        patch.setattr(key, "required_interpreter", lambda: newer)
        assert not any(others())
    of = of._replace(digests={name: "0" if "/mixed1/" in name else each for name, each in of.digests.items()})
    assert others() == [part.block != "mixed1" for part in of.network.parts]
