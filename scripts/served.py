"""A folder over http on 127.0.0.1, for tests and scripts."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class _Noting(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, asked: list[str], **options: Any):
        self.asked = asked
        super().__init__(*arguments, **options)

    def log_message(self, format: str, *values: object) -> None:
        self.asked.append(format % values)


@contextlib.contextmanager
def served(folder: Path, asked: list[str] | None = None) -> Iterator[str]:
    """The address of a folder on 127.0.0.1; what is asked for goes into `asked`."""
    handler = functools.partial(_Noting, directory=str(folder), asked=[] if asked is None else asked)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
