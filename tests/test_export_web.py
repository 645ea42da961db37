"""The format `web`: its pages in a headless Chromium give jaxcat's answers, say what they refuse, and send nothing."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import re
import shutil
from pathlib import Path

import browser
import numpy as np
import onnx
import platformdirs
import pytest
from filelock import FileLock
from hostile_names import HOSTILE_NAMES
from PIL import Image
from small_export import classifier_of
from test_browser import KEPT, REFUSED, TURNED

from jaxcat.data.images.decoding import decode
from jaxcat.data.images.resizing import RESIZES, resize
from jaxcat.errors import ConfigError
from jaxcat.export import export
from jaxcat.export.web import page as pages
from jaxcat.export.web import runtime as runtimes
from jaxcat.export.writers import web

needs_browser = pytest.mark.skipif(not browser.FOUND, reason=browser.LACKING)
CLASSES = ("disc", "square", "cross")
# Files of 20 kinds that Chromium decodes exactly.
KINDS = (
    *("quality_50.jpg", "progressive.jpg", "subsampled_411.jpg", "subsampled_420.jpg", "subsampled_444.jpg"),
    *("grey.jpg", "rgb_not_ycc.jpg", "ink_of_adobe.jpg", "orientation_3.jpg", "orientation_6.jpg"),
    *("colour_8.png", "colour_8_alpha.png", "colour_8_interlaced.png", "grey_1.png", "palette_4_alpha.png"),
    *("colour_16.png", "still.gif", "24.bmp", "lossless.webp", "lossy.webp"),
)
SHOWN = "document.querySelectorAll('#answers .card .bars, #answers .card .problem').length"
READY = "document.getElementById('status')?.textContent === 'Ready.'"
FOLDER, FILE = "folder", "file"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory) -> Path:
    """ONNX Runtime Web: from the user's cache, which stays as it is, or by npm."""
    kept = Path(platformdirs.user_cache_dir("jaxcat")) / "runtimes" / f"{runtimes.NAME}-{runtimes.VERSION}"
    if all((kept / name).is_file() for name in runtimes.HASHES):
        return kept
    if not shutil.which("npm"):
        pytest.skip(f"no {runtimes.PACKAGE}: install npm (apt-get install npm)")
    root = tmp_path_factory.getbasetemp()
    shared = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root  # the processes of pytest-xdist fetch it once
    with FileLock(shared / "runtime.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXCAT_CACHE", str(shared))
        runtimes.runtime()
    return shared / "runtimes" / kept.name


@pytest.fixture(scope="module")
def classifier():
    return classifier_of(classes=CLASSES)


@pytest.fixture(scope="module")
def exports(tmp_path_factory, runtime, classifier) -> dict[str, Path]:
    """The page as a folder and as a file."""
    root = tmp_path_factory.mktemp("web")
    export(classifier, root / "page", format="web", runtime=runtime)
    export(classifier, root / "page.html", format="web", runtime=runtime, single_file=True)
    return {FOLDER: root / "page", FILE: root / "page.html"}


@pytest.fixture(scope="module")
def addresses(exports):
    with browser.served(exports[FOLDER]) as address:
        yield {FOLDER: address, FILE: exports[FILE].as_uri()}


@pytest.fixture(params=[FOLDER, FILE])
def opened(request, tab, addresses):
    """A page that is ready. At the end its console is empty; it has asked for its own files and chosen images only."""
    with tab.page(addresses[request.param]) as page:
        page.wait_for(READY)
        yield page
        assert page.complaints() == []
        asked = [each for each in page.requests() if not each.startswith("blob:")]
        assert asked
        assert all(each.startswith(addresses[request.param]) for each in asked)


