"""The local page's server over HTTP: answers, limits, hostile bodies, many clients, corrections, learning."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import small
from hostile_names import HOSTILE_NAMES
from ml_collections import ConfigDict
from PIL import Image
from small_serve import Client, encoded, serving
from test_exact_run import TINY, fit

import jaxcat
from jaxcat.bottlenecks import source as sources
from jaxcat.config import default
from jaxcat.data.sources import open_data
from jaxcat.inference.explanation import colours, normalized, placed
from jaxcat.runs.records import read_list
from jaxcat.serve import answers, corrections
from jaxcat.serve import learning as lessons
from jaxcat.serve.answers import Limits
from jaxcat.serve.corrections import Bounds, Corrections
from jaxcat.serve.refused import Refused

REPOSITORY = Path(__file__).resolve().parent.parent


def error_of(answer, status: int) -> str:
    """The text of an error, which is JSON with the headers of every answer."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert set(answer.json()) == {"error"}
    return answer.json()["error"]


# answers --------------------------------------------------------------------------------------------------------------


def test_the_answer_that_predict_prints(client, solved, tmp_path, capsys):
    from jaxcat.predict import main as predict

    options = {"JPEG": {"quality": 90, "exif": Image.Exif()}, "TIFF": {}, "GIF": {}, "WEBP": {}, "PNG": {}}
    options["JPEG"]["exif"][0x0112] = 6
    for form, extra in options.items():
        (tmp_path / form).write_bytes(body := encoded(form, **extra))
        assert predict(["--workdir", str(solved), str(tmp_path / form)]) == 0
        expected = json.loads(capsys.readouterr().out)
        found = client.post("/predict", body).json()
        assert found["label"] == expected["label"]
        assert found["probability"] == pytest.approx(expected["probability"], abs=1e-5)
        assert [name for name, _ in found["top"]] == [name for name, _ in expected["top"]]
        assert found["size"] == ([40, 60] if form == "JPEG" else [60, 40])
    assert len(client.post("/predict?top=1", body).json()["top"]) == 1
    for top in ("0", "-1", "x", "9" * 5000):
        assert "whole number" in error_of(client.post(f"/predict?top={top}", body), 422)


def opened(address: str, form: str) -> Image.Image:
    kind, _, content = address.partition(",")
    assert kind == f"data:image/{form};base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_the_image_in_small_and_the_heat_map_on_it(client, solved):
    found = client.post("/predict?view=1&heat=1", body := encoded(size=(900, 300))).json()
    assert opened(found["view"], "jpeg").size == (answers.VIEW, round(answers.VIEW / 3))
    heat = np.asarray(opened(found["heat"], "png"))
    classifier = jaxcat.load(solved)
    prepared = classifier.prepare(body)
    (raw,) = classifier.xla.raw_maps([prepared], [classifier.classes.index(found["label"])])
    shape = (round(answers.HEAT / 3), answers.HEAT)
    expected = placed(normalized(raw), shape=(300, 900), size=32, mode="squash", output=shape)
    np.testing.assert_allclose(heat.astype(int), colours(expected).astype(int), atol=1)
    assert {"view", "heat"}.isdisjoint(client.post("/predict", body).json())


def test_everything_but_healthz_needs_the_token(client):
    assert client.get("/healthz", token="").json() == {"status": "ok"}
    for method, path in (("GET", "/"), ("GET", "/state"), ("GET", "/page/main.js"), ("POST", "/predict")):
        assert "Authorization: Bearer" in error_of(client.ask(method, path, token=""), 403)
        assert "Authorization: Bearer" in error_of(client.ask(method, path, token="wrong"), 403)
    for path in ("/corrections?agreed=1&label=disc", "/corrections/forget", "/learn", "/use?run=run"):
        error_of(client.post(path, encoded(), token=""), 403)
    assert client.get("/state").json()["classes"] == ["disc", "square"]


