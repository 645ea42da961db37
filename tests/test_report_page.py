"""The page in a headless Chromium: from file://, by mouse and keyboard, in dark and light, wide and narrow."""

from __future__ import annotations

import contextlib
from pathlib import Path

import axe
import browser
import numpy as np
import pytest
from PIL import Image
from small import draw
from small_export import classifier_of
from test_escaping import NAMES

from jaxcat.data.records import Split
from jaxcat.report.contents import SECTIONS
from jaxcat.report.making import Request, measured
from jaxcat.report.page import write
from jaxcat.wording import printable

pytestmark = pytest.mark.skipif(not browser.FOUND, reason=browser.LACKING)
CLASSES = ("disc", "square", "cross")
MANY = 40


def made(folder: Path, classes: tuple[str, ...], files: list[str]) -> tuple[Path, object]:
    """A page about drawn images, as many as there are files, and its context."""
    generator = np.random.default_rng(0)
    images = [np.asarray(draw(CLASSES[i % 3], generator)) for i in range(len(files))]
    labels = np.arange(len(files), dtype=np.int32) % len(classes)
    split = Split("test", tuple(files), labels, lambda i: images[i])
    classifier = classifier_of(classes=classes, data__source="digits")  # whose data are in a package
    context = measured(classifier, split, Request(folder / "run", top=14))
    sections = [each for each in (section_of(context) for section_of in SECTIONS) if each]
    return write(folder, context, sections), context


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return made(tmp_path_factory.mktemp("few"), CLASSES, [f"{i}.png" for i in range(60)])


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Hundreds of classes would be slower, and are shown in the same way."""
    names = (*(f"class {i}" for i in range(MANY)), *NAMES)
    return made(tmp_path_factory.mktemp("many"), names, [f"{NAMES[i % len(NAMES)]}{i}" for i in range(2 * len(names))])


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    return axe.source(tmp_path_factory.getbasetemp())


@pytest.fixture
def opened(tab):
    """Opens a page; at its end the console is empty, and nothing was asked for but the page."""
    with contextlib.ExitStack() as stack:
        pages = []

        def open_page(path: Path, **screen):
            page = stack.enter_context(tab.page(path.as_uri(), **screen))
            page.wait_for("document.readyState === 'complete' && typeof showImages === 'function'")
            pages.append((page, path))
            return page

        yield open_page
        for page, path in pages:
            assert page.complaints() == []
            assert [each for each in page.requests() if not each.startswith("data:")] == [path.as_uri()]


def test_a_cell_shows_its_images(few, opened):
    path, context = few
    page = opened(path)
    confusion = np.array(context.summary["confusion"])
    shown = page.run("[...document.querySelectorAll('.matrix .cell')].map((cell) => Number(cell.textContent))")
    assert shown == confusion[confusion > 0].tolist()
    label, answer = np.argwhere(confusion > 0)[-1]
    chosen = f'document.querySelector(\'.matrix [data-label="{label}"][data-answer="{answer}"]\')'
    page.run(f"{chosen}.click()")
    names = page.wait_for("[...document.querySelectorAll('#cell .file')].map((each) => each.textContent)")
    expected = [
        file
        for file, one, other in zip(context.files, context.labels, context.predicted, strict=True)
        if (one, other) == (label, answer)
    ]
    assert sorted(names) == sorted(expected)[: len(names)]
    assert len(names) == min(24, len(expected))
    loaded = "[...document.querySelectorAll('#cell img')].every((image) => image.complete && image.naturalWidth > 20)"
    page.wait_for(loaded)
    assert page.run("document.activeElement.id") == "cell-title"
    page.run("document.querySelector('#cell .close').click()")
    assert page.run(f"document.getElementById('cell').hidden && document.activeElement === {chosen}")


def test_a_thumbnail_is_the_image_of_its_record(few, opened):
    path, context = few
    page = opened(path)
    page.run("document.querySelector('.matrix .cell').click()")
    number = int(page.run("document.querySelector('#cell img').dataset.image"))
    pixels = page.wait_for(
        """(() => { const image = document.querySelector('#cell img');
        if (!image.complete || !image.naturalWidth) return null;
        const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight).getContext('2d');
        canvas.drawImage(image, 0, 0);
        return [image.naturalWidth, image.naturalHeight,
            ...canvas.getImageData(0, 0, image.naturalWidth, image.naturalHeight).data]; })()"""
    )
    found = np.array(pixels[2:]).reshape(pixels[1], pixels[0], 4)[..., :3]
    assert np.abs(found - context.split.fetch(number).astype(int)).mean() < 25  # JPEG of noise
    others = [np.abs(found - context.split.fetch(i).astype(int)).mean() for i in range(20) if i != number]
    assert np.abs(found - context.split.fetch(number).astype(int)).mean() < min(others)


def test_the_toggle_shows_image_map_or_both(few, opened):
    page = opened(few[0])
    visible = "[...document.querySelectorAll('.card .stack img')].map((each) => getComputedStyle(each).visibility)"
    seen = {}
    for view in ("both", "image", "heat"):
        page.run(f"document.querySelector('input[value={view}]').click()")
        seen[view] = page.run(visible)
    assert set(seen["both"]) == {"visible"}
    assert set(seen["image"][::2]) == set(seen["heat"][1::2]) == {"visible"}
    assert set(seen["image"][1::2]) == set(seen["heat"][::2]) == {"hidden"}
    page.wait_for("[...document.querySelectorAll('.stack img')].every((each) => each.naturalWidth > 0)")


def test_a_list_opens(few, opened):
    page = opened(few[0])
    hidden = "[...document.querySelectorAll('#losses > li')].filter((each) => !each.offsetParent).length"
    assert page.run(hidden) == 2
    page.run("document.querySelector('#losses + .buttons button').click()")
    assert page.run(hidden) == 0


def test_many_classes_are_paged_and_found(many, opened):
    path, context = many
    page = opened(path)
    rows = "[...document.querySelectorAll('[data-what=classes] tbody tr')].filter((each) => each.offsetParent).length"
    assert page.run(rows) == 20
    for name in ("class 7", printable(NAMES[0])):
        page.run(
            "(() => { const found = document.querySelector('[data-what=classes] input');"
            f"found.value = {name!r}; found.dispatchEvent(new Event('input')); }})()"
        )
        assert 1 <= page.run(rows) < 20
    first = page.run("document.querySelector('[data-what=mistakes] .cell').dataset.count")
    confusion = np.array(context.summary["confusion"])
    assert int(first) == (confusion * (1 - np.eye(len(confusion), dtype=int))).max()


def test_names_are_shown_and_nothing_runs(many, opened):
    page = opened(many[0])
    page.run("document.querySelectorAll('button').forEach((button) => button.className === 'later' || button.click())")
    shown = set(
        page.run("[...document.querySelectorAll('[data-what=classes] th bdi')].map((each) => each.textContent)")
    )
    assert shown == set(many[1].classes)
    assert {printable(name) for name in NAMES} <= shown
    assert page.run("document.querySelectorAll('script:not([type])').length") == 1
    assert page.run("document.querySelectorAll('img[onerror], [onmouseover], bdi *').length") == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("which", ["few", "many"])
def test_nothing_serious_for_those_who_cannot_see_or_point(which, dark, opened, script, request):
    page = opened(request.getfixturevalue(which)[0], dark=dark)
    page.run("document.querySelector('button.cell').click()")
    page.run("document.querySelector('.reading').append(Object.assign(document.createElement('img'), {src: 'data:,'}))")
    (told,) = axe.problems(page, script)
    assert told.startswith("image-alt, "), "axe-core tells what is wrong, and that nothing else is"
    assert told.endswith(": ['<img src=\"data:,\">']")


def test_keyboard(few, opened):
    page = opened(few[0])
    page.run("document.querySelector('.matrix .cell').focus()")
    page.press("Enter", "\r")
    page.wait_for("!document.getElementById('cell').hidden")
    page.run("document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}))")
    assert page.run("document.getElementById('cell').hidden")
    assert page.run("document.activeElement.matches('.matrix .cell')")


def test_the_map_shows_what_the_pointer_is_on(few, opened):
    path, context = few
    page = opened(path)
    page.run("document.getElementById('map-plot').scrollIntoView({block: 'center', behavior: 'instant'})")
    points = page.run("island('map-points').points")
    x, y, number, *_, file = points[7]
    place = page.run(
        f"""(() => {{ const found = new DOMPoint({x}, {y}).matrixTransform(
        document.querySelector('#map-plot svg').getScreenCTM()); return [found.x, found.y]; }})()"""
    )
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    page.wait_for("document.querySelector('#map-shown img').naturalWidth > 20")
    said = page.run("document.getElementById('map-said').textContent")
    assert said.endswith(file)
    assert file == context.files[number]
    assert context.classes[context.predicted[number]] in said
    page.run("document.getElementById('map-plot').focus()")
    also_said = set()
    for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"):
        page.run(
            f"document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}', cancelable: true}}))"
        )
        also_said.add(page.run("document.getElementById('map-said').textContent"))
    assert also_said - {said}, "they lead to other points, though the last may be the first again"
    wrong = page.run("document.querySelectorAll('#map-plot svg > path').length")
    assert wrong == np.sum(~context.correct)


def test_arrow_keys_move_on_the_map_in_their_direction(few, opened):
    page = opened(few[0])
    ring = "document.getElementById('map-ring')"
    page.run("document.getElementById('map-plot').focus({preventScroll: true})")
    press = "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {{key: '{}', cancelable: true}}))"
    page.run(press.format("ArrowRight"))
    points = np.array([point[:2] for point in page.run("island('map-points').points")])
    for key, axis, sign in (
        *(("ArrowDown", "cy", 1), ("ArrowRight", "cx", 1), ("ArrowLeft", "cx", -1)),
        *(("ArrowUp", "cy", -1), ("ArrowRight", "cx", 1)),
    ):
        before = page.run(f"Number({ring}.getAttribute('{axis}'))")
        page.run(press.format(key))
        after = page.run(f"Number({ring}.getAttribute('{axis}'))")
        farthest = sign * np.max(sign * points[:, int(axis == "cy")])
        assert sign * (after - before) > 0 or before == after == farthest


def test_a_choice_of_images_makes_the_others_on_the_map_faint(few, opened):
    path, context = few
    page = opened(path)
    faint = "[...document.querySelectorAll('#map-plot svg > *')].map((mark) => mark.classList.contains('faint'))"
    for value, wanted in (("wrong", ~context.correct), ("1", context.labels == 1), ("", context.labels >= 0)):
        page.run(
            f"""(() => {{ const choice = document.getElementById('map-choice'); choice.value = '{value}';
            choice.dispatchEvent(new Event('change')); }})()"""
        )
        assert page.run(faint)[: len(context)] == [not each for each in wanted]


@pytest.mark.parametrize("which", ["few", "many"])
def test_a_phone_scrolls_in_one_direction(which, opened, request):
    page = opened(request.getfixturevalue(which)[0], width=360, height=740, phone=True)
    assert page.run("document.documentElement.scrollWidth") <= 360


def test_printed(few, opened, tmp_path):
    page = opened(few[0])
    assert len(page.send("Page.printToPDF")["data"]) > 10_000


def test_heat_lies_on_its_image(few, opened):
    """Both have the same shape, so that one covers the other."""
    page = opened(few[0])
    page.wait_for("[...document.querySelectorAll('.stack img')].every((each) => each.naturalWidth > 0)")
    shapes = page.run(
        "[...document.querySelectorAll('.stack img')].map((each) => each.naturalWidth / each.naturalHeight)"
    )
    assert shapes[::2] == pytest.approx(shapes[1::2], rel=0.02)
    assert isinstance(few[1].pictures.original(0), np.ndarray)
    assert Image.fromarray(few[1].pictures.original(0)).size == (90, 90)
