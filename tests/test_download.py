"""Downloads against a server on 127.0.0.1 that behaves well, badly, or not at all."""

from __future__ import annotations

import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from jaxcat.errors import WeightsError
from jaxcat.models.preprocessing import Conventions
from jaxcat.system.files import cache_dir
from jaxcat.weights.download import Patience, fetch, remember
from jaxcat.weights.registry import CANONICAL, KERAS_3, KERAS_LEGACY_H5, TORCH, WeightsSpec

CONTENT = np.random.default_rng(0).bytes(300_000)
HASTY = Patience(connect=2.0, read=0.3, attempts=3, pause=0.01)


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; the attributes say how badly. `requests` lists the Range header (or None) of each request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str | None] = []
        self.content = CONTENT
        self.status: list[int] = []  # answer the first requests with these
        self.ranges = True
        self.cut: list[int] = []  # close the first connections after that many bytes
        self.stall: list[int] = []  # as `cut`, but hold the connection open and silent
        self.delay = 0.0
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights.h5"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append(wanted)
        time.sleep(server.delay)
        if server.status:
            return self.send_error(server.status.pop(0))
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if wanted and start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if wanted and server.ranges else 200)
        if wanted and server.ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        body = server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.stall:
            self.wfile.write(body[: server.stall.pop(0)])
            self.wfile.flush()
            server.released.wait(10)
        elif server.cut:
            self.wfile.write(body[: server.cut.pop(0)])
        else:
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def spec_for(url: str, **changes) -> WeightsSpec:
    fields = {
        "name": "test-weights",
        "backbone": "inception_v3",
        "url": url,
        "file": "weights.h5",
        "size": len(CONTENT),
        "md5": hashlib.md5(CONTENT).hexdigest(),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "with_top": False,
        "layout": KERAS_LEGACY_H5,
        "conventions": Conventions(),
        "licence": "none",
        "notice": "made by a test",
        "top1": 0.0,
        "top5": 0.0,
        "accuracy_source": "none",
    }
    return WeightsSpec(**(fields | changes))


def get(url: str, *, limit: int = 10**6, **changes) -> Path:
    return fetch(spec_for(url, **changes), limit=limit, progress=False, patience=HASTY)


def leave_part(cache: Path, content: bytes) -> Path:
    cache.mkdir(exist_ok=True)
    part = cache / "weights.h5.part"
    part.write_bytes(content)
    return part


def test_downloads_once_and_reads_the_cache_afterwards(server, cache):
    path = get(server.url)
    assert path == cache / "weights.h5"
    assert path.read_bytes() == CONTENT
    assert not (cache / "weights.h5.part").exists()
    assert get(server.url) == path
    assert server.requests == [None]


@pytest.mark.parametrize("size", [len(CONTENT), None], ids=["size known", "size unknown"])
def test_resumes_where_a_broken_connection_left_off(server, cache, size):
    server.cut = [200_000, 65_536]
    assert get(server.url, size=size).read_bytes() == CONTENT
    first, *later = server.requests
    assert first is None
    assert len(later) == 2
    assert all(wanted.startswith("bytes=") and wanted != "bytes=0-" for wanted in later)


def test_starts_anew_where_the_server_cannot_resume(server, cache):
    server.ranges, server.cut = False, [200_000]
    assert get(server.url).read_bytes() == CONTENT


def test_gives_up_on_a_server_that_always_truncates_and_keeps_what_arrived(server, cache):
    server.ranges, server.cut = False, [200_000] * 10
    with pytest.raises(WeightsError, match=r"3 attempts.*What has arrived is kept"):
        get(server.url)
    assert len(server.requests) == 3
    assert not (cache / "weights.h5").exists()
    server.cut, server.ranges = [], True
    assert get(server.url).read_bytes() == CONTENT
    assert server.requests[-1].startswith("bytes=")


def test_a_stalled_server_is_left_and_asked_again(server, cache):
    server.stall = [150_000]
    assert get(server.url).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_server_that_only_stalls_ends_in_an_error(server, cache):
    server.stall = [0] * 10
    began = time.monotonic()
    with pytest.raises(WeightsError, match="timed out"):
        get(server.url)
    assert time.monotonic() - began < 5


