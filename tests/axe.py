"""axe-core, which finds what makes a page hard to use without eyes or a mouse: one file of its npm package."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import platformdirs
import pytest
from filelock import FileLock

PACKAGE, VERSION, FILE = "axe-core", "4.14.1", "axe.min.js"
SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"  # of the file in the npm registry
SERIOUS = ("serious", "critical")


def source(base: Path) -> str:
    """The script: from the user's cache, which stays as it is, else by npm, once for all tests; or a skip.

    Args:
        base: the temporary directory of the tests.
    """
    name = f"{PACKAGE}-{VERSION}"
    kept = Path(platformdirs.user_cache_dir("jaxcat")) / "runtimes" / name / FILE
    if kept.is_file():
        return _checked(kept.read_bytes())
    if not shutil.which("npm"):
        pytest.skip(f"no {PACKAGE}: install npm (apt-get install npm)")
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # the processes of pytest-xdist fetch it once
    file = shared / f"{name}.js"
    with FileLock(shared / f"{name}.lock"):
        if not file.is_file():
            file.write_bytes(_fetched())
        return _checked(file.read_bytes())


def _fetched() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", f"{PACKAGE}@{VERSION}", "--silent"], cwd=folder, check=True, capture_output=True)
        (packed,) = Path(folder).glob("*.tgz")
        with tarfile.open(packed) as archive:
            found = archive.extractfile(f"package/{FILE}")
            assert found is not None
            return found.read()


def _checked(content: bytes) -> str:
    assert hashlib.sha256(content).hexdigest() == SHA256, f"another {FILE} than that of {PACKAGE} {VERSION}"
    return content.decode()


def problems(page, script: str) -> list[str]:
    """What axe-core finds in an open page of `browser` that is serious: a line for each."""
    page.run(script + "\n;undefined")
    found = json.loads(page.run("axe.run(document).then((found) => JSON.stringify(found.violations))"))
    return [
        f"{each['id']}, {each['help']}: {[node['html'][:120] for node in each['nodes'][:3]]}"
        for each in found
        if each["impact"] in SERIOUS
    ]
