"""A web page: a folder for a web server, or one HTML file. The network in it is the file of the format `onnx`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxcat.export.network import ExportedNetwork
from jaxcat.export.web import page
from jaxcat.export.web.runtime import runtime as runtime_of
from jaxcat.export.writers import onnx_file
from jaxcat.system.console import Console


def with_options(*, single_file: bool = False, runtime: Path | None = None, console: Console | None = None) -> Writer:
    """A writer of folders or of single files; finds ONNX Runtime Web first, which may raise an error."""
    files = runtime_of(runtime, console=console)
    return FileWriter(files) if single_file else Writer(files)


class Writer:
    """Writes a folder. Its functions are those of the modules of writers."""

    def __init__(self, runtime: dict[str, bytes]):
        self.runtime = runtime

    def write(self, path: Path, network: ExportedNetwork, *, weights: str) -> None:
        path.mkdir()
        onnx_file.write(path / page.MODEL, network, weights=weights)

    def opened(
        self, path: Path, network: ExportedNetwork
    ) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None:
        return onnx_file.opened(path / page.MODEL, network)

    def describe(self, path: Path, text: str, *, classes: Sequence[str]) -> None:
        onnx_file.describe(path / page.MODEL, text, classes=classes)
        for name, content in page.folder_files(text, self.runtime).items():
            (path / name).write_bytes(content)


class FileWriter(Writer):
    """Writes one file: the network alone at first, which `describe` replaces by the page around it."""

    def write(self, path: Path, network: ExportedNetwork, *, weights: str) -> None:
        onnx_file.write(path, network, weights=weights)

    def opened(
        self, path: Path, network: ExportedNetwork
    ) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None:
        return onnx_file.opened(path, network)

    def describe(self, path: Path, text: str, *, classes: Sequence[str]) -> None:
        onnx_file.describe(path, text, classes=classes)
        path.write_bytes(page.single_file(text, self.runtime, path.read_bytes()))
