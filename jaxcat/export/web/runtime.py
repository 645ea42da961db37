"""ONNX Runtime Web, which runs the network in a page: two files of its npm package, checked against their hashes.

They come from jaxcat's cache; from the npm registry by `npm pack`, after which they are in the cache; or from a path.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from jaxcat.errors import CacheError, ConfigError, ExportError, one_line
from jaxcat.system.console import Console, said_if_long
from jaxcat.system.files import cache_dir, write_bytes, write_errors_as

NAME, VERSION = "onnxruntime-web", "1.30.0"
PACKAGE = f"{NAME}@{VERSION}"
SCRIPT, PROGRAM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
# SHA-256 of the files of that version in the npm registry. The package has no licence file; licence() has the text.
HASHES = {
    SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    PROGRAM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
LARGEST = 2**26  # bytes of one file
BY_HAND = f"give the package {PACKAGE} (its .tgz file, or the folder that it unpacks to) with --runtime PATH"


def licence() -> str:
    """The licence of ONNX Runtime."""
    return Path(__file__).with_name("onnxruntime_licence.txt").read_text(encoding="utf-8")


def runtime(given: Path | None = None, *, console: Console | None = None) -> dict[str, bytes]:
    """The files, by name.

    Args:
        given: a .tgz file of the npm package or the folder that it unpacks to; None takes the cache or `npm pack`.
        console: shows that npm is at work.

    Raises:
        ConfigError: nothing usable at the given path, or no npm.
        ExportError: npm cannot get the package, or what it gets is another one.
        CacheError: the cache cannot be written.
    """
    if given is not None:
        found = _of_path(given)
        if problem := _problem(found):
            raise ConfigError(f"--runtime {given}: {problem}: {BY_HAND}")
        return found
    folder = cache_dir() / "runtimes" / f"{NAME}-{VERSION}"
    found = _of_folder(folder)
    if not _problem(found):
        return found
    with said_if_long(f"npm pack {PACKAGE}", console=console or Console(quiet=True)):
        found = _by_npm()
    if problem := _problem(found):
        raise ExportError(f"npm pack {PACKAGE}: {problem}: {BY_HAND}")
    with write_errors_as(CacheError, folder, "; set JAXCAT_CACHE to another"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in found.items():
            write_bytes(folder / name, content)
    return found


def _problem(found: dict[str, bytes]) -> str:
    """Why these are not the files; "" if they are."""
    for name, expected in HASHES.items():
        if name not in found:
            return f"there is no {name} in it"
        if hashlib.sha256(found[name]).hexdigest() != expected:
            return f"its {name} is not that of {PACKAGE}"
    return ""


def _of_path(path: Path) -> dict[str, bytes]:
    try:
        if path.is_dir():
            return _of_folder(path) or _of_folder(path / "dist") or _of_folder(path / "package" / "dist")
        return _of_archive(path)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ConfigError(f"--runtime {path}: cannot be read: {one_line(error)}: {BY_HAND}") from error


def _of_folder(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in HASHES if (folder / name).is_file()}


def _of_archive(path: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            if folder == "package/dist" and name in HASHES and member.isfile() and member.size <= LARGEST:
                file = archive.extractfile(member)
                assert file is not None  # it is a regular file
                found[name] = file.read()
    return found


def _by_npm() -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigError(f"--format web gets {PACKAGE} by npm, which is not installed: install Node.js, or {BY_HAND}")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [npm, "pack", PACKAGE, "--silent"],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            reason = " ".join((done.stderr or done.stdout).split())[:200] or f"status {done.returncode}"
            raise ExportError(f"npm pack {PACKAGE} fails: {reason}: {BY_HAND}")
        return _of_archive(archives[0])
