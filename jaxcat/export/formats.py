"""The table of export formats: what each is for, what its files are called, and what it needs. Imports no framework."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Iterable
from typing import Any

from jaxcat.errors import ConfigError
from jaxcat.extras import install
from jaxcat.wording import not_one_of

FLOAT32, FLOAT16, INT8 = "float32", "float16", "int8"
SINGLE_FILE, RUNTIME = "single_file", "runtime"  # names of options

WEIGHTS = {
    FLOAT32: "as trained",
    FLOAT16: "half the size",
    INT8: "a quarter of the size: kernels of convolutions are 8-bit integers, the head is not",
}


@dataclasses.dataclass(frozen=True)
class Format:
    """One row of the table.

    Attributes:
        meaning: one line for `--help`.
        module: the writer, in jaxcat.export.writers.
        suffix: of the file's name; "" for a folder without one.
        weights: types that weights can have in it.
        modules: what must be installed to write it, by the names that Python imports.
        extra: the extra of jaxcat that installs them.
        runtime: what runs the file to compare it with jaxcat.
        options: further options that its writer takes, by name; its module has `with_options`.
        has_head: whether the head that a run has trained is in the file.
    """

    meaning: str
    module: str
    suffix: str
    weights: tuple[str, ...] = (FLOAT32,)
    modules: tuple[str, ...] = ()
    extra: str = ""
    runtime: str = ""
    options: tuple[str, ...] = ()
    has_head: bool = True

    def writer(self, console: Any = None, **options: Any) -> Any:
        """The module of the writer, or an object with the same functions; see jaxcat.export.writers."""
        module = importlib.import_module(f"jaxcat.export.writers.{self.module}")
        return module.with_options(console=console, **options) if self.options else module


FORMATS = {
    "stablehlo": Format("a program for JAX alone (jax.export), for CPUs, GPUs and TPUs", "stablehlo", ".stablehlo"),
    "savedmodel": Format("a folder for TensorFlow and its server; takes pixels, or JPEG and PNG", "savedmodel", ""),
    "litert": Format(
        "a file for LiteRT (TensorFlow Lite): Android, iOS, Linux boards, browsers",
        "litert",
        ".tflite",
        (FLOAT32, FLOAT16, INT8),
        runtime="a LiteRT interpreter",
    ),
    "onnx": Format(
        "a file for ONNX Runtime: many languages, servers, browsers",
        "onnx_file",
        ".onnx",
        (FLOAT32, FLOAT16, INT8),
        ("onnx",),
        "export",
        "onnxruntime",
    ),
    "web": Format(
        "a web page that classifies images and the camera in the browser: a folder, or one file with --single-file",
        "web",
        "",
        (FLOAT32, FLOAT16, INT8),
        ("onnx",),
        "export",
        "onnxruntime",
        (SINGLE_FILE, RUNTIME),
    ),
    "coreml": Format(
        "a package for Apple's Core ML: iOS 16 and macOS 13 on",
        "coreml",
        ".mlpackage",
        (FLOAT32, FLOAT16, INT8),
        ("coremltools",),
        "coreml",
        "Core ML, which only macOS has,",
    ),
    "canonical": Format(
        "the backbone's weights for another jaxcat: --config.model.weights=FILE",
        "canonical",
        ".safetensors",
        has_head=False,
    ),
}  # fmt: skip


def format_of(name: str, weights: str, options: Iterable[str] = ()) -> Format:
    """The row of a format that can have these weights and options, and whose packages are installed.

    Raises:
        ConfigError: there is none; the message says what there is, or what to install.
    """
    if problem := not_one_of(name, FORMATS):
        raise ConfigError(f"--format {name}: {problem}")
    found = FORMATS[name]
    if problem := not_one_of(weights, found.weights):
        raise ConfigError(f"--weights {weights}: with --format {name} it {problem}")
    for option in options:
        if option not in found.options:
            takes = ", ".join(each for each, row in FORMATS.items() if option in row.options)
            raise ConfigError(f"--{option.replace('_', '-')}: --format {name} does not take it; {takes or 'none'} does")
    if lacking := [module for module in found.modules if importlib.util.find_spec(module) is None]:
        raise ConfigError(f"--format {name} needs {', '.join(lacking)}: {install(found.extra)}")
    return found
