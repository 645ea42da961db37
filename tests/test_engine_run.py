"""The engine of a run: how `auto` is settled, what is refused before work, and runs that compute with LiteRT."""

from __future__ import annotations

import importlib
import itertools
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import small
from small_bottlenecks import SILENT, config_of, made, prepared

from jaxcat import configs
from jaxcat.bottlenecks import rows
from jaxcat.bottlenecks.engines import converted, interpreted
from jaxcat.bottlenecks.engines.litert import Found, LiteRTPrefix
from jaxcat.bottlenecks.engines.names import AUTO, LEAST_RECORDS, XLA
from jaxcat.config import default
from jaxcat.data.images.resizing import resize
from jaxcat.errors import ConfigError, EngineError
from jaxcat.flags import validate
from jaxcat.runs import meta
from jaxcat.runs import workdir as workdirs
from jaxcat.train import train
from jaxcat.training import engine, loop
from jaxcat.training.engine import check_engine, settle_engine

ANY = Found("ai-edge-litert", "2.3.0", None)
ASKING = ("folder", "folder:fast", "tfds", "tfds:fast", "tfds:cats_vs_dogs", "cats_vs_dogs:fast", "cats_vs_dogs:best")


def request(**changes):
    config = default()
    config.data.dir, config.bottleneck.views, config.bottleneck.engine = "images", 1, AUTO
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


def data_with(records: int):
    return SimpleNamespace(splits={"train": range(records - 60), "validation": range(60), "test": range(10**6)})


@pytest.fixture
def found(monkeypatch):
    monkeypatch.setattr(engine, "interpreter", lambda: ANY)


@pytest.mark.parametrize(
    ("changes", "records", "wanted"),
    [
        ({}, LEAST_RECORDS, "litert_int8"),
        ({}, LEAST_RECORDS - 1, XLA),
        ({"bottleneck__views": 0}, 3000, XLA),
        ({"model__train_from": "mixed8"}, 3000, XLA),
        ({"model__dtype": "bfloat16"}, 3000, XLA),
        ({"data__augment": "article", "bottleneck__views": 3}, 3000, "litert_int8"),
        ({"bottleneck__dtype": "float16"}, 3000, "litert_int8"),
        ({"model__backbone": "vgg19"}, 3000, "litert_int8"),
        ({"bottleneck__engine": XLA}, 3000, XLA),
        ({"bottleneck__engine": "litert_float32"}, 10, "litert_float32"),
    ],
    ids=str,
)
def test_auto_is_a_fixed_rule(found, changes, records, wanted):
    config = request(**changes)
    settle_engine(config, data_with(records))
    assert config.bottleneck.engine == wanted


def test_auto_is_xla_without_interpreter_on_accelerators_and_in_several_processes(monkeypatch, found):
    for where, name, value in (
        (engine, "interpreter", lambda: None),
        (jax, "default_backend", lambda: "gpu"),
        (jax, "process_count", lambda: 2),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, value)
            config = request()
            settle_engine(config, data_with(3000))
            assert config.bottleneck.engine == XLA


def test_the_recipes_that_solve_a_head_ask_for_auto():
    asking = {
        f"{name}:{variant}".removesuffix(":default")
        for name in configs.shipped()
        for variant in variants(name)
        if configs.execute(f"{name}:{variant}").bottleneck.engine != XLA
    }
    assert asking == set(ASKING)
    assert default().bottleneck.engine == XLA


def variants(name: str) -> tuple[str, ...]:
    return importlib.import_module(f"jaxcat.configs.{name}").VARIANTS


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bottleneck__views": 0}, "litert_int8: --config.bottleneck.views=0 keeps no bottlenecks; set it to xla"),
        ({"model__train_from": "mixed8"}, "litert_int8: --config.model.train_from=mixed8 trains a block"),
        ({"model__dtype": "bfloat16"}, "litert_int8: --config.model.dtype=bfloat16"),
        ({"bottleneck__engine": "litert_int7"}, "litert_int7: must be one of auto, .*did you mean litert_int8"),
    ],
    ids=str,
)
def test_what_litert_cannot_do_is_refused_by_name(changes, says):
    with pytest.raises(ConfigError, match=f"--config.bottleneck.engine={says}"):
        validate(request(**{"bottleneck__engine": "litert_int8", **changes}))
    validate(request(**{**changes, "bottleneck__engine": AUTO}))