def test_corrupt_content_is_deleted_and_named(server, cache):
    server.content = CONTENT[:1000] + b"\0" + CONTENT[1001:]
    with pytest.raises(WeightsError, match="md5 is .*the published one") as caught:
        get(server.url)
    assert server.url in str(caught.value)
    assert not (cache / "weights.h5").exists()
    assert not (cache / "weights.h5.part").exists()


def test_sha256_alone_is_enough_to_notice(server, cache):
    server.content = CONTENT[::-1]
    with pytest.raises(WeightsError, match="sha256"):
        get(server.url, md5=None)


def test_the_beginning_of_a_sha256_is_compared_where_no_more_is_published(server, cache):
    beginning = hashlib.sha256(CONTENT).hexdigest()[:8]
    assert get(server.url, md5=None, sha256=beginning, size=None).read_bytes() == CONTENT
    with pytest.raises(WeightsError, match="its sha256 is .*, the published one 00000000"):
        get(server.url, md5=None, sha256="00000000", size=None)


def test_a_file_of_unknown_size_has_a_limit(server, cache):
    with pytest.raises(WeightsError, match="offers 300,000 bytes, more than the 299,999 allowed"):
        get(server.url, size=None, limit=len(CONTENT) - 1)
    assert not (cache / "weights.h5").exists()


def test_the_notice_of_the_weights_is_printed_with_the_download(server, cache, capsys):
    fetch(spec_for(server.url, licence="CC BY 4.0"), limit=10**6, patience=HASTY)
    assert "licence CC BY 4.0: made by a test" in capsys.readouterr().err
    fetch(spec_for(server.url), limit=10**6, patience=HASTY)
    assert capsys.readouterr().err == ""  # nothing is downloaded the second time


def test_another_size_is_refused_before_the_download(server, cache):
    server.content = b"<html>please log in</html>"
    with pytest.raises(WeightsError, match="26 bytes.*login page"):
        get(server.url)
    assert not (cache / "weights.h5").exists()


UNKNOWN = {"size": None, "md5": None, "sha256": None}
HDF5_CONTENT, SAFETENSORS_CONTENT = b"\x89HDF\r\n\x1a\n" + CONTENT, (2).to_bytes(8, "little") + b"{}"


@pytest.mark.parametrize(
    ("content", "layout", "message"),
    [
        (b"<!DOCTYPE html><title>Please log in</title>", TORCH, "it is a web page, .* PyTorch or safetensors"),
        (HDF5_CONTENT, TORCH, "it is HDF5, .* PyTorch or safetensors"),
        (SAFETENSORS_CONTENT, KERAS_LEGACY_H5, "it is safetensors, .* HDF5"),
        (b"", CANONICAL, "it is an empty file"),
    ],
    ids=["login page", "HDF5", "safetensors", "nothing"],
)
def test_without_size_and_hash_at_least_the_format_must_be_right(server, cache, content, layout, message):
    server.content = content
    with pytest.raises(WeightsError, match=f"damaged or different file: {message}.*run again") as caught:
        get(server.url, layout=layout, **UNKNOWN)
    assert str(cache / "weights.h5") in str(caught.value)
    assert not (cache / "weights.h5").exists()
    assert not (cache / "weights.h5.part").exists()


@pytest.mark.parametrize(
    ("content", "layout"), [(HDF5_CONTENT, KERAS_LEGACY_H5), (HDF5_CONTENT, KERAS_3), (SAFETENSORS_CONTENT, TORCH)]
)
def test_without_size_and_hash_the_right_format_is_kept(server, cache, content, layout):
    server.content = content
    assert get(server.url, layout=layout, **UNKNOWN).read_bytes() == content


def test_the_hash_that_is_trusted_is_printed_even_where_it_cannot_be_noted(tmp_path, capsys):
    """The folder does not exist, which stands for one that is read-only: root may write to those."""
    remember(spec_for("http://x", **UNKNOWN), tmp_path / "missing" / "weights.h5", "abc123")
    assert "sha256 abc123 cannot be noted" in capsys.readouterr().err


def test_a_hash_that_was_noted_holds_for_the_next_download_too(server, cache):
    server.content = HDF5_CONTENT
    path = get(server.url, layout=KERAS_3, **UNKNOWN)
    remember(spec_for(server.url, layout=KERAS_3, **UNKNOWN), path, "0" * 64)
    path.unlink()
    with pytest.raises(WeightsError, match="the first one 000"):
        get(server.url, layout=KERAS_3, **UNKNOWN)
    assert not path.exists()


