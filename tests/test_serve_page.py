"""The local page in a headless Chromium: dropped images, heat maps, corrections, learning; other pages get nothing."""

from __future__ import annotations

import base64
import contextlib
import shutil
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
import small
from hostile_names import HOSTILE_NAMES
from small_serve import Client, encoded, serving

import jaxcat
from jaxcat.serve import security
from jaxcat.serve.learning import Run

pytestmark = pytest.mark.skipif(not browser.FOUND, reason=browser.LACKING)

READY = "document.getElementById('status')?.textContent === 'Ready.'"
ANSWERED = "document.querySelectorAll('#answers .bars li, #answers .problem').length"
HEATED = "document.querySelectorAll('#answers .toggle').length"
# What is visible of the image and of the heat map of the first answer.
VISIBLE = """['img:not(.heat)', '.heat'].map(
    (each) => getComputedStyle(document.querySelector('.picture ' + each)).visibility)"""


def opened(tab, client: Client, **screen: Any):
    """A page of the server, by the address that it prints."""
    return tab.page(client.entrance, **screen)


def check_clean(page, client: Client) -> None:
    """Nothing stands in the console, and the page has asked its own server only."""
    assert page.complaints() == []
    asked = [each for each in page.requests() if not each.startswith("data:")]
    assert asked
    assert all(each.startswith(client.address) for each in asked)


def drop(page, content: bytes, name: str) -> None:
    """Drops a file on the page."""
    page.run(
        f"""(() => {{
            const bytes = Uint8Array.from(atob("{base64.b64encode(content).decode()}"), (c) => c.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "{name}", {{type: "image/png"}}));
            document.dispatchEvent(new DragEvent("drop", {{dataTransfer: data, bubbles: true, cancelable: true}}));
        }})()"""
    )


def shown(page) -> dict[str, float]:
    """The classes and shares of the last answer."""
    return page.run(
        """Object.fromEntries([...document.querySelectorAll("#answers > .card:last-child .bars li")].map(
            (row) => [row.querySelector(".class").textContent, Number(row.querySelector("data").value)]))"""
    )


def drawing(path: Path, seed: int = 77) -> Path:
    small.draw("disc", np.random.default_rng(seed)).save(path)
    return path


# answers --------------------------------------------------------------------------------------------------------------


def test_a_dropped_file_shows_the_answer_of_predict_and_where_the_network_looked(tab, client, solved, tmp_path):
    body = encoded("PNG", size=(300, 200))
    (tmp_path / "a.png").write_bytes(body)
    classifier = jaxcat.load(solved)
    expected = dict(zip(classifier.classes, classifier.predict([tmp_path / "a.png"])[0].tolist(), strict=True))
    with opened(tab, client) as page:
        page.wait_for(READY)
        assert page.run("location.href") == f"{client.address}/", "the token is not in the address"
        assert page.run("document.cookie") == "", "scripts do not see it"
        drop(page, body, "a.png")
        page.wait_for(f"{ANSWERED} >= 2")
        assert shown(page) == pytest.approx(expected, abs=1e-5)
        page.wait_for(f"{HEATED} === 1")
        page.wait_for("document.querySelector('.heat').naturalWidth > 0")
        assert page.run(VISIBLE) == ["visible", "visible"]
        for view, wanted in (("image", ["visible", "hidden"]), ("heat", ["hidden", "visible"])):
            page.run(f"document.querySelector('.toggle [value={view}]').click()")
            assert page.run(VISIBLE) == wanted
        for side in ("Width", "Height"):
            sizes = page.run(f"[...document.querySelectorAll('.picture img')].map((each) => each.client{side})")
            assert sizes[0] == pytest.approx(sizes[1], abs=1), "the map covers the image"
        check_clean(page, client)


def test_what_the_server_refuses_is_said_and_the_others_are_answered(tab, client, tmp_path):
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(encoded(seed=number))
    (tmp_path / "text.png").write_bytes(b"no image at all")
    with opened(tab, client) as page:
        page.wait_for(READY)
        page.give("#files", *sorted(tmp_path.iterdir()))
        page.wait_for("document.querySelectorAll('#answers .bars').length === 6")
        page.wait_for("document.querySelectorAll('#answers .problem').length === 1")
        assert "no answer" in page.run("document.querySelector('#answers .problem').textContent")
        page.wait_for(f"{HEATED} === 6")
        # Chromium itself writes a line for the status 422, which is the answer for text.png
        assert all("422" in text for text in page.complaints())


