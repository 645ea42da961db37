"""A headless Chromium, driven by the DevTools protocol over two pipes, which needs no further package.

The protocol: https://chromedevtools.github.io/devtools-protocol/. Messages are JSON, each ended by a byte 0.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from served import served as served

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FOUND = next(filter(None, map(shutil.which, NAMES)), "")
LACKING = "no Chromium: apt-get install chromium (Debian), or put one of " + ", ".join(NAMES) + " on PATH"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions"),
    *("--disable-background-networking", "--disable-component-update", "--mute-audio", "--disable-dev-shm-usage"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--remote-debugging-pipe"),
)
# The browser reads from the file descriptor 3 and writes to 4.
AS_3_AND_4 = """import fcntl, os, sys
read, write = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])"""
PATIENCE = 60.0  # seconds
# What Chromium answers if the page was left while it worked on an expression, by the moment of it.
LEFT = ("navigated or closed", "context was destroyed", "Cannot find", "Promise was collected")


class PageLeftError(AssertionError):
    """The page was left for another one before an expression had its value."""


class Browser:
    """One process. Use `started()`."""

    def __init__(self, profile: str):
        their_read, ours_write = os.pipe()
        ours_read, their_write = os.pipe()
        command = [FOUND, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        starter = [sys.executable, "-c", AS_3_AND_4, str(their_read), str(their_write), *command]
        self.process = subprocess.Popen(
            starter, pass_fds=(their_read, their_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(their_read)
        os.close(their_write)
        self._to, self._from = os.fdopen(ours_write, "wb", buffering=0), os.fdopen(ours_read, "rb")
        self._answers: dict[int, queue.Queue] = {}
        self._sessions: dict[str, Page] = {}
        self._number = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        rest = b""
        while part := self._from.read1(1 << 20):
            *messages, rest = (rest + part).split(b"\0")
            for text in messages:
                message = json.loads(text)
                if "id" in message:
                    self._answers[message["id"]].put(message)
                elif page := self._sessions.get(message.get("sessionId")):
                    page.events.append(message)

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict:
        """The result of a command."""
        self._number += 1
        number, self._answers[self._number] = self._number, queue.Queue()
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        self._to.write(json.dumps(message).encode() + b"\0")
        answer = self._answers[number].get(timeout=PATIENCE)
        if any(text in answer.get("error", {}).get("message", "") for text in LEFT):
            raise PageLeftError(method, answer)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    @contextlib.contextmanager
    def tab(self) -> Iterator[Tab]:
        """A tab with its own storage and permissions."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        try:
            yield Tab(self, self.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"])
        finally:
            self.send("Target.disposeBrowserContext", browserContextId=context)


class Tab:
    """One tab. Its pages follow one another in the same processes, and what these have compiled need not be again."""

    def __init__(self, browser: Browser, target: str):
        self.browser, self.target = browser, target

    @contextlib.contextmanager
    def page(self, address: str = "about:blank", **screen: Any) -> Iterator[Page]:
        """A page without cookies or kept files, and without anything that was set for the page before it."""
        session = self.browser.send("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        page = self.browser._sessions[session] = Page(self.browser, session)
        try:
            for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
                page.send(f"{domain}.enable")
            for kept in ("Cookies", "Cache"):
                page.send(f"Network.clearBrowser{kept}")
            page.screen(**screen)
            if address != "about:blank":
                page.open(address)
            yield page
        finally:
            page.send(
                "Page.navigate", url="about:blank"
            )  # ends its scripts, so that they do not speak in the next page
            self.browser.send("Target.detachFromTarget", sessionId=session)  # which ends what was set for it
            del self.browser._sessions[session]


class Page:
    """One page; `events` are the messages that the browser sent about it."""

    def __init__(self, browser: Browser, session: str):
        self.browser, self.session, self.events = browser, session, []

    def send(self, method: str, **parameters: Any) -> dict:
        return self.browser.send(method, self.session, **parameters)

    def open(self, address: str) -> None:
        self.events.clear()
        self.send("Page.navigate", url=address)

    def run(self, expression: str) -> Any:
        """The value of an expression, awaited; an exception in the page is raised here."""
        found = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, (expression, found["exceptionDetails"])
        return found["result"].get("value")

    def wait_for(self, expression: str, patience: float = PATIENCE) -> Any:
        """The value of an expression as soon as it is true, in this page or in one that it leads to."""

        def value() -> Any:
            with contextlib.suppress(PageLeftError):
                return self.run(expression)

        return self.until(value, expression, patience)

    def until(self, condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
        end = time.monotonic() + patience
        while not (found := condition()):
            assert time.monotonic() < end, f"not within {patience} s: {what}\n{self.run('document.body?.innerText')}"
            time.sleep(0.02)
        return found

    def screen(self, width: int = 1000, height: int = 800, *, dark: bool = False, phone: bool = False) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def give(self, selector: str, *files: Path) -> None:
        """Puts files into an <input type=file>."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def press(self, key: str, text: str = "") -> None:
        code = {"Tab": 9, "Enter": 13, " ": 32}[key]
        named = {"key": key, "code": {" ": "Space"}.get(key, key), "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **named)
        self.send("Input.dispatchKeyEvent", type="keyUp", **named)

    def picture(self) -> bytes:
        """A PNG of the whole page."""
        return base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def complaints(self) -> list[str]:
        """What stands in the console, exceptions included."""
        found = []
        for event in self.events:
            if event["method"] == "Log.entryAdded":
                found.append(event["params"]["entry"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled":
                found.append(str([each.get("value") for each in event["params"]["args"]]))
            elif event["method"] == "Runtime.exceptionThrown":
                found.append(str(event["params"]["exceptionDetails"]))
        return found

    def requests(self) -> list[str]:
        """Addresses that were asked for."""
        sent = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]


@contextlib.contextmanager
def started() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        try:
            yield browser
        finally:
            with contextlib.suppress(Exception):
                browser.send("Browser.close")
            try:
                browser.process.wait(10)
            except subprocess.TimeoutExpired:
                browser.process.kill()
                browser.process.wait()