def test_not_found_says_how_to_go_on_by_hand(server, cache):
    server.status = [404] * 10
    with pytest.raises(WeightsError, match="HTTP 404") as caught:
        get(server.url)
    message = str(caught.value)
    assert server.url in message
    assert str(cache / "weights.h5") in message
    assert "--config.model.weights=PATH" in message
    assert len(server.requests) == 1  # asking again would not help


def test_a_busy_server_is_asked_again(server, cache):
    server.status = [503, 429]
    assert get(server.url).read_bytes() == CONTENT


def test_offline_says_how_to_go_on_by_hand(server, cache):
    with Server() as closed:
        url = closed.url  # nobody listens there once it is closed
    with pytest.raises(WeightsError, match="refused") as caught:
        get(url)
    message = str(caught.value)
    assert url in message
    assert str(cache / "weights.h5") in message
    assert "--config.model.weights=PATH" in message
    assert "has arrived" not in message


def test_a_complete_part_needs_no_request(server, cache):
    leave_part(cache, CONTENT)
    assert get(server.url).read_bytes() == CONTENT
    assert server.requests == []


def test_a_complete_part_of_unknown_size_is_recognised_by_the_server(server, cache):
    leave_part(cache, CONTENT)
    assert get(server.url, size=None).read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("size", [len(CONTENT), None], ids=["size known", "size unknown"])
def test_a_part_that_is_too_long_is_thrown_away(server, cache, size):
    leave_part(cache, CONTENT + b"too much")
    assert get(server.url, size=size).read_bytes() == CONTENT
    assert server.requests[-1] is None


def test_a_part_of_another_file_ends_in_an_error_and_the_next_run_succeeds(server, cache):
    part = leave_part(cache, b"x" * 1000)
    with pytest.raises(WeightsError, match="run again"):
        get(server.url)
    assert not part.exists()
    assert get(server.url).read_bytes() == CONTENT


def test_a_wrong_file_in_the_cache_is_never_used_nor_deleted(server, cache):
    cache.mkdir()
    (cache / "weights.h5").write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match="Delete it and run again"):
        get(server.url)
    assert (cache / "weights.h5").read_bytes() == CONTENT[:-1]
    assert server.requests == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device that is always full")
def test_full_disk(server, cache):
    cache.mkdir()
    (cache / "weights.h5.part").symlink_to("/dev/full")
    with pytest.raises(WeightsError, match="No space left on device.*JAXCAT_CACHE"):
        get(server.url)
    assert not (cache / "weights.h5").exists()


def test_a_cache_that_is_not_a_directory(server, cache):
    cache.write_text("in the way")
    with pytest.raises(WeightsError, match="JAXCAT_CACHE"):
        get(server.url)


def test_cache_dir_follows_the_environment(monkeypatch):
    monkeypatch.setenv("JAXCAT_CACHE", "/some/where")
    assert cache_dir() == Path("/some/where")
    monkeypatch.delenv("JAXCAT_CACHE")
    assert "jaxcat" in str(cache_dir())


def test_two_processes_at_once_download_once(server, cache, tmp_path):
    server.delay = 1.0
    fields = {name: value for name, value in vars(spec_for(server.url)).items() if name != "conventions"}
    program = (
        "from jaxcat.models.preprocessing import Conventions\n"
        "from jaxcat.weights.download import fetch\n"
        "from jaxcat.weights.registry import WeightsSpec\n"
        "print('ready', flush=True)\n"
        "input()\n"
        f"print(fetch(WeightsSpec(conventions=Conventions(), **{fields!r}), limit=10**6))\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    root = Path(__file__).resolve().parent.parent
    processes = [subprocess.Popen([sys.executable, "-c", program], cwd=root, **pipes) for _ in range(2)]
    outputs = []
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for output, errors in outputs:
        assert output.strip() == str(cache / "weights.h5"), errors
    assert sum("waiting for another process" in errors for _, errors in outputs) == 1
    assert server.requests == [None]
    assert (cache / "weights.h5").read_bytes() == CONTENT