def test_a_file_that_the_browser_cannot_read_is_not_taken_for_a_server_that_is_gone(tab, client):
    with opened(tab, client) as page:
        gone = "{arrayBuffer: () => Promise.reject(new DOMException('gone', 'NotFoundError'))}"
        module = 'import("/page/server.js")'
        sent = f'{module}.then((server) => server.post("/predict", {{}}, {gone})).catch((error) => error.message)'
        assert "cannot read this file" in page.run(sent)
        check_clean(page, client)


def test_a_heat_map_that_is_not_there_yet_or_never_is_said(tab, client, tmp_path):
    hold = """const real = fetch, held = new Promise((_, refuse) => (window.refuse = refuse));
        window.fetch = (path, options) => (path.includes("heat=1") ? held : real(path, options));"""
    with opened(tab, client) as page:
        page.wait_for(READY)
        page.run(f"(() => {{ {hold} }})()")
        page.give("#files", drawing(tmp_path / "disc.png"))
        page.wait_for(f"{ANSWERED} >= 2")
        assert page.run("document.querySelector('.side .note').textContent") == "Heat map …"
        page.run("refuse(new Error('no'))")
        page.wait_for(
            "document.querySelector('.side .note').textContent.startsWith('No heat map: the server does not')"
        )


def test_the_camera_is_classified_and_an_image_of_it_is_taken(tab, client):
    with opened(tab, client) as page:
        page.wait_for(READY)
        page.run("document.getElementById('camera').click()")
        page.wait_for("document.querySelectorAll('#live-bars data').length === 2")
        page.wait_for("document.getElementById('status').textContent.startsWith('Camera: ')")
        page.run("document.getElementById('take').click()")
        page.wait_for(f"{ANSWERED} >= 2")
        page.run("window.track = document.getElementById('video').srcObject.getTracks()[0]")
        page.run("document.getElementById('camera').click()")
        assert page.run("track.readyState") == "ended"
        assert page.run("document.getElementById('live').hidden")
        check_clean(page, client)


def test_where_there_is_no_camera_the_page_says_why(tab, client):
    for secure, says in (("true", "This browser gives no camera to a page."), ("false", "(127.0.0.1) or over https")):
        without = "delete Navigator.prototype.mediaDevices;"
        without += f"Object.defineProperty(window, 'isSecureContext', {{value: {secure}}});"
        with tab.page() as page:
            page.send("Page.addScriptToEvaluateOnNewDocument", source=without)
            page.open(client.entrance)
            page.wait_for(READY)
            assert says in page.run("document.getElementById('camera-problem').textContent")
            assert page.run("document.getElementById('camera').disabled")


# corrections and learning ---------------------------------------------------------------------------------------------


def test_a_correction_is_kept_after_agreement_and_the_head_learns_from_it(tab, own, tmp_path):
    kept = tmp_path / "own" / "corrections"
    with opened(tab, own) as page:
        page.wait_for(READY)
        assert page.run("document.getElementById('learn').disabled")
        page.give("#files", drawing(tmp_path / "disc.png"))
        page.wait_for(f"{ANSWERED} >= 2")
        page.run("document.querySelector('.correction').open = true")
        page.wait_for("document.querySelector('.correction select').options.length === 2")
        page.run("document.querySelector('.correction select').value = 'square'")
        page.run("document.querySelector('.correction button').click()")
        page.wait_for("document.getElementById('consent').open")
        page.run("document.getElementById('refuse').click()")
        page.wait_for("!document.querySelector('.correction button').disabled")
        assert not kept.exists()
        page.run("document.querySelector('.correction button').click()")
        page.wait_for("document.getElementById('consent').open")
        page.run("document.getElementById('agree').click()")
        page.wait_for("document.querySelector('.correction .note').textContent.startsWith('Kept as square')")
        assert (kept / "corrections.csv").read_text().splitlines()[1].endswith(".png,square")
        page.wait_for("document.getElementById('kept').textContent === '1 correction is kept.'")
        page.run("document.getElementById('learn').click()")
        page.wait_for("document.querySelectorAll('#run-rows tr').length === 2")
        rows = page.run("[...document.querySelectorAll('#run-rows tr')].map((row) => row.textContent)")
        assert rows[0].startswith("own")
        assert rows[0].endswith("in use")
        assert "24 images" in rows[0]
        assert rows[1].startswith("own-corrected1 correction")
        assert "25 images" in rows[1]
        page.run("document.querySelector('#run-rows button').click()")
        page.wait_for("document.getElementById('run').textContent === 'own-corrected'")
        assert own.served.learning.used.name == "own-corrected"
        page.run("document.querySelector('.correction .note button').click()")
        page.wait_for("document.getElementById('kept').textContent.startsWith('No corrections')")
        assert (kept / "corrections.csv").read_text().splitlines() == ["path,label"]
        check_clean(page, own)