def test_where_litert_cannot_run_it_is_refused_before_work(monkeypatch, found):
    config = request(bottleneck__engine="litert_float32")
    check_engine(config, begun=False)
    with monkeypatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")
        with pytest.raises(
            ConfigError, match="litert_float32: it computes on the CPU, and this run uses gpu; set it to"
        ):
            check_engine(config, begun=False)
        check_engine(request(), begun=False)
    with monkeypatch.context() as patch:
        patch.setattr(jax, "process_count", lambda: 2)
        with pytest.raises(ConfigError, match="it needs a run of one process"):
            check_engine(config, begun=False)
    monkeypatch.setattr(engine, "interpreter", lambda: None)
    with pytest.raises(EngineError, match="needs an interpreter, and none is installed: pip install 'ai-edge-litert"):
        check_engine(config, begun=False)
    with pytest.raises(EngineError, match="pip install .*; or the run was begun with it; .* --config.resume=force"):
        check_engine(config, begun=True)


# runs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cached(tmp_path_factory) -> Path:
    """A cache that the tests below share, so that they convert once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def shared_cache(cached, monkeypatch) -> Path:
    monkeypatch.setenv("JAXCAT_CACHE", str(cached))
    return cached


def source_config(folder, **changes):
    return config_of(folder, views=1, **{"data.augment": "none", "bottleneck.engine": "litert_int8", **changes})


def values(source) -> np.ndarray:
    parts = [read(0, len(source.splits["train"])) for _, read in source.reader_of("train")]
    return np.concatenate(parts, axis=1)


@pytest.mark.slow
def test_rows_of_a_run_are_those_of_the_file_and_are_found_again(folder, shared_cache, monkeypatch):
    config = source_config(folder)
    source = prepared(config)
    assert source.to_compute == 24 + 12
    there = converted.find(config, source._network.conventions, meta.digests(source._frozen))
    train_split = made(config).splits["train"]
    images = [resize(train_split.fetch(record), 75, mode=config.data.resize) for record in range(len(train_split))]
    wanted = np.stack([np.concatenate(row) for row in LiteRTPrefix(there).rows(images)])
    np.testing.assert_array_equal(values(source), wanted)
    monkeypatch.setattr(interpreted, "Making", None)
    assert prepared(config).to_compute == 0
    xla = prepared(source_config(folder, **{"bottleneck.engine": XLA}))
    assert xla.to_compute == 24 + 12  # they share no rows
    assert 0 < np.abs(values(xla) - wanted).max() < 0.3 * np.abs(wanted).max()


@pytest.mark.slow
def test_rows_can_be_kept_in_float16(folder, shared_cache):
    whole, half = (
        values(prepared(source_config(folder, **{"bottleneck.dtype": dtype}))) for dtype in ("float32", "float16")
    )
    np.testing.assert_array_equal(half, whole.astype(np.float16).astype(np.float32))


@pytest.mark.slow
def test_views_are_those_that_jax_sees(folder, shared_cache):
    """In float32 the rows of augmented images are equal but for rounding, so the views are."""
    changes = {"data.augment": "article", "bottleneck.views": 2}
    ours = prepared(source_config(folder, **changes, **{"bottleneck.engine": "litert_float32"}))
    theirs = prepared(source_config(folder, **changes, **{"bottleneck.engine": XLA}))
    assert ours.to_compute == theirs.to_compute == 2 * 24 + 12
    for epoch in (0, 1):
        for a, b in zip(ours.train(epoch, first=0), theirs.train(epoch, first=0), strict=True):
            np.testing.assert_allclose(a["bottleneck"], b["bottleneck"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_between_two_images_it_can_be_interrupted(folder, cached, empty_cache, monkeypatch):
    """It is asked after every two rows; at the fourth look, one block of the 12 rows of validation is written."""
    shutil.copytree(cached / "converted", empty_cache / "converted")
    monkeypatch.setattr(interpreted, "TOGETHER", 2)
    monkeypatch.setattr(rows, "BLOCK_ROWS", 5)
    source, looks = made(source_config(folder)), itertools.count(1)

    def stop() -> int:
        return 143 if source._engine._prefix and next(looks) == 4 else 0

    assert source.prepare(SILENT, stop=stop) == 143
    assert next(looks) == 5
    assert source._engine._making is None
    assert prepared(source_config(folder)).to_compute == 24 + 12 - 5


def solving(folder, **changes):
    config = small.tiny_config(folder)
    config.bottleneck.views, config.bottleneck.dtype, config.optim.name = 1, "float32", "exact"
    config.bottleneck.engine = AUTO
    config.update_from_flattened_dict(changes)
    return config


def stored(workdir: Path):
    return meta.read_meta(workdir, workdirs.steps(workdir)[-1]).config


@pytest.mark.slow
def test_a_run_stores_and_prints_what_auto_is_and_keeps_it(folder, shared_cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engine, "LEAST_RECORDS", 36)
    workdir = tmp_path / "run"
    assert train(solving(folder), workdir) == 0
    assert "bottlenecks by litert_int8, ai-edge-litert 2." in capsys.readouterr().out
    assert stored(workdir).bottleneck.engine == "litert_int8"
    monkeypatch.setattr(engine, "LEAST_RECORDS", 37)
    monkeypatch.setattr(engine, "interpreter", lambda: None)
    assert train(solving(folder), workdir) == 0  # it is finished
    with pytest.raises(ConfigError, match=r"begun with --config.bottleneck.engine=litert_int8, not xla"):
        train(solving(folder, **{"bottleneck.engine": XLA}), workdir)
    assert train(solving(folder), tmp_path / "other") == 0
    assert stored(tmp_path / "other").bottleneck.engine == XLA
    assert "bottlenecks by xla" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_by_steps_goes_on_with_its_engine_and_not_without_interpreter(
    folder, shared_cache, tmp_path, monkeypatch
):
    monkeypatch.setattr(engine, "LEAST_RECORDS", 36)
    by_steps = {"optim.name": "rmsprop", "epochs": 1}
    assert train(solving(folder, **by_steps), tmp_path) == 0
    assert stored(tmp_path).bottleneck.engine == "litert_int8"
    by_steps["epochs"] = 2
    with monkeypatch.context() as patch:
        patch.setattr(engine, "interpreter", lambda: None)
        with pytest.raises(EngineError, match="pip install 'ai-edge-litert>=2.3,<3'"):
            train(solving(folder, **by_steps), tmp_path)
    monkeypatch.setattr(engine, "LEAST_RECORDS", 37)
    assert train(solving(folder, **by_steps), tmp_path) == 0
    assert stored(tmp_path).bottleneck.engine == "litert_int8"
    forced = {**by_steps, "epochs": 3, "bottleneck.engine": XLA, "resume": "force"}
    assert train(solving(folder, **forced), tmp_path) == 0
    assert stored(tmp_path).bottleneck.engine == XLA


@pytest.mark.slow
def test_a_run_whose_network_cannot_be_converted_ends_with_one_line(folder, empty_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(converted, "PROGRAM", "json.no_such_program")
    refused = (
        "^--config.bottleneck.engine=litert_int8: the network could not .*; or .*: --config.bottleneck.engine=xla$"
    )
    with pytest.raises(EngineError, match=refused):
        train(solving(folder, **{"bottleneck.engine": "litert_int8"}), tmp_path)
    assert loop.train(solving(folder, **{"bottleneck.engine": XLA}), tmp_path) == 0
