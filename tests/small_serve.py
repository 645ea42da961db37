"""A server in this process, on a port of its own, and requests to it."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import requests
import uvicorn
from PIL import Image

from jaxcat.serve import server
from jaxcat.serve.app import Served, application


class Client:
    """Requests to one server, with its token unless they say otherwise."""

    def __init__(self, served: Served):
        self.served, self.token = served, served.policy.token
        self.address = f"http://127.0.0.1:{served.policy.port}"
        self.entrance = f"{self.address}/?token={self.token}"

    def ask(self, method: str, path: str, *, token: str | None = None, **options: Any) -> requests.Response:
        headers = options.pop("headers", {})
        if token != "":
            headers = {"Authorization": f"Bearer {token or self.token}"} | headers
        return requests.request(method, self.address + path, headers=headers, timeout=60, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.ask("GET", path, **options)

    def post(self, path: str, body: bytes = b"", **options: Any) -> requests.Response:
        return self.ask("POST", path, data=body, **options)


@contextlib.contextmanager
def serving(workdir: Path, **options: Any) -> Iterator[Client]:
    """Serves a run while the block runs; `options` are those of `server.served_of`."""
    with server.listening("127.0.0.1", 0) as listener:
        policy = server.policy_of("127.0.0.1", listener.getsockname()[1])
        served = server.served_of(workdir, policy, **options)
        running = uvicorn.Server(server.settings(application(served)))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not running.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield Client(served)
        finally:
            served.learning.join()
            running.should_exit = True
            thread.join(30)


def encoded(form: str = "PNG", *, size: tuple[int, int] = (60, 40), seed: int = 0, **options: Any) -> bytes:
    """An image file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()
