"""Opens an exported page of one file in Firefox and WebKitGTK and compares its answers with ONNX Runtime for Python.

    python scripts/make_image_corpus.py DIR && python scripts/compare_page.py PAGE.html DIR [--browsers firefox,webkit]

The images of DIR are dropped on the page, opened as a file and over http. What is expected comes from the network in
the page, on the pixels that jaxcat reads. Debian has the browsers: `apt-get install firefox-esr webkit2gtk-driver
xvfb`; WebKitGTK needs a screen: `xvfb-run -a python scripts/compare_page.py …`. Tests do the same with Chromium.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gzip
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from served import served

from jaxcat.data.images.decoding import decode
from jaxcat.data.images.resizing import resize
from jaxcat.errors import DataError
from jaxcat.system import cli

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
PATIENCE = 300  # seconds for a start and for all answers
MINI_BROWSER = "/usr/lib/{}-linux-gnu/webkit2gtk-4.1/MiniBrowser"
DROP = """const data = new DataTransfer();
for (const [name, text] of arguments[0]) {
    data.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name));
}
document.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));"""
SHOWN = """return [...document.querySelectorAll("#answers > .card")].map((card) => [
    card.querySelector("h3").textContent,
    Object.fromEntries([...card.querySelectorAll(".bars li")].map(
        (row) => [row.querySelector(".class").textContent, Number(row.querySelector("data").value)])),
    card.querySelector(".note")?.textContent ?? "", card.querySelector(".problem")?.textContent ?? ""]);"""
ANSWERED = "return document.querySelectorAll('#answers .bars, #answers .problem').length;"


class Firefox:
    """A headless Firefox, driven by its protocol Marionette: JSON with its length before it."""

    def __init__(self, profile: str):
        settings = {"permissions.default.camera": 2, "marionette.port": 2929}  # 2: the user said no
        text = "".join(f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in settings.items())
        Path(profile, "user.js").write_text(text)
        program = shutil.which("firefox-esr") or "firefox"
        command = [program, "--headless", "--marionette", "--remote-allow-system-access", "--profile", profile]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._socket = until(lambda: socket.create_connection(("127.0.0.1", 2929), PATIENCE).makefile("rwb"))
        self._receive()
        self.version = self.send("WebDriver:NewSession")["capabilities"]["browserVersion"]

    def _receive(self) -> Any:
        length = b""
        while (letter := self._socket.read(1)) != b":":
            length += letter
        return json.loads(self._socket.read(int(length)))

    def send(self, command: str, **parameters: Any) -> Any:
        content = json.dumps([0, 1, command, parameters]).encode()
        self._socket.write(b"%d:%b" % (len(content), content))
        self._socket.flush()
        _, _, error, found = self._receive()
        if error:
            raise DataError(f"{command}: {error['message']}")
        return found

    def open(self, address: str) -> None:
        self.send("WebDriver:Navigate", url=address)

    def script(self, text: str, *arguments: Any) -> Any:
        return self.send("WebDriver:ExecuteScript", script=text, args=list(arguments))["value"]

    def complaints(self) -> list[str]:
        """What the page wrote to the console."""
        self.send("Marionette:SetContext", value="chrome")
        found = self.script(
            """return Services.console.getMessageArray().filter((each) => each instanceof Ci.nsIScriptError)
                .map((each) => `${each.sourceName.slice(0, 60)} ${each.category}: ${each.errorMessage}`)"""
        )
        self.send("Marionette:SetContext", value="content")
        return [each for each in found if not each.startswith(("resource:", "chrome:", " "))]

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.send("Marionette:Quit", flags=["eForceQuit"])


class WebKit:
    """WebKitGTK's MiniBrowser, driven by WebKitWebDriver over HTTP."""

    def __init__(self, profile: str):
        self._output = Path(profile, "output")
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(["WebKitWebDriver", "--port=2930"], stdout=output, stderr=output)
        binary = MINI_BROWSER.format(os.uname().machine)
        arguments = ["--automation", "--enable-write-console-messages-to-stdout=true"]
        wanted = {"alwaysMatch": {"webkitgtk:browserOptions": {"binary": binary, "args": arguments}}}
        self._session = ""
        found = until(lambda: self.send("", capabilities=wanted))
        self._session, self.version = f"/{found['sessionId']}", found["capabilities"]["browserVersion"]
        self.send("/timeouts", script=1000 * PATIENCE, pageLoad=1000 * PATIENCE)

    def send(self, path: str, **parameters: Any) -> Any:
        address = f"http://127.0.0.1:2930/session{self._session}{path}"
        request = urllib.request.Request(address, json.dumps(parameters).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)["value"]

    def open(self, address: str) -> None:
        self.send("/url", url=address)

    def script(self, text: str, *arguments: Any) -> Any:
        return self.send("/execute/sync", script=text, args=list(arguments))

    def complaints(self) -> list[str]:
        lines = self._output.read_text(errors="replace").splitlines()
        return [line for line in lines if line.startswith("CONSOLE")]

    def close(self) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:2930/session{self._session}", method="DELETE")
        with contextlib.suppress(Exception):
            urllib.request.urlopen(request, timeout=30)
        self.process.terminate()