def test_pages_of_other_sites_and_other_names_of_this_machine(client):
    for headers in ({"Origin": "null"}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        for path in ("/healthz", "/", "/state"):
            error_of(client.get(path, headers=headers), 403)
        error_of(client.post("/predict", encoded(), headers=headers), 403)
    assert "Host" in error_of(client.get("/healthz", headers={"Host": "evil.example"}), 403)
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    preflight = client.ask("OPTIONS", "/predict", headers=asked)
    error_of(preflight, 403)
    own = {"Origin": client.address, "Sec-Fetch-Site": "same-origin"}
    for answer in (preflight, client.get("/state", headers=own), client.post("/predict", encoded(), headers=own)):
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert answer.json()["label"]


def test_the_printed_address_gives_a_cookie_and_then_a_page_without_the_token_in_its_address(client):
    first = client.ask("GET", f"/?token={client.token}", token="", allow_redirects=False)
    assert (first.status_code, first.headers["location"]) == (303, "/")
    assert first.headers["set-cookie"].endswith("; Path=/; HttpOnly; SameSite=Strict")
    cookie = {"Cookie": first.headers["set-cookie"].partition(";")[0]}
    page = client.get("/", token="", headers=cookie)
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=|javascript:", page.text)
    for name in re.findall(r'(?:src|href)="(/page/[^"]+)"', page.text):
        assert client.get(name, token="", headers=cookie).status_code == 200
    error_of(client.post("/predict", encoded(), token="", headers=cookie), 403)
    error_of(client.ask("GET", "/?token=wrong", token="", allow_redirects=False), 403)


def test_addresses_that_are_not_there(client):
    for path in ("/nothing", "/page/../app.py", "/page/index.html", "/page/%2e%2e/app.py", "/docs", "/openapi.json"):
        error_of(client.get(path), 404)
    assert "another method" in error_of(client.get("/predict"), 405)
    error_of(client.ask("DELETE", "/state"), 405)


# hostile bodies -------------------------------------------------------------------------------------------------------


def bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that says it has side × side pixels, all black."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(1 + (side + 7) // 8)) for _ in range(side)) + rows.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_too_many_pixels_are_refused_before_they_are_decoded(client):
    for side, count in ((10_000, "100,000,000"), (20_000, "")):  # the second is above Pillow's own limit too
        body, began = bomb(side), time.process_time()  # of the server too; other programs do not count
        said = error_of(client.post("/predict", body), 413)
        assert time.process_time() - began < 1
        assert f"{count} pixels are more than" in said.replace("20000×20000", "") or not count
        assert "config" not in said


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "there is no image: send its bytes as the body"),
        (b"<script>alert(1)</script>", ""),
        (b"GIF89a", ""),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), ""),
        (encoded("JPEG")[:300], "no answer: "),
        (b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--", "no answer: "),
        (bytes(10_000), "no answer: "),
        (b"%PDF-1.7 " + bytes(100), "PDF"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', ""),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", ""),
    ],
)
def test_what_is_no_image(client, body, says, solved):
    said = error_of(client.post("/predict", body), 422)
    assert says in said
    assert str(solved) not in said
    assert client.get("/healthz").ok


def test_bodies_that_are_too_large(solved):
    with serving(solved, limits=Limits(most_bytes=10_000)) as client:
        assert "10,000 bytes" in error_of(client.post("/predict", bytes(10_001)), 413)

        def parts():
            for _ in range(30):
                yield bytes(1000)

        error_of(client.post("/predict", parts()), 413)  # its length is not said before
        assert client.post("/predict", encoded(size=(20, 20))).ok


def test_a_body_that_does_not_come(solved):
    with serving(solved, limits=Limits(seconds=0.5), most_waiting=2) as client:
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{client.served.policy.port}\r\nContent-Length: 500\r\n"
        head += f"Authorization: Bearer {client.token}\r\n\r\n"
        connections = [socket.create_connection(("127.0.0.1", client.served.policy.port)) for _ in range(2)]
        for connection in connections:
            connection.sendall(head.encode() + bytes(10))
        time.sleep(0.1)
        error_of(client.post("/predict", encoded()), 503)
        for connection in connections:
            assert b" 408 " in connection.recv(1000).partition(b"\r\n")[0]
            connection.close()
        assert client.post("/predict", encoded()).ok


