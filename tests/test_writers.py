"""Where the entries of epochs go: Weights & Biases only if asked for, a failing writer before any work."""

from __future__ import annotations

import sys
import types

import pytest
import small
from small_run import metrics

from jaxcat.errors import ConfigError
from jaxcat.train import train
from jaxcat.training import writers


@pytest.mark.slow
def test_weights_and_biases_gets_every_epoch_and_goes_on_with_the_same_run(tmp_path, folder, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="the wandb extra is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    logged, identities, begin = [], [], wandb.init

    def init(**options):
        run = begin(**options)
        identities.append(run.id)
        log = run.log
        monkeypatch.setattr(run, "log", lambda values, step: logged.append((step, values)) or log(values, step=step))
        return run

    monkeypatch.setattr(wandb, "init", init)
    config = small.tiny_config(folder)
    config.log.wandb, config.epochs = "jaxcat-tests", 1
    assert train(config, tmp_path / "run") == 0
    config.epochs = 2
    assert train(config, tmp_path / "run") == 0
    assert identities[0] == identities[1]
    for entry, (step, values) in zip(metrics(tmp_path / "run"), logged, strict=True):
        assert step == entry["step"]
        assert values["validation/accuracy"] == entry["validation/accuracy"]
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))


def test_weights_and_biases_that_is_not_installed_is_said_before_any_image_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    broken = small.image_folder(tmp_path / "images")
    (broken / "train" / "disc" / "000.png").write_bytes(b"not an image")
    config = small.tiny_config(broken)
    config.log.wandb = "jaxcat-tests"
    with pytest.raises(ConfigError, match=r"--config.log.wandb=jaxcat-tests: .*not installed.*wandb"):
        train(config, tmp_path / "run")


def test_weights_and_biases_that_does_not_start_is_said_in_one_sentence(tmp_path, folder, monkeypatch):
    def init(**options):
        raise RuntimeError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init, Settings=dict))
    config = small.tiny_config(folder)
    config.log.wandb = "jaxcat-tests"
    with pytest.raises(ConfigError) as refused:
        train(config, tmp_path / "run")
    assert str(refused.value) == (
        "--config.log.wandb=jaxcat-tests: Weights & Biases does not start (No API key configured): log in with "
        "`wandb login`, or set WANDB_MODE=offline"
    )


@pytest.mark.slow
def test_nothing_of_weights_and_biases_is_imported_unless_asked_for(tmp_path, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import would fail
    config = small.tiny_config(folder)
    config.epochs = 1
    assert train(config, tmp_path / "run") == 0
    assert not (tmp_path / "run" / "wandb-run-id").exists()


def test_a_writer_is_closed_even_if_another_cannot_begin(tmp_path, folder, monkeypatch):
    closed = []

    class Good:
        def __init__(self, workdir, config): ...

        def begin(self, history): ...

        def close(self):
            closed.append(True)

    class Bad(Good):
        def begin(self, history):
            raise ConfigError("no")

    monkeypatch.setattr(writers, "WRITERS", (Good, Bad))
    from jaxcat.training import reporting

    monkeypatch.setattr(reporting, "WRITERS", (Good, Bad))
    with pytest.raises(ConfigError, match="no"):
        train(small.tiny_config(folder), tmp_path / "run")
    assert closed == [True]
