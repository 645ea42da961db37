"""Compares what jaxcat decodes with what a browser shows, level by level.

    python scripts/make_image_corpus.py DIR && python scripts/compare_browser.py DIR

Needs Chromium. Every file of DIR is drawn on a white canvas in a page of its own making, and the pixels are read back.
`--write FILE.npz` keeps the files and what the browser showed, for tests/test_browser.py.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxcat.data.images.decoding import decode
from jaxcat.errors import DataError
from jaxcat.system import cli

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
KINDS = {
    **{"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "gif": "gif", "webp": "webp", "avif": "avif", "bmp": "bmp"},
    **{"ico": "x-icon", "cur": "x-icon"},
}
PAGE = """<!doctype html><meta charset="utf-8"><body>%s<script>
onload = () => {
  const shown = {};
  for (const image of document.images) {
    if (!image.naturalWidth) { shown[image.alt] = null; continue; }
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const pen = canvas.getContext("2d", {colorSpace: "srgb", willReadFrequently: true});
    pen.fillStyle = "white";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(image, 0, 0);
    let text = "";
    for (const value of pen.getImageData(0, 0, canvas.width, canvas.height).data) text += String.fromCharCode(value);
    shown[image.alt] = [canvas.width, canvas.height, btoa(text)];
  }
  document.body.innerHTML = "<pre id=shown>" + JSON.stringify(shown) + "</pre>";
};
</script>"""


def shown_by_browser(paths: Sequence[Path], browser: str) -> dict[str, np.ndarray | None]:
    """File name → uint8 (H, W, 3) as the browser shows it on a white page, None if it does not."""
    images = ""
    for path in paths:
        kind = KINDS.get(path.suffix[1:].lower(), "png")
        content = base64.b64encode(path.read_bytes()).decode()
        images += f'<img alt="{html.escape(path.name)}" src="data:image/{kind};base64,{content}">\n'
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(PAGE % images, encoding="utf-8")
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--force-color-profile=srgb", "--dump-dom")
        command = [browser, *flags, f"--user-data-dir={folder}/profile", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    found = re.search(r'<pre id="?shown"?>(.*?)</pre>', done.stdout, re.DOTALL)
    if not found:
        raise DataError(f"{browser} printed no pixels: {done.stderr[-500:]}")
    shown: dict[str, np.ndarray | None] = {}
    for name, answer in json.loads(found[1]).items():
        shown[name] = None
        if answer:
            width, height, text = answer
            shown[name] = np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)[..., :3]
    return shown


def difference(path: Path, shown: np.ndarray | None) -> str:
    """How our pixels differ from the browser's, in a few words."""
    try:
        ours = decode(path, path.name)
    except DataError as error:
        return f"refused: {error}" if shown is None else f"the browser shows it, we refuse: {error}"
    if shown is None:
        return "read, but the browser does not show it"
    if ours.shape != shown.shape:
        return f"ours is {ours.shape[1]}×{ours.shape[0]}, the browser's {shown.shape[1]}×{shown.shape[0]}"
    apart = np.abs(ours.astype(int) - shown)
    return f"at most {apart.max():3}, mean {apart.mean():.3f}"


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIR", help="a folder of images")
    parser.add_argument("--browser", default=next(filter(shutil.which, BROWSERS), ""), help="the browser's command")
    parser.add_argument("--write", type=Path, metavar="FILE.npz", help="keep the files and what was shown")
    arguments = parser.parse_args(argv)
    paths = sorted(path for path in arguments.directory.iterdir() if path.is_file())
    if not arguments.browser or not paths:
        parser.error("needs --browser, a Chromium" if paths else f"{arguments.directory}: no files")
    shown = shown_by_browser(paths, arguments.browser)
    for path in paths:
        print(f"{path.name:34} {difference(path, shown[path.name])}")
    if arguments.write:
        kept = {f"file: {path.name}": np.frombuffer(path.read_bytes(), np.uint8) for path in paths}
        kept |= {f"shown: {name}": np.zeros((0, 0, 3), np.uint8) if p is None else p for name, p in shown.items()}
        np.savez_compressed(arguments.write, **kept)
    return 0


if __name__ == "__main__":
    cli.run(main)