def test_clients_that_leave_early_or_speak_no_http(client):
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{client.served.policy.port}\r\nContent-Length: 500\r\n"
    head += f"Authorization: Bearer {client.token}\r\n\r\nabc"
    for sent in (head.encode(), b"\x16\x03\x01\x00\x01", b"GET / HTTP/1.1\r\n" + b"x" * 200_000):
        with (
            socket.create_connection(("127.0.0.1", client.served.policy.port)) as connection,
            contextlib.suppress(OSError),  # refused before it was read
        ):
            connection.sendall(sent)
    assert client.post("/predict", encoded()).ok


def test_a_fault_of_the_server_is_said_without_details(client, monkeypatch, capsys):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("/home/somebody/secret")

    from jaxcat.serve import app

    monkeypatch.setattr(app, "answer", broken)
    assert "secret" not in error_of(client.post("/predict", encoded()), 500)
    said, end = "", time.monotonic() + 10
    while "secret" not in said and time.monotonic() < end:  # it is printed after the answer has been sent
        said += capsys.readouterr().err
        time.sleep(0.01)
    assert "/home/somebody/secret" in said


# many clients ---------------------------------------------------------------------------------------------------------


def test_eight_clients_at_once(client):
    bodies = [encoded(seed=seed) for seed in range(8)]
    expected = [client.post("/predict", body).json() for body in bodies]
    assert len({json.dumps(each) for each in expected}) == 8

    def ask(place: int) -> bool:
        return all(client.post("/predict", bodies[place]).json() == expected[place] for _ in range(5))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(8)))


def test_a_full_queue_answers_at_once(solved, monkeypatch):
    from jaxcat.serve import app

    go, real = threading.Event(), app.answer

    def slow(*arguments: object, **options: object) -> object:
        assert go.wait(30)
        return real(*arguments, **options)

    monkeypatch.setattr(app, "answer", slow)
    with serving(solved, most_waiting=3) as client, ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(client.post, "/predict", encoded()) for _ in range(3)]
        while client.served.worker._taken < 3:
            time.sleep(0.01)
        began = time.monotonic()
        full = client.post("/predict", encoded(size=(500, 500)))
        assert time.monotonic() - began < 1
        assert "3 images are waiting" in error_of(full, 503)
        assert full.headers["retry-after"] == "1"
        assert client.get("/healthz").ok
        assert client.get("/state").ok
        go.set()
        assert all(each.result().ok for each in waiting)
        assert client.post("/predict", encoded()).ok


# corrections ----------------------------------------------------------------------------------------------------------


def rows_of(workdir: Path) -> list[str]:
    return (workdir / "corrections" / "corrections.csv").read_text().splitlines()


def test_nothing_is_kept_before_the_person_has_agreed(own, tmp_path):
    own.post("/predict?view=1&heat=1", encoded())
    for path in ("/corrections?label=disc", "/corrections?label=disc&agreed=0", "/corrections?label=disc&agreed="):
        assert "only after the person has agreed" in error_of(own.post(path, encoded()), 403)
    assert not (tmp_path / "own" / "corrections").exists()


def test_an_image_is_kept_under_its_digest_with_the_suffix_of_its_format(own, tmp_path):
    kept = {}
    for form, suffix in (("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp"), ("GIF", ".gif"), ("TIFF", ".tif")):
        body = encoded(form, seed=len(kept))
        found = own.post("/corrections", body, params={"label": "square", "agreed": "1"}).json()
        kept[found["digest"] + suffix] = body
    found = (tmp_path / "own" / "corrections").glob("[0-9a-f]*")
    assert {path.name: path.read_bytes() for path in found if path.name != "corrections.csv"} == kept
    assert rows_of(tmp_path / "own") == ["path,label", *(f"{name},square" for name in sorted(kept))]
    assert own.get("/state").json()["corrections"] == 5
    error_of(own.get(f"/corrections/{next(iter(kept))}"), 404)


