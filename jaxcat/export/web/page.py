"""Pages: HTML, style and scripts as a folder or as one file, under a content security policy that forbids the network.

All text in a page goes through `for_html` or `for_script`; class names are only in its JSON.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
import string
from collections.abc import Mapping
from pathlib import Path

from jaxcat.browser import files
from jaxcat.errors import ExportError
from jaxcat.escaping import for_json_in_page
from jaxcat.export.web.runtime import PROGRAM, SCRIPT, licence

HERE = Path(__file__).parent
MODEL, PAGE, STYLE, MAIN, WORKER = "model.onnx", "index.html", "style.css", "main.js", "worker.js"
# In an order in which each only imports what comes before it.
OWN_SCRIPTS = ("pixels.js", "kinds.js", "decoding.js", "assets.js", "network.js", "answers.js", "about.js", MAIN)
SCRIPTS = (*files.SCRIPTS, *OWN_SCRIPTS)
STYLES = (files.STYLE, STYLE)

# Addresses blob: are places in the browser's memory: of chosen images, and of the worker, which has the same policy.
POLICY = (
    "default-src 'none'; img-src blob: data:; worker-src blob:; base-uri 'none'; form-action 'none'; "
    "script-src 'wasm-unsafe-eval'"
)
FOLDER_POLICY = f"{POLICY} 'self'; style-src 'self'; connect-src 'self'"
FILE_POLICY = f"{POLICY} 'sha256-{{script}}'; style-src 'sha256-{{style}}'"
OF_FOLDER = "The page loads its own files and nothing else: its security policy forbids every other address."
OF_FILE = "The page is one file, whose security policy forbids the network altogether."
STARTING = "Starting …"
NOT_BY_DOUBLE_CLICK = (
    "Starting … If this stays, the page was opened as a file: a folder needs a web server, such as python -m "
    "http.server; a page made with --single-file does not."
)

IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w.-]+)";$', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async )?function|const) (\w+)", re.MULTILINE)
LAST_EXPORT = re.compile(r"export\{([^}]*)\};?\s*(?://# sourceMappingURL=\S*)?\s*\Z")


def folder_files(description: str, runtime: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a folder, without the network, by name; `description` is JSON."""
    page = _page(
        policy=FOLDER_POLICY,
        style="\n".join(f'<link rel="stylesheet" href="{name}">' for name in STYLES),
        script=f'<script type="module" src="{MAIN}"></script>',
        description=description,
        network=OF_FOLDER,
        starting=NOT_BY_DOUBLE_CLICK,
    )
    made = {PAGE: page, WORKER: _worker(runtime).encode(), PROGRAM: runtime[PROGRAM]}
    made |= {name: _text(name).encode() for name in (*STYLES, *SCRIPTS)}
    return {**made, "onnxruntime-LICENSE.txt": licence().encode()}


def single_file(description: str, runtime: Mapping[str, bytes], network: bytes) -> bytes:
    """The page with everything in it; `network` is an ONNX file."""
    script, style = for_script("\n".join(_own_module(name) for name in SCRIPTS)), "\n".join(map(_text, STYLES))
    kept = {WORKER: _worker(runtime).encode(), PROGRAM: runtime[PROGRAM], MODEL: network}
    return _page(
        policy=FILE_POLICY.format(script=_digest(script), style=_digest(style)),
        style=f"<style>{style}</style>",
        script=f'<script type="module">{script}</script>',
        assets="\n".join(
            f'<script type="application/gzip" id="{name}">{_packed(content)}</script>' for name, content in kept.items()
        ),
        description=description,
        network=OF_FILE,
        starting=STARTING,
    )


def for_html(text: str) -> str:
    """Text as it stands in an element or an attribute."""
    return html.escape(text)


def for_script(text: str) -> str:
    """A script or JSON in a script element. Raises ExportError for what would end the element."""
    if re.search(r"</script|<!--|\r", text, re.IGNORECASE):
        raise ExportError("a script of the page has </script, <!-- or a carriage return in it")
    return text


def _worker(runtime: Mapping[str, bytes]) -> str:
    """ONNX Runtime Web and the worker as one classic script: a page opened as a file may start no module."""
    text = runtime[SCRIPT].decode().replace("import.meta.url", "self.location.href")
    exported = LAST_EXPORT.search(text)
    if exported is None:
        raise ExportError(f"{SCRIPT} does not end with what it exports")
    pairs = (entry.split(" as ") for entry in exported[1].split(","))
    names = {outside.strip(): own.strip() for own, outside in pairs}
    return f"{_module(SCRIPT, text[: exported.start()], names)}\n{_own_module(WORKER)}"


def _own_module(name: str) -> str:
    """A module of the page as a function that is called once and gives what the module exports."""
    text = IMPORT.sub(lambda found: f"const {{{found[1]}}} = {_variable(found[2])};", _text(name))
    return _module(name, EXPORT.sub(r"\1 \2", text), {found[2]: found[2] for found in EXPORT.finditer(text)})


def _module(name: str, body: str, exported: Mapping[str, str]) -> str:
    given = ", ".join(f"{outside}: {own}" for outside, own in exported.items())
    return f"const {_variable(name)} = (() => {{\n{body}\nreturn {{{given}}};\n}})();\n"


def _variable(name: str) -> str:
    return "module_" + re.sub(r"\W", "_", name)


def _page(
    *, policy: str, style: str, script: str, description: str, network: str, starting: str, assets: str = ""
) -> bytes:
    filled = string.Template(_text("page.html")).substitute(
        policy=policy,
        style=style,
        script=script,
        assets=assets,
        description=for_script(for_json_in_page(json.loads(description))),
        network=for_html(network),
        starting=for_html(starting),
        licence=for_html(licence()),
    )
    return filled.encode()


def _text(name: str) -> str:
    shared = name in (*files.SCRIPTS, files.STYLE)
    return ((files.FOLDER if shared else HERE) / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
