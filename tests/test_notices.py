"""Commands write nothing to standard error but what jaxcat itself has to say: no notices of its libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import small

REPOSITORY = Path(__file__).resolve().parent.parent
TINY = ("--config.model.width=0.0625", "--config.model.cut=mixed0", "--config.model.weights=none")
TINY += ("--config.data.image_size=75", "--config.data.train_size=8", "--config.data.validation_size=4")


def notices(*arguments: str | Path) -> list[str]:
    """The lines on standard error of a command that succeeds, without those of jaxcat about work that takes long."""
    without = {"TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS", "PYTHONWARNINGS", "JAX_PLATFORMS"}  # as a user has it
    environment = {name: value for name, value in os.environ.items() if name not in without}
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return [line for line in result.stderr.splitlines() if not line.endswith(" …")]


@pytest.mark.slow
def test_no_notices_of_libraries(tmp_path):
    folder, run = small.image_folder(tmp_path / "images"), tmp_path / "run"
    image = next(folder.rglob("*.png"))
    train = ("-m", "jaxcat.train", "--workdir", run, f"--config.data.dir={folder}", *TINY)
    augmented = (
        "--config",
        "configs/folder.py:trained",
        "--config.data.augment=article",
        "--config.bottleneck.views=0",
    )
    assert notices(*train, *augmented, "--config.epochs=1") == []
    assert notices(*train, *augmented, "--config.epochs=2") == []  # goes on
    assert notices(*train, *augmented, "--config.epochs=2") == []  # is finished
    exact = ("-m", "jaxcat.train", "--workdir", tmp_path / "exact", f"--config.data.dir={folder}", *TINY)
    assert notices(*exact, "--config", "configs/folder.py") == []
    assert notices("-m", "jaxcat.evaluate", "--workdir", run) == []
    assert notices("-m", "jaxcat.predict", "--workdir", run, image) == []
    assert notices("-m", "jaxcat.check", folder) == []
    assert notices("-m", "jaxcat.cache", "list") == []


@pytest.mark.slow
def test_no_notices_where_weights_are_looked_at(weights):
    assert notices("scripts/convert_weights.py", weights, "--inspect") == []