def test_the_same_image_again_replaces_its_row_and_can_be_removed(own, tmp_path):
    first = own.post("/corrections?label=disc&agreed=1", encoded()).json()
    second = own.post("/corrections?label=square&agreed=1", encoded()).json()
    assert first["digest"] == second["digest"]
    name = f"{first['digest']}.png"
    assert rows_of(tmp_path / "own") == ["path,label", f"{name},square"]
    assert own.post("/corrections/forget", params={"digest": "../../config"}).json() == {"forgotten": False}
    assert own.post("/corrections/forget", params={"digest": first["digest"]}).json() == {"forgotten": True}
    assert rows_of(tmp_path / "own") == ["path,label"]
    assert not (tmp_path / "own" / "corrections" / name).exists()


def test_the_same_pixels_in_another_file_replace_the_row(own, tmp_path):
    assert own.post("/corrections?label=disc&agreed=1", encoded(seed=1)).ok
    for form, label in (("PNG", "disc"), ("BMP", "square")):  # as it is dropped, and then pasted
        assert own.post(f"/corrections?label={label}&agreed=1", encoded(form)).ok
    kept = Corrections(tmp_path / "own").labels()
    assert sorted(Path(name).suffix for name in kept) == [".bmp", ".png"]
    assert sorted(path.name for path in (tmp_path / "own" / "corrections").glob("*.[bp]*")) == sorted(kept)
    assert sorted(kept.values()) == ["disc", "square"]


def test_what_cannot_be_a_correction(own, tmp_path):
    assert "one of the classes" in error_of(own.post("/corrections?label=cat&agreed=1", encoded()), 422)
    error_of(own.post("/corrections?agreed=1", encoded()), 422)
    own.served.learning.used.classifier.classes = ("disc", "two\nlines")
    lines = own.post("/corrections", encoded(), params={"label": "two\nlines", "agreed": "1"})
    assert "characters that a table of labels cannot have" in error_of(lines, 422)
    error_of(own.post("/corrections?label=disc&agreed=1", b"no image"), 422)
    error_of(own.post("/corrections?label=disc&agreed=1", bomb(10_000)), 413)
    assert not (tmp_path / "own" / "corrections").exists()


def test_the_table_is_one_that_train_takes(own, tmp_path):
    for seed, label in enumerate(("disc", "square") * 3):
        own.post("/corrections", encoded(seed=seed), params={"label": label, "agreed": "1"})
    config = default()
    config.data.source, config.data.table = "table", str(tmp_path / "own" / "corrections" / "corrections.csv")
    data = open_data(config)
    assert data.classes == ("disc", "square")
    assert len(data.splits["train"]) + len(data.splits["validation"]) == 6


def test_corrections_are_bounded(tmp_path):
    kept = Corrections(tmp_path, bounds=Bounds(images=2, size=20_000))
    kept.keep(encoded(seed=0), "PNG", "disc")
    kept.keep(encoded(seed=1), "PNG", "disc")
    with pytest.raises(Refused, match="2 corrections are kept, and no more may be") as refused:
        kept.keep(encoded(seed=2), "PNG", "disc")
    assert refused.value.status == 507
    kept.keep(encoded(seed=1), "PNG", "square")  # the label of one that is there may change
    small_room = Corrections(tmp_path / "b", bounds=Bounds(size=10_000))
    (tmp_path / "b").mkdir()
    small_room.keep(encoded(seed=0), "PNG", "disc")
    with pytest.raises(Refused, match="may take 0 MB"):
        small_room.keep(encoded(seed=1), "PNG", "disc")


def test_processes_and_threads_keep_at_the_same_time(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from jaxcat.serve.corrections import Corrections\n"
        "kept = Corrections(Path(sys.argv[1]))\n"
        "for i in range(10): kept.keep(f'{sys.argv[2]} {i}'.encode(), 'PNG', 'disc')\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)], cwd=REPOSITORY)
        for number in range(2)
    ]

    def some(number: int) -> None:
        mine = Corrections(tmp_path)
        for i in range(10):
            mine.keep(f"{number} {i}".encode(), "PNG", "disc")

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(some, (2, 3)))
    assert [process.wait(60) for process in processes] == [0, 0]
    assert len(Corrections(tmp_path).labels()) == 40
    assert len(list((tmp_path / "corrections").glob("*.png"))) == 40


