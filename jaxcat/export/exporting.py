"""Exporting: writes a file aside, compares it with jaxcat, adds its description, and only then gives it its name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcat.errors import ConfigError, ExportError, JaxcatError, one_line
from jaxcat.export.formats import FLOAT32, SINGLE_FILE, Format, format_of
from jaxcat.system.console import Console, said_if_long
from jaxcat.system.files import placing, write_errors_as
from jaxcat.system.paths import typed

if TYPE_CHECKING:
    from jaxcat.inference.classifier import Classifier


def export(
    classifier: Classifier,
    path: str | os.PathLike,
    *,
    format: str,
    weights: str = FLOAT32,
    accept: bool = False,
    console: Console | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Writes a classifier for other programs, completely or not at all.

    Args:
        path: the file or folder to write, which must not be there yet. Its suffix is that of the format, or .html for a
            single file.
        format: a name in `formats.FORMATS`.
        weights: "float32", "float16" or "int8", as far as the format has them.
        accept: whether to keep a file of float16 or int8 weights that changes more answers than is usual.
        console: where figures and progress are shown.
        options: of the format "web". `single_file=True` writes one HTML file instead of a folder; `runtime` is the path
            of the npm package of ONNX Runtime Web, where there is no npm to get it.

    Returns:
        The description that is in the file.

    Raises:
        ConfigError: the request cannot be done: no such format, a package that is not installed, a path that is taken.
        ExportError: the file cannot be written, or its answers differ from jaxcat's. Nothing is left.
    """
    console = console or Console(quiet=True)
    kind = format_of(format, weights, options)
    if classifier.calibration and not kind.has_head:
        raise ConfigError(
            f"--calibrated: it divides the logits of a head, and --format {format} holds none; leave it out"
        )
    target = _target(path, format, ".html" if options.get(SINGLE_FILE) else kind.suffix)
    writer = kind.writer(console, **options)
    from jaxcat.export.description import description_of, text_of
    from jaxcat.export.network import exported

    with write_errors_as(ExportError, target), placing(target) as aside:
        network = exported(classifier)
        with said_if_long(f"writing {format}", console=console), _reported(target):
            writer.write(aside, network, weights=weights)
            run = writer.opened(aside, network)
        parity = _parity(classifier, run, kind, weights=weights, accept=accept, console=console)
        description = description_of(classifier, format=format, weights=weights, parity=parity)
        writer.describe(aside, text_of(description), classes=classifier.classes)
    return description


@contextlib.contextmanager
def _reported(target: Path) -> Iterator[None]:
    """Turns errors of another program's writer, of any kind, into errors that name the file."""
    try:
        yield
    except (JaxcatError, OSError):
        raise
    except Exception as error:
        raise ExportError(f"{target}: cannot be written: {type(error).__name__}: {one_line(error)}") from error


def _target(wanted: str | os.PathLike, format: str, suffix: str) -> Path:
    """The path to write, if it fits the format and is free. Raises ConfigError."""
    try:
        path = typed(wanted)
    except ConfigError as error:
        raise ConfigError(f"--output {error}") from error
    if path.suffix.lower() != suffix and suffix:
        raise ConfigError(f"--output {path}: --format {format} writes NAME{suffix}")
    if path.suffix.lower() == ".html" and not suffix:
        raise ConfigError(f"--output {path}: --format {format} writes a folder; for one file add --single-file")
    if os.path.lexists(path):
        raise ConfigError(f"--output {path}: is there already: remove it, or give another name")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"--output {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"--output {path}: {folder} cannot be written: give another folder")
    return path


def _parity(
    classifier: Classifier, run: Any, kind: Format, *, weights: str, accept: bool, console: Console
) -> Mapping[str, Any]:
    """Compares, prints the figures and gives them. Raises ExportError if the file must not be kept."""
    from jaxcat.export.examples import examples_of
    from jaxcat.export.parity import Expected, measured

    if run is None:
        reason = f"not compared with jaxcat: {kind.runtime} is not here"
        console.print(reason, soft_wrap=True)
        return {"not_compared": reason}
    with said_if_long("comparing with jaxcat", console=console):
        parity = measured(Expected(classifier, examples_of(classifier), console=console), run, weights=weights)
    for line in parity.lines():
        console.print(line, soft_wrap=True)
    if (problem := parity.problem(weights)) and not (accept and weights != FLOAT32):
        kept = "" if weights == FLOAT32 else "; --accept keeps the file all the same"
        raise ExportError(f"{problem}{kept}: {' '.join(parity.lines())}")
    return parity.to_dict()
