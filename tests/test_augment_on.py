"""What computes views: a fixed rule, stored by the run, kept when it continues, and part of the key of its rows."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest
import small
from small_bottlenecks import config_of, opened, prepared, rows_of
from small_run import metrics, outcome

from jaxcat.bottlenecks.key import keys_of
from jaxcat.config import completed, default
from jaxcat.data.augmentation.table import views_of
from jaxcat.data.sources import open_data
from jaxcat.data.streaming import Streaming
from jaxcat.errors import ConfigError
from jaxcat.flags import validate
from jaxcat.runs import meta as checkpoint_meta
from jaxcat.runs import workdir as workdirs
from jaxcat.system.devices import make_mesh
from jaxcat.train import train
from jaxcat.training import augmentation
from jaxcat.training.engine import settle_engine


def settled(**changes) -> str:
    config = default()
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    augmentation.settle_augmentation(config)
    return config.data.augment_on


@pytest.mark.parametrize(
    ("platform", "changes", "where"),
    [
        ("cpu", {}, "device"),
        ("gpu", {}, "device"),
        ("tpu", {}, "host"),
        ("cpu", {"bottleneck__engine": "litert_int8"}, "host"),
        ("cpu", {"data__augment_on": "host"}, "host"),
        ("tpu", {"data__augment_on": "device"}, "device"),
    ],
    ids=str,
)
def test_auto_is_a_fixed_rule(monkeypatch, platform, changes, where):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert settled(**changes) == where


def asked(**changes):
    config = default()
    config.data.dir, config.bottleneck.views, config.data.augment = "images", 3, "article"
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


def test_litert_takes_its_images_from_the_host():
    config = asked(bottleneck__engine="litert_int8", data__augment_on="device")
    with pytest.raises(
        ConfigError, match="litert_int8: --config.data.augment_on=device makes views by JAX; set it to xla"
    ):
        validate(config)
    config.data.augment = "none"
    validate(config)
    config.data.erase = 0.5
    with pytest.raises(ConfigError, match="--config.data.augment_on=device makes views by JAX"):
        validate(config)
    validate(asked(bottleneck__engine="litert_int8"))


def test_an_engine_that_may_be_chosen_is_one_that_the_device_can_make_views_for(monkeypatch):
    monkeypatch.setattr("jaxcat.training.engine.interpreter", lambda: "one")
    data = SimpleNamespace(splits={"train": range(3000), "validation": range(60)})
    for where, engine in (("device", "xla"), ("host", "litert_int8"), ("auto", "litert_int8")):
        config = asked(bottleneck__engine="auto", data__augment_on=where)
        settle_engine(config, data)
        assert config.bottleneck.engine == engine
    augmentation.settle_augmentation(config)
    assert config.data.augment_on == "host"


@pytest.mark.parametrize(("changes", "says"), [({"data__erase": 0.1}, "data.erase=0.1"), ({}, "data.augment=article")])
def test_an_exact_head_sees_each_image_once(changes, says):
    config = asked(**{"data__augment": "none" if changes else "article", **changes})
    config.optim.name, config.bottleneck.views = "exact", 1
    with pytest.raises(ConfigError, match=f"--config.{says} cannot be combined with --config.optim.name=exact"):
        validate(config)


# keys and rows --------------------------------------------------------------------------------------------------------


def key(folder, **changes) -> dict:
    config = config_of(folder, **changes)
    (only,) = keys_of(config, small.network(config), frozen_digests={})
    return only


def test_rows_of_host_and_device_have_different_keys_and_older_ones_keep_theirs(folder):
    host, device = (key(folder, **{"data.augment_on": where}) for where in ("host", "device"))
    assert host == key(folder, **{"data.augment_on": "host", "data.erase": 0.0})
    assert "augment_on" not in host
    assert "erase" not in host
    assert device == host | {"augment_on": "device"}
    erased = {where: key(folder, **{"data.augment_on": where, "data.erase": 0.5}) for where in ("host", "device")}
    assert erased["host"] == host | {"erase": 0.5}
    assert erased["device"] == device | {"erase": 0.5}


def test_rows_without_augmentation_have_one_key(folder):
    plain = {"data.augment": "none"}
    host, device = (key(folder, **plain, **{"data.augment_on": where}) for where in ("host", "device"))
    assert host == device
    assert host["seed"] is None
    assert not host.keys() & {"augment_on", "erase"}
    assert key(folder, **plain, **{"data.erase": 0.5})["seed"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"data.augment": "none", "data.erase": 0.7}], ids=str)
def test_rows_of_views_by_host_and_device_differ_by_little_and_are_not_shared(folder, empty_cache, changes):
    rows = {}
    for where in ("host", "device"):
        config = config_of(folder, **changes, **{"data.augment_on": where})
        assert opened(config).to_compute == 2 * 24 + 12
        source = prepared(config)
        rows[where] = [rows_of(source.train(view, first=0), config, view) for view in (0, 1)]
    host, device = (np.array(rows[where]) for where in ("host", "device"))
    assert np.abs(host[0] - host[1]).max() > 0.1 * np.abs(host).max(), "two views differ"
    assert np.abs(host - device).max() + ("data.augment" in changes) > 0
    np.testing.assert_allclose(device, host, atol=0.03 * np.abs(host).max())


def test_a_batch_of_any_epoch_carries_its_own_views_to_the_device(folder):
    """What is drawn does not depend on the batch size, nor on where the epoch goes on; validation is not changed."""
    config = small.tiny_config(folder)
    config.data.augment, config.data.augment_on, config.data.erase = "inception", "device", 0.5
    images = []
    for batch_size, first in ((8, 1), (4, 2)):
        config.batch_size = batch_size
        source = Streaming(config, open_data(config), mesh=make_mesh())
        batches = list(source.train(3, first=first))
        assert all(batch["image"].shape[1:] == (113, 113, 3) for batch in batches)
        assert set(batches[0]) == {"image", "label", "mask", "across", "down", "mixing", "erased"}
        images.append(
            [np.concatenate([np.asarray(b[name])[np.asarray(b["mask"])] for b in batches]) for name in batches[0]]
        )
        assert set(next(source.validation())) == {"image", "label", "mask"}
    for first, second in zip(*images, strict=True):
        np.testing.assert_array_equal(first, second)


# runs -----------------------------------------------------------------------------------------------------------------


def begun(folder, **changes):
    config = small.tiny_config(folder)
    config.data.augment, config.epochs = "article", 1
    config.update_from_flattened_dict(changes)
    return config


def stored(workdir) -> str:
    return checkpoint_meta.read_meta(workdir, workdirs.steps(workdir)[-1]).config.data.augment_on


@pytest.mark.slow
def test_a_run_stores_what_auto_was_and_keeps_it(folder, tmp_path, monkeypatch, capsys):
    assert train(begun(folder), tmp_path) == 0
    assert "augment article, on the device" in capsys.readouterr().out
    assert stored(tmp_path) == "device"
    monkeypatch.setattr(augmentation, "PLATFORMS", ())
    assert train(begun(folder, epochs=2), tmp_path) == 0
    assert stored(tmp_path) == "device"
    with pytest.raises(ConfigError, match="begun with --config.data.augment_on=device, not host"):
        train(begun(folder, epochs=3, **{"data.augment_on": "host"}), tmp_path)
    forced = {"data.augment_on": "host", "resume": "force", "epochs": 3}
    assert train(begun(folder, **forced), tmp_path) == 0
    assert stored(tmp_path) == "host"
    assert [entry["epoch"] for entry in metrics(tmp_path)] == [1, 2, 3]


@pytest.mark.slow
def test_an_older_run_is_one_of_the_host(folder, tmp_path, monkeypatch):
    """Its checkpoint lacks the settings; it goes on as one that asks for the host does."""
    config = begun(folder, **{"data.augment_on": "host"})
    assert train(config, tmp_path / "older") == train(config, tmp_path / "newer") == 0
    (step,) = workdirs.steps(tmp_path / "older")
    meta = checkpoint_meta.read_meta(tmp_path / "older", step)
    plain = meta.to_json()
    del plain["config"]["data"]["augment_on"], plain["config"]["data"]["erase"], plain["meta_digest"]
    older = checkpoint_meta.parse(plain)
    assert views_of(older.config) == views_of(completed({"data": {"augment": "article"}}))
    assert older.config.data.augment_on == "host"
    monkeypatch.setattr("jaxcat.training.start.recovery.newest_good", lambda _: (older, {}))
    assert train(begun(folder, epochs=2), tmp_path / "older") == 0
    monkeypatch.undo()
    assert train(begun(folder, epochs=2, **{"data.augment_on": "host"}), tmp_path / "newer") == 0
    assert outcome(tmp_path / "older") == outcome(tmp_path / "newer")


@pytest.mark.slow
def test_host_and_device_train_to_nearly_the_same_numbers(folder, tmp_path):
    losses = {}
    for where in ("host", "device"):
        assert train(begun(folder, epochs=2, **{"data.augment_on": where}), tmp_path / where) == 0
        losses[where] = [entry["train/loss"] for entry in metrics(tmp_path / where)]
    np.testing.assert_allclose(losses["device"], losses["host"], rtol=0.02)