def test_hostile_names_of_classes_survive_the_table(tmp_path):
    names = [name for name in HOSTILE_NAMES if name.isprintable()]
    kept = Corrections(tmp_path)
    for number, name in enumerate(names):
        kept.keep(encoded(seed=number), "PNG", name)
    assert sorted(kept.labels().values()) == sorted(names)
    assert any(line.endswith(",'=1+1") for line in rows_of(tmp_path)), "no spreadsheet runs it"


def test_links_foreign_tables_and_full_disks_are_refused_without_paths(own, tmp_path, monkeypatch):
    workdir, keep = tmp_path / "own", lambda: own.post("/corrections?label=disc&agreed=1", encoded())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (workdir / "corrections").symlink_to(elsewhere)
    assert "is a link" in error_of(keep(), 409)
    assert list(elsewhere.iterdir()) == []
    (workdir / "corrections").unlink()
    (workdir / "corrections").mkdir()
    for text in ("path,label,split\na,b,c\n", "", "\0", 'path,label\n"a'):
        (workdir / "corrections" / "corrections.csv").write_text(text)
        assert str(tmp_path) not in error_of(keep(), 409)
    (workdir / "corrections" / "corrections.csv").unlink()
    os.mkfifo(workdir / "corrections" / "corrections.csv")  # reading it would wait for ever
    assert str(tmp_path) not in error_of(keep(), 409)
    (workdir / "corrections" / "corrections.csv").unlink()

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(corrections, "write_bytes", full)
    assert error_of(keep(), 507) == "corrections cannot be kept: No space left on device"


def test_a_table_that_was_edited_by_hand_does_not_stop_the_page(own, tmp_path):
    own.post("/corrections?label=disc&agreed=1", encoded())
    table = tmp_path / "own" / "corrections" / "corrections.csv"
    text = table.read_text()
    table.write_text("\ufeff" + text)  # as spreadsheets save it
    assert own.get("/state").json()["corrections"] == 1
    table.write_text(text.replace("label", "class"))
    state = own.get("/state").json()
    assert (state["corrections"], state["classes"]) == (0, ["disc", "square"])
    assert "other columns" in state["learning"]["problem"]
    assert own.post("/predict", encoded()).ok


# learning -------------------------------------------------------------------------------------------------------------


def learned(client: Client) -> dict:
    """The state after learning."""
    assert client.post("/learn").status_code == 202
    while (state := client.get("/state").json())["learning"]["running"]:
        time.sleep(0.05)
    return state


def kept_squares(client: Client, count: int = 3) -> None:
    """Corrects new drawings of discs to squares."""
    random = np.random.default_rng(77)
    for _ in range(count):
        file = io.BytesIO()
        small.draw("disc", random).save(file, "PNG")
        assert client.post("/corrections?label=square&agreed=1", file.getvalue()).ok


@pytest.mark.slow
def test_learning_solves_the_head_again_beside_the_run(own, tmp_path, monkeypatch, folder, empty_cache):
    before = {path: path.read_bytes() for path in (tmp_path / "own").rglob("*") if path.is_file()}
    answer = own.post("/predict", encoded()).json()
    kept_squares(own)
    fit(folder, tmp_path / "again")  # now the cache has the rows of its images
    computed: list[int] = []
    monkeypatch.setattr(sources, "extract", counting(computed))
    state = learned(own)
    assert computed == [3], "only the new images go through the network"
    old, new = state["runs"]
    assert (old["name"], old["used"], new["name"], new["used"]) == ("own", True, "own-corrected", False)
    assert (old["leave_one_out"]["count"], new["leave_one_out"]["count"]) == (24, 27)
    assert old["validation"]["count"] == new["validation"]["count"] == 12
    assert new["notes"] == ["3 corrections"]
    # the old run is as it was, and its answers are still used
    assert {path: path.read_bytes() for path in before} == before
    assert own.post("/predict", encoded()).json() == answer
    # the same as the command
    table = tmp_path / "own" / "corrections" / "corrections.csv"
    chosen = jaxcat.load(tmp_path / "own").config.model
    blocks = {"model.cut": chosen.cut, "model.pool_from": chosen.pool_from}
    asked = {**TINY, "data.dir": folder, "data.corrections": table, **blocks}
    run = jaxcat.fit("folder", tmp_path / "command", settings=asked)
    assert new["leave_one_out"]["accuracy"] == run.history[0]["leave_one_out/accuracy"]
    made = jaxcat.load(tmp_path / "own-corrected")
    np.testing.assert_allclose(
        np.asarray(made.params["logits"]["kernel"]), np.asarray(run.classifier.params["logits"]["kernel"]), rtol=1e-5
    )
    # the person decides
    error_of(own.post("/use?run=nobody"), 404)
    assert [run["used"] for run in own.post("/use?run=own-corrected").json()["runs"]] == [False, True]
    found = own.post("/predict", encoded()).json()
    expected = made.predict([encoded()])[0].max()
    assert found["probability"] == pytest.approx(expected, abs=1e-5)
    assert found != answer
    assert own.post("/use?run=own").ok
    assert own.post("/predict", encoded()).json() == answer


