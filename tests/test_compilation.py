"""The compiler options: applied on a CPU, absent elsewhere, and a warning where jaxlib does not know them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import small

import jaxcat
from jaxcat.system import compilation
from jaxcat.train import train
from jaxcat.training import epoch

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def asked_anew():
    compilation.compiler_options.cache_clear()
    yield
    compilation.compiler_options.cache_clear()


def convolve(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def program(jit) -> str:
    """What a convolution compiles to."""
    return jit(convolve).lower(jnp.ones((4, 32, 32, 16)), jnp.ones((3, 3, 16, 32))).compile().as_text().lower()


def test_convolutions_stay_out_of_the_slower_library():
    if "ynn" not in program(jax.jit):
        pytest.skip("this jaxlib does not send convolutions there")
    assert "ynn" not in program(compilation.jit)


@pytest.mark.slow
def test_whatever_computes_convolutions_is_compiled_with_the_option(
    folder, tmp_path, empty_cache, monkeypatch, no_kept_programs
):
    """The prefix alone, and the steps of training, validation and prediction."""
    options, jit = {}, jax.jit

    def watched(function, **arguments):
        options.setdefault(getattr(function, "__qualname__", ""), []).append(arguments.get("compiler_options"))
        return jit(function, **arguments)

    monkeypatch.setattr(jax, "jit", watched)
    for views in (0, 1):
        config = small.tiny_config(folder)
        config.epochs, config.bottleneck.views = 1, views
        assert train(config, tmp_path / str(views)) == 0
    jaxcat.load(tmp_path / "0").predict(list(small.images(1)))
    for name in (
        "_compiled.<locals>.compute",
        "make_train_step.<locals>.step",
        "make_eval_step.<locals>.step",
    ):
        assert options[name]
        assert all(given == compilation.CPU_OPTIONS for given in options[name])


def test_runs_of_one_process_share_their_steps_if_nothing_of_them_differs(folder, tmp_path, monkeypatch):
    """Other images, the same settings: nothing is traced anew. Another seed, or another learning rate: all is."""
    made, make = [], epoch.make_train_step
    monkeypatch.setattr(epoch, "make_train_step", lambda *given, **options: made.append(1) or make(*given, **options))
    others = small.image_folder(tmp_path / "others")

    def steps_made(name: str, images: Path = folder, **changes: object) -> int:
        made.clear()
        config = small.tiny_config(images)
        config.seed, config.epochs, config.model.dropout = 17, 1, 0.25
        config.update_from_flattened_dict(changes)
        assert train(config, tmp_path / name) == 0
        return len(made)

    assert steps_made("first") == 1
    assert steps_made("second", others) == 0
    assert steps_made("seed", seed=18) == 1
    assert steps_made("rate", **{"optim.learning_rate": 0.017}) == 1
    assert steps_made("network", **{"model.dropout": 0.26}) == 1
    metrics = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("first", "seed", "rate", "network")]
    losses = {json.loads(text)["train/loss"] for text in metrics}
    assert len(losses) == len(metrics), "each has steps of its own"


@pytest.mark.slow
def test_a_command_keeps_its_programs_and_the_next_one_finds_them(folder, tmp_path):
    """The step of fine-tuning, which takes seconds to compile: what takes less than 0.3 s is not kept."""
    settings = {
        "data.dir": folder,
        "model.weights": "none",
        "model.width": 0.0625,
        "model.train_from": "mixed0",
        "model.cut": "mixed0",
    }
    settings |= {"data.image_size": 75, "epochs": 1, "bottleneck.views": 0}
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    environment = {**os.environ, "JAXCAT_CACHE": str(tmp_path / "cache"), "JAX_DEBUG_LOG_MODULES": "jax._src.compiler"}

    def found(name: str) -> bool:
        command = [
            sys.executable,
            "-m",
            "jaxcat.train",
            "--config",
            "configs/folder.py:trained",
            "--workdir",
            tmp_path / name,
        ]
        done = subprocess.run(
            [*command, *flags], check=True, cwd=REPOSITORY, env=environment, capture_output=True, text=True
        )
        return "cache hit for 'jit_step'" in done.stderr

    assert not found("first")
    assert list((tmp_path / "cache").glob("xla*/jit_step-*"))
    assert found("second")


def test_an_unknown_option_costs_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(compilation, "CPU_OPTIONS", {"xla_no_such_option": "1"})
    assert compilation.compiler_options() == {}
    assert "xla_no_such_option" in caplog.text
    assert compilation.jit(lambda x: x + 1)(1) == 2


def test_other_backends_get_no_option(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compilation.compiler_options() == {}


def test_other_xla_flags_get_another_cache_of_programs(monkeypatch):
    """On GPUs XLA keeps there which kernels were fastest, deterministic or not."""
    folders = []
    monkeypatch.setattr(jax.config, "update", lambda name, value: folders.append(value) if "dir" in name else None)
    many = "--xla_force_host_platform_device_count=8"
    for flags in (
        "",
        many,
        "--xla_gpu_deterministic_ops=true",
        f"{many} --xla_gpu_deterministic_ops=true",
        "--xla_b=1",
    ):
        monkeypatch.setenv("XLA_FLAGS", flags)
        compilation.enable_compilation_cache()
    plain, devices, deterministic, both, other = folders
    assert plain == devices
    assert deterministic == both
    assert len({plain, deterministic, other}) == 3
