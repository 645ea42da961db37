"""The scripts and the style that the pages of `export` and `serve` share. A page has them beside its own files."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
SCRIPTS = ("elements.js", "images.js", "camera.js")  # each imports only what comes before it
STYLE = "shared.css"  # a page's own style comes after it