def counting(computed: list[int]):
    real = sources.extract

    def extract(rows, requests, **options):
        computed.append(sum(len(request.records) for request in requests))
        return real(rows, requests, **options)

    return extract


@pytest.mark.slow
def test_learning_again_makes_another_run_and_one_from_a_learned_run_keeps_what_that_learned(own, tmp_path):
    kept_squares(own, 2)
    assert len(learned(own)["runs"]) == 2
    assert own.post("/corrections?label=disc&agreed=1", encoded()).ok
    last = learned(own)["runs"][-1]
    assert (last["name"], last["notes"]) == ("own-corrected-2", ["3 corrections"])
    with serving(tmp_path / "own-corrected") as client:
        assert client.post("/corrections?label=disc&agreed=1", encoded(seed=5)).ok
        last = learned(client)["runs"][-1]
        assert (last["name"], last["leave_one_out"]["count"]) == ("own-corrected-corrected", 24 + 4)


def test_a_corrected_image_of_validation_is_left_out_and_said(own, folder):
    measured = (folder / "validation" / "disc" / "000.png").read_bytes()
    assert own.post("/corrections?label=square&agreed=1", measured).ok
    new = learned(own)["runs"][-1]
    assert new["notes"][0] == "1 correction"
    assert new["notes"][1].startswith("1 image of validation or test is left out, because accuracy is measured there")


def test_nothing_to_learn_from_and_learning_twice_at_once(own, monkeypatch):
    assert "no correction" in error_of(own.post("/learn"), 409)
    kept_squares(own, 1)
    go = threading.Event()
    real = lessons.Learning._solved

    def slow(self, workdir: Path):
        assert go.wait(30)
        return real(self, workdir)

    monkeypatch.setattr(lessons.Learning, "_solved", slow)
    assert own.post("/learn").status_code == 202
    assert own.get("/state").json()["learning"]["running"]
    assert "already" in error_of(own.post("/learn"), 409)
    assert own.post("/predict", encoded()).ok, "answers go on meanwhile"
    go.set()


def test_servers_that_learn_at_the_same_time_get_folders_of_their_own(tmp_path):
    (tmp_path / "run-corrected").write_text("in the way")
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lessons.new_folder, [tmp_path / "run"] * 40))
    assert sorted(path.name for path in found) == sorted(f"run-corrected-{number}" for number in range(2, 42))


def test_learning_that_fails_says_so_and_leaves_nothing(own, tmp_path, folder, monkeypatch, capsys):
    kept_squares(own, 1)

    def broken(config: ConfigDict, workdir: Path) -> int:
        assert workdir.is_dir()
        raise OSError(5, "Input/output error", "/somebody/secret")

    from jaxcat.training import loop

    monkeypatch.setattr(loop, "train", broken)
    state = learned(own)
    assert state["learning"]["problem"] == "The head could not be solved; the window of the server says why."
    assert "Input/output error" in capsys.readouterr().err
    assert [run["name"] for run in state["runs"]] == ["own"]
    assert not (tmp_path / "own-corrected").exists()