def test_a_trained_head_says_that_learning_needs_an_exact_one(tab, finished, tmp_path):
    with serving(shutil.copytree(finished, tmp_path / "trained")) as client, opened(tab, client) as page:
        page.wait_for(READY)
        assert "needs an exact head" in page.run("document.getElementById('learning').textContent")
        assert page.run("document.getElementById('learn').disabled")


# other pages ----------------------------------------------------------------------------------------------------------

OTHER = """<!doctype html><meta charset="utf-8"><title>other</title><body><script>
const base = "BASE", token = "TOKEN", seen = [];
async function attempt(path, options) {
    try {
        const answer = await fetch(base + path, options);
        seen.push(`${answer.type} ${(await answer.text()).length}`);
    } catch (error) {
        seen.push("nothing");
    }
}
const patience = (work) => Promise.race([work, new Promise((resolve) => setTimeout(resolve, 1000, "nothing"))]);
async function loaded(tag, attribute, path) {
    const made = document.createElement(tag);
    seen.push(await patience(new Promise((resolve) => {
        made.onload = () => resolve(`${tag} loaded`);
        made.onerror = () => resolve("nothing");
        made[attribute] = base + path;
        document.body.append(made);
    })));
}
async function posted(path, place) {
    const frame = document.createElement("iframe"), form = document.createElement("form");
    frame.name = `target-${place}`;
    Object.assign(form, {method: "POST", action: base + path, target: frame.name, enctype: "text/plain"});
    document.body.append(frame, form);
    form.submit();
    await patience(new Promise(() => {}));
}
async function socket() {
    const made = new WebSocket(base.replace("http", "ws") + "/state");
    seen.push(await patience(new Promise((resolve) => {
        made.onopen = () => resolve("socket open");
        made.onerror = () => resolve("nothing");
    })));
}
async function attack() {
    for (const credentials of ["include", "omit"]) {
        await attempt("/state", {credentials});
        await attempt("/healthz", {credentials});
        await attempt(`/?token=${token}`, {credentials});
        await attempt("/state", {credentials, mode: "no-cors"});
        await attempt("/predict", {credentials, method: "POST", body: "x"});
        await attempt("/learn", {credentials, method: "POST", mode: "no-cors"});
        const headers = {Authorization: `Bearer ${token}`};
        await attempt("/predict", {credentials, method: "POST", body: "x", headers});
    }
    await loaded("img", "src", "/healthz");
    await loaded("script", "src", "/page/main.js");
    await posted("/learn", 1);
    await posted("/corrections?label=disc&agreed=1", 2);
    await socket();
    return seen;
}
</script>"""


@pytest.mark.parametrize("place", ["another port", "another site", "a file"])
def test_a_page_of_another_origin_gets_nothing(tab, own, tmp_path, monkeypatch, place):
    """It runs in the browser that has the cookie, and even knows the token."""
    answered: list[tuple[str, str]] = []
    real = security.refusal

    def noted(policy, *, method, path, headers):
        found = real(policy, method=method, path=path, headers=headers)
        if found is None:
            answered.append((method, path))
        return found

    monkeypatch.setattr(security, "refusal", noted)
    text = OTHER.replace("BASE", own.address).replace("TOKEN", own.token)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "other.html").write_text(text)
    with browser.served(tmp_path / "site") as address, opened(tab, own) as page:
        page.wait_for(READY)
        there = answered.copy()
        assert ("GET", "/state") in there
        if place == "a file":
            page.open((tmp_path / "site" / "other.html").as_uri())
        else:
            host = "127.0.0.1" if place == "another port" else "localhost"
            page.open(f"{address.replace('127.0.0.1', host)}other.html")
        page.wait_for("document.title === 'other' && typeof attack === 'function'")
        seen = page.run("attack()")
        assert set(seen) <= {"nothing", "opaque 0"}
        assert len(seen) == 17
        assert answered == there, "nothing of that was answered"
        assert not own.served.learning.running
        assert not (tmp_path / "own" / "corrections").exists()
        with contextlib.suppress(browser.PageLeftError):  # nor by going there, where another page leads
            page.run(f"void (location = '{own.address}/state')")
        page.wait_for("document.body?.innerText.includes('error')")
        assert set(answered[len(there) :]) <= {("GET", "/favicon.ico")}  # browsers ask that for any page; there is none
        page.open(own.address)  # a person who types the address is let in
        page.wait_for(READY)