def answers(page, count: int) -> list[dict]:
    """What the cards show as soon as there are so many: file, probabilities by class, note, problem."""
    page.wait_for(f"{SHOWN} >= {count}")
    found = page.run(
        """[...document.querySelectorAll("#answers > .card")].map((card) => ({
            file: card.querySelector("h3").textContent,
            classes: Object.fromEntries([...card.querySelectorAll(".bars li")].map(
                (row) => [row.querySelector(".class").textContent, Number(row.querySelector("data").value)])),
            note: card.querySelector(".note")?.textContent ?? "",
            problem: card.querySelector(".problem")?.textContent ?? "",
        }))"""
    )
    assert len(found) == count
    return found


def drawn(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """An image with structure of every scale."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (7, 9, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = generator.integers(-20, 21, (size[1], size[0], 1))
    return Image.fromarray((np.asarray(coarse).astype(int) + noise).clip(0, 255).astype(np.uint8))


# answers --------------------------------------------------------------------------------------------------------------


@needs_browser
def test_the_same_probabilities_as_jaxcat(opened, classifier, tmp_path):
    assert len(KINDS) == 20
    for name in KINDS:
        (tmp_path / name).write_bytes(KEPT[name][0])
    files = [tmp_path / name for name in KINDS]
    opened.give("#files", *files)
    expected, found = classifier.predict(files), answers(opened, len(files))
    assert np.ptp(expected, axis=0).max() > 0.1, "the images have different answers"
    for file, probabilities, shown in zip(files, expected, found, strict=True):
        assert (shown["file"], shown["note"], shown["problem"]) == (file.name, "", "")
        assert shown["classes"] == pytest.approx(dict(zip(CLASSES, probabilities.tolist(), strict=True)), abs=1e-5)
        assert list(shown["classes"].values()) == sorted(shown["classes"].values(), reverse=True)
    assert opened.run("document.getElementById('status').textContent").startswith(f"{KINDS[-1]}: ")


@needs_browser
@pytest.mark.parametrize(
    "event",
    [
        "new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})",
        "new ClipboardEvent('paste', {clipboardData: data})",
    ],
)
def test_dropped_and_pasted_images(event, opened, classifier, tmp_path):
    drawn((60, 40)).save(tmp_path / "a.png")
    text = base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    opened.run(
        f"""(() => {{
            const bytes = Uint8Array.from(atob("{text}"), (letter) => letter.charCodeAt(0)), data = new DataTransfer();
            data.items.add(new File([bytes], "a.png", {{type: "image/png"}}));
            return !document.dispatchEvent({event});
        }})()"""
    )
    (found,) = answers(opened, 1)
    expected = classifier.predict([tmp_path / "a.png"])[0].tolist()
    assert found["classes"] == pytest.approx(dict(zip(CLASSES, expected, strict=True)), abs=1e-5)


@needs_browser
def test_twelve_megapixels(opened, classifier, tmp_path):
    drawn((4032, 3024)).save(tmp_path / "large.jpg", quality=80)
    opened.give("#files", tmp_path / "large.jpg")
    (found,) = answers(opened, 1)
    expected = classifier.predict([tmp_path / "large.jpg"])[0].tolist()
    assert found["classes"] == pytest.approx(dict(zip(CLASSES, expected, strict=True)), abs=1e-5)


@needs_browser
def test_files_that_are_no_images_are_named_and_the_others_answered(opened, tmp_path):
    image = drawn((60, 40))
    image.save(tmp_path / "good.png")
    image.save(tmp_path / "whole.jpg")
    image.save(tmp_path / "scan.tiff")
    whole, good = (tmp_path / "whole.jpg").read_bytes(), (tmp_path / "good.png").read_bytes()
    contents = {
        "text.jpg": (b"no image at all", "not a JPEG"),
        "empty.png": (b"", "empty"),
        "cut.jpg": (whole[: len(whole) // 2], "cut short"),
        "cut.png": (good[: len(good) // 2], "cut short"),
        "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "not a JPEG"),
        "scan.tiff": ((tmp_path / "scan.tiff").read_bytes(), "TIFF, which browsers do not read"),
        "turned.webp": (KEPT["orientation_6.webp"][0], "turned by EXIF"),
        "damaged.png": (good[:60] + bytes(20) + good[80:], "PNG, which this browser cannot read"),
    }
    for name, (content, _) in contents.items():
        (tmp_path / name).write_bytes(content)
    opened.give("#files", *(tmp_path / name for name in contents), tmp_path / "good.png")
    *refused, good = answers(opened, len(contents) + 1)
    assert good["classes"]
    for shown, (name, (_, reason)) in zip(refused, contents.items(), strict=True):
        assert shown["file"] == name
        assert shown["classes"] == {}
        assert reason in shown["problem"]


@needs_browser
def test_the_camera_is_classified_until_it_is_stopped(opened):
    opened.run("document.getElementById('camera').click()")
    opened.wait_for("document.querySelectorAll('#live-bars data').length === 3")
    shares = opened.run("[...document.querySelectorAll('#live-bars data')].map((each) => Number(each.value))")
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    opened.wait_for("document.getElementById('status').textContent.startsWith('Camera: ')")
    opened.run("window.track = document.getElementById('video').srcObject.getTracks()[0]")
    opened.run("document.getElementById('camera').click()")
    assert opened.run("track.readyState") == "ended"
    assert opened.run("document.getElementById('live').hidden")


@needs_browser
def test_keys_are_enough(opened, tmp_path):
    drawn((60, 40)).save(tmp_path / "a.png")
    opened.send("Page.setInterceptFileChooserDialog", enabled=True)
    opened.press("Tab")
    assert opened.run("document.activeElement.id") == "choose"
    assert opened.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    opened.press("Enter", "\r")
    opened.until(lambda: any(e["method"] == "Page.fileChooserOpened" for e in opened.events), "a choice of files")
    opened.give("#files", tmp_path / "a.png")
    answers(opened, 1)
    opened.press("Tab")
    assert opened.run("document.activeElement.id") == "camera"
    opened.press(" ", " ")
    opened.wait_for("document.querySelectorAll('#live-bars data').length === 3")
    opened.press(" ", " ")
    opened.wait_for("document.getElementById('live').hidden")
    opened.press("Tab")
    assert opened.run("document.activeElement.id") == "clear"
    opened.press("Enter", "\r")
    assert opened.run("document.querySelectorAll('#answers > *').length") == 0
    assert opened.run("document.activeElement.id") == "choose"
    for _ in range(2):
        opened.press("Tab")
    assert opened.run("document.activeElement.tagName") == "SUMMARY"
    opened.press("Enter", "\r")
    assert opened.run("document.querySelector('details').open")


@needs_browser
def test_what_a_screen_reader_says(opened, tmp_path):
    drawn((60, 40)).save(tmp_path / "a.png")
    opened.give("#files", tmp_path / "a.png")
    answers(opened, 1)
    tree = opened.send("Accessibility.getFullAXTree")["nodes"]
    named = {(node["role"]["value"], node["name"]["value"]) for node in tree if node.get("name", {}).get("value")}
    assert {("button", "Choose images"), ("button", "Use the camera"), ("button", "Clear")} <= named
    assert {("heading", "What is in the image?"), ("heading", "a.png")} <= named
    assert ("image", "the part of a.png that is classified") in named
    roles = {node["role"]["value"] for node in tree}
    assert {"main", "contentinfo", "status", "list"} <= roles


# pixels ---------------------------------------------------------------------------------------------------------------


def pixels_of(page, module: str, call: str, encoded: bytes) -> np.ndarray | str:
    """uint8 (H, W, 3) of the image that a call in a module of the page gives for a file; the message of an error."""
    answer = page.run(
        f"""(async () => {{
            const module = await import("./{module}");
            const text = atob("{base64.b64encode(encoded).decode()}");
            const file = new Blob([Uint8Array.from(text, (letter) => letter.charCodeAt(0))]);
            try {{
                const {{width, height, channels, levels, note}} = await ({call})(module, file);
                let text = "";
                for (let i = 0; i < levels.length; i++) if (i % channels < 3) text += String.fromCharCode(levels[i]);
                return [width, height, btoa(text), note ?? ""];
            }} catch (error) {{ return error.message; }}
        }})()"""
    )
    if isinstance(answer, str):
        return answer
    width, height, text, note = answer
    pixels = np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 3)
    pixels_of.note = note
    return pixels


DECODE = """async (module, file) => {{
    const {{image, note}} = await module.decoded(file, {{grey_bits: {bits}, max_pixels: 1e6}});
    return {{...image, note}};
}}"""


@needs_browser
def test_every_kind_of_image_has_the_same_pixels_or_a_note_or_is_refused(tab, addresses):
    exact = 0
    with tab.page(addresses[FOLDER]) as page:
        page.wait_for(READY)
        for name, (encoded, _) in KEPT.items():
            found = pixels_of(page, "decoding.js", DECODE.format(bits=16), encoded)
            if name in REFUSED | TURNED:
                assert isinstance(found, str), name
                continue
            assert not isinstance(found, str), (name, found)
            difference = np.abs(decode(encoded, name).astype(int) - found).max()
            assert difference <= (20 if "20 of 255" in pixels_of.note else 1 if pixels_of.note else 0), name
            exact += not pixels_of.note
    assert exact > 70


@needs_browser
def test_browsers_other_than_chromium_get_notes_of_their_own(tab, addresses):
    """They blend transparency in other ways, and by how much is not known."""
    with tab.page() as page:
        page.send("Page.addScriptToEvaluateOnNewDocument", source="delete Navigator.prototype.userAgentData;")
        page.open(addresses[FOLDER])
        page.wait_for(READY)
        for name, noted in (("quality_50.jpg", False), ("colour_8.png", False), ("24.bmp", False)) + tuple(
            (name, True)
            for name in ("colour_8_alpha.png", "palette_4_alpha.png", "still.gif", "icc_p3.jpg", "plain.avif")
        ):
            pixels_of(page, "decoding.js", DECODE.format(bits=16), KEPT[name][0])
            assert ("Levels may differ, because this browser" in pixels_of.note) == noted, name
            assert "255" not in pixels_of.note
        refused = pixels_of(page, "decoding.js", DECODE.format(bits=16), KEPT["orientation_6.png"][0])
        assert "turned by EXIF" in str(refused)


@needs_browser
def test_other_scales_of_16_bits_and_huge_images_are_refused(tab, addresses):
    with tab.page(addresses[FOLDER]) as page:
        page.wait_for(READY)
        found = pixels_of(page, "decoding.js", DECODE.format(bits=12), KEPT["grey_16.png"][0])
        assert "of which the images of training used 12" in str(found)
        assert isinstance(pixels_of(page, "decoding.js", DECODE.format(bits=12), KEPT["grey_8.png"][0]), np.ndarray)
        file = io.BytesIO()
        Image.new("L", (1001, 1000)).save(file, "PNG")
        assert "1001×1000 pixels" in str(pixels_of(page, "decoding.js", DECODE.format(bits=16), file.getvalue()))


@needs_browser
@pytest.mark.parametrize("mode", RESIZES)
def test_every_resize_is_that_of_pillow(mode, tab, addresses):
    generator = np.random.default_rng(0)
    sides = [*(tuple(map(int, generator.integers(1, 400, 2))) for _ in range(30)), (64, 64), (300, 20), (3, 500)]
    with tab.page(addresses[FOLDER]) as page:
        page.wait_for(READY)
        for number, (width, height) in enumerate(sides):
            image, size = drawn((width, height), number), (64, 75, 299)[number % 3]
            file = io.BytesIO()
            image.save(file, "PNG")
            call = f"""async (module, file) => module.resized((await (await import("./decoding.js")).decoded(
                file, {{grey_bits: 16, max_pixels: 1e6}})).image, {size}, "{mode}")"""
            found = pixels_of(page, "pixels.js", call, file.getvalue())
            expected = resize(np.asarray(image), size, mode=mode)
            assert np.array_equal(found, expected), (width, height, size)


@needs_browser
@pytest.mark.parametrize("changed", [False, True])
def test_a_browser_that_changes_what_is_read_is_found_out(changed, tab, addresses):
    with tab.page() as page:
        source = """const read = CanvasRenderingContext2D.prototype.getImageData;
            CanvasRenderingContext2D.prototype.getImageData = function (...box) {
                const found = read.apply(this, box);
                found.data[4] ^= 1;
                return found;
            };"""
        page.send("Page.addScriptToEvaluateOnNewDocument", source=source if changed else "")
        page.open(addresses[FILE])
        page.wait_for(READY)
        assert ("less exact" in page.run("document.getElementById('warning').textContent")) == changed


# what is in a page ----------------------------------------------------------------------------------------------------


@needs_browser
@pytest.mark.parametrize("kind", [FOLDER, FILE])
def test_nothing_can_be_sent(kind, tab, addresses, tmp_path):
    sent = """(async () => {
        const image = new Image();
        const shown = new Promise((resolve) => {
            image.onload = () => resolve(true);
            image.onerror = () => resolve(false);
        });
        image.src = "%s?image";
        const fetched = await fetch("%s?fetch", {mode: "no-cors"}).then(() => true, () => false);
        navigator.sendBeacon("%s?beacon", "x");
        const code = "fetch('%s?worker', {mode: 'no-cors'}).then(() => postMessage(true), () => postMessage(false))";
        const worker = new Worker(URL.createObjectURL(new Blob([code])));
        return [fetched, await shown, (await new Promise((resolve) => (worker.onmessage = resolve))).data];
    })()"""
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    asked: list[str] = []
    with browser.served(tmp_path, asked) as elsewhere, tab.page(addresses[kind]) as page:
        page.wait_for(READY)
        address = f"{elsewhere}a.png"
        assert page.run(sent % (address, address, address, address)) == [False, False, False]
        assert sum("Content Security Policy" in text for text in page.complaints()) >= 3
        assert asked == []


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_hostile_names_are_shown_as_they_are(dark, tab, runtime, tmp_path):
    classifier = classifier_of(classes=HOSTILE_NAMES)
    described = export(classifier, tmp_path / "a.html", format="web", runtime=runtime, single_file=True)
    drawn((60, 40)).save(tmp_path / "<b>a'.png")
    with tab.page((tmp_path / "a.html").as_uri(), width=360, height=800, phone=True, dark=dark) as page:
        page.wait_for(READY)
        page.give("#files", tmp_path / "<b>a'.png")
        (found,) = answers(page, 1)
        assert page.complaints() == []
        assert found["file"] == "<b>a'.png"
        assert len(found["classes"]) == 5
        assert set(found["classes"]) <= set(HOSTILE_NAMES)
        assert page.run("JSON.parse(document.getElementById('description').textContent)") == described
        assert page.run("document.documentElement.scrollWidth") <= 360
        named = page.run("[...document.querySelectorAll('#classes li')].map((each) => each.textContent)")
        assert named == list(HOSTILE_NAMES)
        assert page.run("document.scripts.length") == 2, "the description and the program; the kept files are gone"
        background = page.run("getComputedStyle(document.body).backgroundColor")
        assert (int(re.findall(r"\d+", background)[0]) < 60) == dark


@needs_browser
def test_a_folder_opened_as_a_file_says_what_to_do(tab, exports):
    with tab.page((exports[FOLDER] / "index.html").as_uri()) as page:
        text = page.wait_for("document.getElementById('status')?.textContent")
        assert "python -m http.server" in text
        assert "--single-file" in text


def test_a_page_has_its_licences_and_its_policy(exports):
    file, folder = exports[FILE].read_text(), exports[FOLDER]
    for text in (file, (folder / "index.html").read_text()):
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
        assert policy.startswith("default-src 'none'; ")
        assert "http" not in policy
        assert "unsafe-inline" not in policy
        assert "'unsafe-eval'" not in policy
        assert "Nothing is uploaded." in text
        assert "Copyright (c) Microsoft Corporation" in text
        assert not re.findall(r'(?:src|href)="(?!data:,|main\.js|shared\.css|style\.css)[^"]*"', text)
    assert "connect-src" not in re.search(r'Content-Security-Policy" content="([^"]*)"', file)[1]
    assert "MIT License" in (folder / "onnxruntime-LICENSE.txt").read_text()
    assert {each.name for each in folder.iterdir()} == {
        *(
            "index.html",
            *pages.STYLES,
            "model.onnx",
            "onnxruntime-LICENSE.txt",
            *pages.SCRIPTS,
            pages.WORKER,
            runtimes.PROGRAM,
        )
    }


def test_a_script_that_would_end_its_element_is_refused():
    with pytest.raises(Exception, match="</script"):
        pages.for_script("const text = '</SCRIPT>';")


def graph_in(page: Path) -> onnx.GraphProto:
    """The network in a page of one file."""
    text = re.search(r'id="model\.onnx">(.*?)</script>', page.read_text())[1]
    return onnx.load_from_string(gzip.decompress(base64.b64decode(text))).graph


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_smaller_weights(weights, runtime, classifier, exports, tmp_path):
    options = {"format": "web", "weights": weights, "runtime": runtime, "single_file": True, "accept": True}
    found = export(classifier, tmp_path / "a.html", **options)
    assert found["weights"] == weights
    kinds = [{each.data_type for each in graph_in(path).initializer} for path in (tmp_path / "a.html", exports[FILE])]
    assert [getattr(onnx.TensorProto, weights.upper()) in each for each in kinds] == [True, False]


# the runtime ----------------------------------------------------------------------------------------------------------


def test_without_npm_the_error_names_the_flag(classifier, tmp_path, monkeypatch, empty_cache):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"npm, which is not installed.*--runtime PATH"):
        export(classifier, tmp_path / "page", format="web")
    assert not list(tmp_path.iterdir())


def test_another_runtime_is_refused(classifier, runtime, tmp_path):
    copy = shutil.copytree(runtime, tmp_path / "package" / "dist")
    (copy / runtimes.SCRIPT).write_bytes((copy / runtimes.SCRIPT).read_bytes() + b" ")
    for path, reason in ((tmp_path, "is not that of"), (tmp_path / "none.tgz", "cannot be read"), (copy.parent, "not")):
        with pytest.raises(ConfigError, match=rf"--runtime .*{reason}.*{runtimes.PACKAGE}"):
            export(classifier, tmp_path / "page", format="web", runtime=path)
    assert not (tmp_path / "page").exists()


@pytest.mark.slow
def test_a_runtime_by_path_and_by_cache(runtime, tmp_path, monkeypatch):
    shutil.copytree(runtime, tmp_path / "package" / "dist")
    archive = shutil.make_archive(str(tmp_path / "a"), "gztar", tmp_path, "package")
    for path in (tmp_path, tmp_path / "package", runtime, Path(archive)):
        assert set(runtimes.runtime(path)) == set(runtimes.HASHES)
    monkeypatch.setenv("JAXCAT_CACHE", str(runtime.parent.parent))
    monkeypatch.setenv("PATH", "")
    assert web.with_options().runtime == runtimes.runtime(runtime)


def test_options_of_other_formats_are_refused(classifier, tmp_path):
    with pytest.raises(ConfigError, match="--single-file: --format onnx does not take it; web does"):
        export(classifier, tmp_path / "a.onnx", format="onnx", single_file=True)
    with pytest.raises(ConfigError, match=r"NAME\.html"):
        export(classifier, tmp_path / "a", format="web", single_file=True)


def test_the_description_in_the_network_is_that_of_the_page(exports):
    (entry,) = onnx.load(exports[FOLDER] / "model.onnx").metadata_props
    text = re.search(r'id="description">(.*?)</script>', (exports[FOLDER] / "index.html").read_text(), re.DOTALL)[1]
    assert json.loads(entry.value) == json.loads(text)
    assert tuple(json.loads(text)["classes"]) == CLASSES
