"""The page: sections in one HTML file, under a policy that forbids the network and every script but its own."""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.metadata
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jaxcat.errors import CheckpointError, ConfigError, one_line
from jaxcat.escaping import for_json_in_page
from jaxcat.report.context import Context
from jaxcat.report.numbers import percent
from jaxcat.report.section import Section
from jaxcat.system.files import write_text
from jaxcat.wording import counted, printable

HERE = Path(__file__).parent
FILE = "index.html"
POLICY = (
    "default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'; base-uri 'none'; "
    "form-action 'none'"
)


def check_output(folder: Path) -> Path:
    """The folder of the report. Makes nothing.

    Raises:
        ConfigError: it cannot be written, as far as that can be told without writing.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if folder.is_symlink():
        raise ConfigError(f"--output {folder}: is a link to {os.readlink(folder)}; give the folder itself")
    if not there.is_dir():
        raise ConfigError(f"--output {folder}: {there} is no directory; give another folder with --output DIR")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(
            f"--output {folder}: {there} is read-only or not yours; give another folder with --output DIR"
        )
    return folder


def write(folder: Path, context: Context, sections: Sequence[Section]) -> Path:
    """Writes the page completely, or leaves the one that was there.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    text, path = text_of(context, sections), folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {one_line(error)}") from error
    return path


def text_of(context: Context, sections: Sequence[Section]) -> str:
    """The HTML of the page."""
    style, script = (_text(name).strip() for name in ("report.css", "report.js"))
    templates = environment()
    bodies = [Markup(templates.get_template(each.template).render(**each.values)) for each in sections]
    return templates.get_template("page.html").render(
        policy=POLICY.format(style=_digest(style), script=_digest(script)),
        style=Markup(style),
        script=Markup(script),
        title=title_of(context),
        facts=f"{context.name}: {counted(len(context), 'image')}, {counted(len(context.classes), 'class', 'classes')}",
        made=f"Made by jaxcat {importlib.metadata.version('jaxcat')}, on step {context.classifier.step} of the run.",
        sections=list(zip(sections, bodies, strict=True)),
        images=Markup(for_json_in_page(context.pictures.island())),
    )


def title_of(context: Context) -> str:
    """What the page is about: the name of the run's directory, or of published weights."""
    if context.workdir is None:
        return printable(str(context.classifier.config.model.weights))
    return printable(context.workdir.resolve().name or "run")


@functools.cache
def environment() -> Environment:
    """The templates. Whatever they show is escaped, and what is not printable in a text is shown as an escape."""
    found = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(HERE / "templates"),
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["percent"] = percent
    found.filters["island"] = lambda value: Markup(for_json_in_page(value))
    return found


def _shown(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _text(name: str) -> str:
    return (HERE / "templates" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