BROWSERS: dict[str, type[Firefox] | type[WebKit]] = {"firefox": Firefox, "webkit": WebKit}


def until(attempt: Callable[[], Any]) -> Any:
    """What an attempt gives as soon as it gives something."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if found := attempt():
                return found
        except OSError:
            if time.monotonic() > end:
                raise
        if time.monotonic() > end:
            raise DataError(f"not within {PATIENCE} s")
        time.sleep(0.2)


def expected_of(page: Path, files: Sequence[Path]) -> dict[str, dict[str, float]]:
    """File name → class → probability, by the network in the page; a file that jaxcat refuses is left out."""
    import onnxruntime

    text = page.read_text(encoding="utf-8")
    about = json.loads(re.search(r'id="description">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    kept = re.search(r'id="model\.onnx">(.*?)</script>', text)[1]  # type: ignore[index]
    session = onnxruntime.InferenceSession(gzip.decompress(base64.b64decode(kept)))
    found = {}
    for file in files:
        with contextlib.suppress(DataError):
            pixels = resize(decode(file.read_bytes(), file.name), about["image"]["size"], mode=about["image"]["resize"])
            (given,) = session.run(["probabilities"], {"image": pixels[None]})
            found[file.name] = dict(zip(about["classes"], given[0].tolist(), strict=True))
    return found


@contextlib.contextmanager
def addresses(page: Path) -> Iterator[list[str]]:
    """The page as a file and over http."""
    with served(page.parent) as folder:
        yield [page.resolve().as_uri(), folder + page.name]


def compare(browser: Firefox | WebKit, address: str, files: Sequence[Path], expected: dict) -> None:
    """Prints how the answers of a page differ."""
    begin = time.monotonic()
    browser.open(address)
    until(lambda: browser.script("return document.getElementById('status')?.textContent") == "Ready.")
    print(f"{browser.version} {address}: ready after {time.monotonic() - begin:.1f} s")
    browser.script(DROP, [[file.name, base64.b64encode(file.read_bytes()).decode()] for file in files])
    until(lambda: browser.script(ANSWERED) == len(files))
    exact: list[float] = []
    for name, classes, note, problem in browser.script(SHOWN):
        if not classes or name not in expected:
            print(f"    {name}: {problem or 'answered'}{'' if name in expected else ' (jaxcat refuses it)'}")
            continue
        apart = max(abs(share - expected[name][label]) for label, share in classes.items())
        if note or apart > 1e-5:
            print(f"    {name}: {apart:.1e} {note or 'WITHOUT A NOTE'}")
        if not note:
            exact.append(apart)
    print(f"  {len(exact)} images without a note: largest difference {np.max(exact, initial=0):.1e}")
    browser.script("document.getElementById('camera').click()")
    time.sleep(2)
    said = "return ['status', 'camera-problem', 'warning'].map((id) => document.getElementById(id).textContent)"
    print("  status, camera, warning:", browser.script(said))


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, metavar="PAGE.html", help="made with --format web --single-file")
    parser.add_argument("directory", type=Path, metavar="DIR", help="a folder of images")
    parser.add_argument("--browsers", default=",".join(BROWSERS), help=f"default: {','.join(BROWSERS)}")
    arguments = parser.parse_args(argv)
    files = sorted(path for path in arguments.directory.iterdir() if path.is_file())
    expected = expected_of(arguments.page, files)
    for name in arguments.browsers.split(","):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, addresses(arguments.page) as opened:
            browser = BROWSERS[name](profile)
            try:
                for address in opened:
                    compare(browser, address, files, expected)
                print("  console:", browser.complaints())
            finally:
                browser.close()
                browser.process.wait(30)
    return 0


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
