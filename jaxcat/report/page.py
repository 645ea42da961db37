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

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jaxcat.errors import CheckpointError, ConfigError
from jaxcat.escaping import for_json_in_page
from jaxcat.report.context import Context
from jaxcat.report.numbers import percent
from jaxcat.report.origins import shown_path
from jaxcat.report.section import Section
from jaxcat.system.files import write_errors_as, write_text
from jaxcat.wording import counted, printable

HERE = Path(__file__).parent
FILE = "index.html"
STYLES, SCRIPTS = ("report.css", "sections.css"), ("report.js", "map.js")
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
    with write_errors_as(CheckpointError, path):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return path


def text_of(context: Context, sections: Sequence[Section]) -> str:
    """The HTML of the page."""
    style, script = ("\n".join(_text(name).strip() for name in names) for names in (STYLES, SCRIPTS))
    templates = environment()
    bodies = [Markup(templates.get_template(each.template).render(**each.values)) for each in sections]
    return templates.get_template("page.html").render(
        policy=POLICY.format(style=_digest(style), script=_digest(script)),
        style=Markup(style),
        script=Markup(script),
        title=title_of(context),
        facts=f"{context.name}: {counted(len(context), 'image')}, {counted(len(context.classes), 'class', 'classes')}",
        made=made_by(context),
        sections=list(zip(sections, bodies, strict=True)),
        images=Markup(for_json_in_page(context.pictures.island())),
        records=Markup(for_json_in_page(_records(context))),
        classes=Markup(for_json_in_page(context.classes)),
    )


def _records(context: Context) -> dict[str, list[Any]]:
    """Number → file, label, answer, probability of the answer and of the label; of the images that are in the page."""
    of_label = np.exp(-context.losses)
    return {
        str(number): [
            context.files[number],
            int(context.labels[number]),
            int(context.predicted[number]),
            round(float(context.confidence[number]), 6),
            round(float(of_label[number]), 6),
        ]
        for number in context.pictures.embedded
    }


def title_of(context: Context) -> str:
    """What the page is about: the name of the run's directory, or of published weights."""
    if context.workdir is None:
        return printable(shown_path(str(context.classifier.config.model.weights)))
    return printable(context.workdir.resolve().name or "run")


def made_by(context: Context) -> str:
    """The last line of the page."""
    of_run = "" if context.workdir is None else f" from step {context.classifier.step} of the run"
    return f"Made by jaxcat {importlib.metadata.version('jaxcat')}{of_run}. The page is one file and asks for no other."


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