@pytest.mark.slow
def test_other_images_of_validation_than_before_are_said_and_data_that_are_gone_end_it(folder, tmp_path, capsys):
    images = shutil.copytree(folder, tmp_path / "images")
    fit(images, tmp_path / "own")
    (images / "validation" / "disc" / "000.png").unlink()
    with serving(tmp_path / "own") as client:
        kept_squares(client, 1)
        state = learned(client)
        assert state["runs"][-1]["validation"]["count"] == 11
        assert "validation has other images than before" in state["runs"][-1]["notes"][1]
        shutil.rmtree(images)
        state = learned(client)
        assert len(state["runs"]) == 2
        assert state["learning"]["problem"] == "The head could not be solved; the window of the server says why."
        assert f"error: --config.data.dir={images}" in capsys.readouterr().err
        assert client.post("/predict", encoded()).ok


@pytest.mark.slow
def test_a_trained_head_keeps_corrections_and_says_that_learning_needs_an_exact_one(finished, tmp_path):
    with serving(shutil.copytree(finished, tmp_path / "trained")) as client:
        state = client.get("/state").json()
        assert "needs an exact head" in state["learning"]["impossible"]
        assert state["runs"][0]["leave_one_out"] is None
        assert 0 <= state["runs"][0]["validation"]["accuracy"] <= 1
        assert client.post("/corrections?label=disc&agreed=1", encoded()).ok
        assert "needs an exact head" in error_of(client.post("/learn"), 409)


@pytest.mark.slow
def test_no_answer_names_a_path_of_this_machine(own, tmp_path, folder):
    kept_squares(own, 1)
    learned(own)
    bodies = [b"", b"x", encoded()]
    texts = [own.get(path).text for path in ("/", "/state", "/healthz", "/nothing", "/page/main.js")]
    texts += [own.post(path, body).text for path in ("/predict?view=1", "/use?run=x", "/learn") for body in bodies]
    texts += [own.post("/corrections?label=disc&agreed=1", body).text for body in bodies]
    own.served.learning.join()
    texts.append(own.get("/state").text)
    for text in texts:
        for path in (tmp_path, folder, Path.home(), REPOSITORY, Path(os.environ["JAXCAT_CACHE"])):
            assert str(path) not in text


@pytest.mark.slow
def test_the_list_of_the_new_run_has_the_corrections(own, tmp_path):
    kept_squares(own, 1)
    learned(own)
    classifier = jaxcat.load(tmp_path / "own-corrected")
    digest = classifier.meta.records.list_digest
    listed = read_list(tmp_path / "own-corrected", digest, classes=classifier.classes)["train"]
    assert [name for name in listed.files if name.startswith("corrections.csv:")] == [listed.files[-1]]


# the command ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_the_command_prints_the_address_and_the_file_and_ends_quietly(solved, tmp_path, number, status):
    environment = {**os.environ, "JAXCAT_CACHE": str(tmp_path / "cache"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "jaxcat", "serve", "--workdir", str(solved), "--port", "0"]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        lines = []
        while not lines or not lines[-1].startswith("Ctrl-C"):
            lines.append(process.stdout.readline())
            assert lines[-1], process.stderr.read()
        said = "".join(lines)
        address, token = re.search(r"(http://127\.0\.0\.1:\d+)/\?token=(\S+)", said).groups()
        kept = Path(re.search(r"the token is in (\S+),", said)[1])
        assert kept.read_text() == token
        import requests

        found = requests.post(f"{address}/predict", encoded(), headers={"Authorization": f"Bearer {token}"}, timeout=60)
        assert found.json()["label"] in ("disc", "square")
        if shutil.which("curl"):  # the command that it prints
            (tmp_path / "IMAGE").write_bytes(encoded())
            curl = re.search(r"curl .*", said)[0].replace("curl", "curl -s")
            done = subprocess.run(curl, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
            assert json.loads(done.stdout) == found.json()
        process.send_signal(number)
        assert process.wait(30) == status
        assert "Traceback" not in process.stderr.read()
        assert not kept.exists()
    finally:
        process.kill()
        process.communicate()