def test_it_cannot_be_framed(tab, own, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "frame.html").write_text(f'<iframe id="frame" src="{own.entrance}"></iframe>')
    with browser.served(tmp_path / "site") as address, opened(tab, own) as page:
        page.wait_for(READY)
        page.open(f"{address}frame.html")
        page.until(lambda: page.complaints(), "a refusal in the console")
        assert page.run("document.getElementById('frame').contentDocument") is None


# for everybody --------------------------------------------------------------------------------------------------------


def test_keys_are_enough(tab, own, tmp_path):
    with opened(tab, own) as page:
        page.wait_for(READY)
        page.send("Page.setInterceptFileChooserDialog", enabled=True)
        page.press("Tab")
        assert page.run("document.activeElement.className") == "skip"
        page.press("Tab")
        assert page.run("document.activeElement.id") == "choose"
        assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.press("Enter", "\r")
        page.until(lambda: any(e["method"] == "Page.fileChooserOpened" for e in page.events), "a choice of files")
        page.give("#files", drawing(tmp_path / "disc.png"))
        page.wait_for(f"{HEATED} === 1")
        order = []
        for _ in range(5):
            page.press("Tab")
            order.append(page.run("document.activeElement.id || document.activeElement.tagName"))
        assert order == ["camera", "clear", "INPUT", "SUMMARY", "agreed"]
        page.run("document.querySelector('.correction summary').focus()")
        page.press("Enter", "\r")
        page.wait_for("document.querySelector('.correction select').options.length === 2")
        page.press("Tab")
        assert page.run("document.activeElement.tagName") == "SELECT"
        page.press("Tab")
        page.press("Enter", "\r")
        page.wait_for("document.getElementById('consent').open")
        assert page.run("document.activeElement.id") == "agree"
        page.press("Enter", "\r")
        page.wait_for("document.getElementById('kept').textContent === '1 correction is kept.'")
        check_clean(page, own)


@pytest.mark.parametrize("screen", [{"width": 390, "height": 800, "phone": True}, {"dark": True}, {}])
def test_narrow_wide_and_dark(tab, own, tmp_path, screen):
    axe = pytest.importorskip("axe")
    script = axe.source(tmp_path.parent)
    with opened(tab, own, **screen) as page:
        page.wait_for(READY)
        page.give("#files", drawing(tmp_path / "disc.png"))
        page.wait_for(f"{HEATED} === 1")
        page.run("document.querySelector('.correction').open = true")
        first = own.served.learning.used
        own.served.learning._runs["another"] = Run(tmp_path / "another", first.classifier, ("a note",))
        page.run("document.getElementById('agreed').checked = true")
        page.run("document.querySelector('.correction button').click()")
        page.wait_for("!document.getElementById('runs').hidden")
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the screen"
        ground = page.run("getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, ground[4:-1].split(","))) < 60) == bool(screen.get("dark"))
        page.send("Page.setBypassCSP", enabled=True)
        assert axe.problems(page, script) == []


def test_hostile_names_are_shown_and_not_run(tab, own, tmp_path):
    """Names of classes, of files and of the run."""
    learning = own.served.learning
    names = tuple(HOSTILE_NAMES[:9])
    learning.used.classifier.classes = names[:2]
    learning.used.workdir = tmp_path / 'r"><script>alert(1)<script>&\u202e{{ 7 * 7 }}'
    with opened(tab, own) as page:
        page.wait_for(READY)
        for name in ("<img src=x onerror=alert(1)>.png", "\\u202egnp.exe"):
            drop(page, encoded(), name)
        page.wait_for("document.querySelectorAll('#answers .bars').length === 2")
        assert set(shown(page)) == set(names[:2])
        files = page.run("[...document.querySelectorAll('#answers h3')].map((each) => each.textContent)")
        assert files == ["<img src=x onerror=alert(1)>.png", "\u202egnp.exe"]
        assert page.run("document.querySelectorAll('main script, [onerror]').length") == 0
        assert "<script>alert(1)<script>&\\u202e{{ 7 * 7 }}" in page.run("document.getElementById('run').textContent")
        check_clean(page, own)
