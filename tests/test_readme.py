"""The README's commands do what it says: the article's ones here, shrunk; the two scripts are what CI itself runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text()


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.strip()]


def test_scripts_named_in_the_readme_exist_and_ci_calls_both():
    scripts = [line.split()[1] for line in commands() if line.startswith("bash")]
    assert scripts == ["scripts/quickstart.sh", "scripts/test.sh"]
    ci = (REPOSITORY / ".ci" / "run").read_text()
    assert all(script in ci and (REPOSITORY / script).is_file() for script in scripts)


@pytest.mark.slow
def test_the_articles_commands_run(shared, tmp_path):
    article = [line for line in commands() if "runs/mixed7" in line]
    assert [line.split()[2] for line in article] == ["jaxcat.train", "jaxcat.evaluate", "jaxcat.predict"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    for line in article:
        line = line.replace("runs/mixed7", str(tmp_path / "run")).replace("../shared", str(shared))
        words = [sys.executable, *shlex.split(line)[1:]]
        if "jaxcat.train" in line:
            words += ["--config.epochs=1", "--config.data.train_size=40", "--config.data.validation_size=20"]
        result = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stderr
    assert '"label": ' in result.stdout
