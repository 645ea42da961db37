"""The fuzzer of tests/fuzz_weights.py, shortened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest


@pytest.mark.slow
def test_mutated_files_load_or_are_refused(tmp_path):
    """A crash inside libhdf5 is its own and not counted against jaxcat; anything else would be."""
    script = Path(__file__).with_name("fuzz_weights.py")
    command = [sys.executable, str(script), "--count", "100", "--seed", "1", "--folder", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    total: Counter = Counter()
    for layout, outcomes in json.loads(done.stdout).items():
        total += Counter(outcomes)
        allowed = {"loaded", "refused"} | ({"crash: SIGSEGV", "crash: SIGABRT"} if "keras" in layout else set())
        assert outcomes.keys() <= allowed, (layout, outcomes, done.stderr)
    assert total["loaded"] > 5
    assert total["refused"] > 20
