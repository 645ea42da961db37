"""Answers averaged over several views of each image: which views, the mean, its files, and what refuses it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import small
from PIL import Image
from scipy.special import logsumexp
from small_export import classifier_of
from test_exact_run import TINY

import jaxcat
from jaxcat import evaluate, predict
from jaxcat.data.images.resizing import resize
from jaxcat.data.store import Store
from jaxcat.errors import ConfigError
from jaxcat.inference import evaluation
from jaxcat.inference.averaged import AVERAGES, Average, StoreOfViews, View
from jaxcat.inference.classifier import Classifier
from jaxcat.inference.evaluation import name_of, open_split, open_store
from jaxcat.inference.litert import LiteRTComputation
from jaxcat.system.console import Console

NAMES = ("mirrored", "five_crops", "ten_crops")
# Pixels that the network sees: those that crops are taken from (32 · 8 / 7 is 36.57, 75 · 8 / 7 is 85.71), where the
# last crop begins, and the one in the middle.
CROPS = {32: (37, 5, 2), 75: (86, 11, 6)}
pytestmark = pytest.mark.usefixtures("cache_of_this_file")


def views_by_hand(image: np.ndarray, name: str, size: int = 32) -> list[np.ndarray]:
    """The views of an image of any size, as docs/test_time_augmentation.md describes them."""
    if name == "mirrored":
        whole = resize(image, size, mode="squash")
        return [whole, np.fliplr(whole)]
    enlarged, end, middle = CROPS[size]
    large = resize(image, enlarged, mode="squash")
    corners = [large[:size, :size], large[:size, end:], large[end:, :size], large[end:, end:]]
    five = [*corners, large[middle : middle + size, middle : middle + size]]
    return five if name == "five_crops" else [*five, *map(np.fliplr, five)]


def drawn(count: int) -> list[np.ndarray]:
    """Images of uneven sizes."""
    generator = np.random.default_rng(5)
    sides = [(61, 47), (40, 93), (37, 37), (32, 32), (20, 25)]
    return [np.asarray(small.draw("square", generator).resize(sides[number % 5])) for number in range(count)]


@pytest.fixture(scope="module")
def run(folder, cache, tmp_path_factory) -> Path:
    """A solved head of two classes, so with one logit, on bottlenecks of LiteRT."""
    workdir = tmp_path_factory.mktemp("run")
    settings = {"model.pool_from": "block2", "model.cut": "block4", "optim.penalty": 0.6}
    settings |= {**TINY, "data.dir": folder, "bottleneck.engine": "litert_float32"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXCAT_CACHE", str(cache))
        jaxcat.fit("folder", workdir, settings=settings)
    return workdir


def check_means(classifier: Classifier, name: str) -> None:
    images = drawn(7)
    views = [views_by_hand(image, name, classifier.config.data.image_size) for image in images]
    expected = [np.mean(classifier.predict(of_image), axis=0) for of_image in views]
    found = classifier.predict(images, average_over=name)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert np.abs(found - classifier.predict(images)).max() > 1e-3
    in_threes = classifier.predict(images, average_over=name, batch_size=3)
    np.testing.assert_allclose(in_threes, expected, rtol=0, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_answer_is_the_mean_of_the_probabilities_of_the_views(run, name):
    check_means(jaxcat.load(run), name)


@pytest.mark.slow
def test_so_it_is_with_jax_several_logits_and_a_temperature_that_divides_them_before_the_mean():
    check_means(classifier_of(classes=("a", "b", "c"), temperature=3.0), "ten_crops")


@pytest.mark.slow
def test_the_original_is_the_default_and_no_images_have_no_answers(run):
    classifier, images = jaxcat.load(run), drawn(3)
    np.testing.assert_array_equal(classifier.predict(images, average_over="original"), classifier.predict(images))
    assert classifier.predict([], average_over="ten_crops").shape == (0, 2)
    assert len(list(classifier.predict_pixels(map(classifier.prepare, drawn(7)), batch_size=3))) == 3


def test_logarithms_are_those_of_the_means_even_of_probabilities_that_are_zero_in_float64():
    rows = np.array([[-2000.0, -1.0, 0.0], [-2001.0, -3.0, -0.1], [-5.0, -1.0, -1.0], [-7.0, -1.0, -2.0]])
    expected = [logsumexp(rows[:2], axis=0) - np.log(2), logsumexp(rows[2:], axis=0) - np.log(2)]
    np.testing.assert_allclose(AVERAGES["mirrored"].log_means(rows), expected, rtol=1e-12)
    np.testing.assert_array_equal(AVERAGES["original"].log_means(rows), rows)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "name"), [("xla", "five_crops"), ("litert_float32", "mirrored")])
def test_an_evaluation_has_files_of_its_own_with_each_image_once(run, tmp_path, engine, name, capsys):
    command = ["--workdir", str(run), "--results-dir", str(tmp_path), "--batch-size", "5", "--engine", engine]
    assert evaluate.main(command) == 0
    plain = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert evaluate.main([*command, "--average-over", name]) == 0
    assert all((tmp_path / file).read_bytes() == content for file, content in plain.items())
    assert f"{AVERAGES[name].passes} passes through the network" in capsys.readouterr().out
    figures = json.loads((tmp_path / f"validation-{name}.json").read_text())
    assert (figures["average_over"], figures["engine"]) == (name, engine)
    assert "average_over" not in json.loads(plain["validation.json"])
    with open(tmp_path / f"validation-{name}.predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    classifier = jaxcat.load(run, engine=engine)
    split = open_split(classifier, split="validation")
    assert [row["file"] for row in rows] == list(split.files)
    assert figures["count"] == len(split) == 12
    views = [views_by_hand(split.fetch(number), name) for number in range(12)]
    expected = np.array([np.mean(classifier.predict(of_image), axis=0) for of_image in views])
    written = np.array([[float(row[other]) for other in classifier.classes] for row in rows])
    np.testing.assert_allclose(written, expected, rtol=0, atol=3e-6)
    assert figures["loss"] == pytest.approx(-np.log(expected[np.arange(12), split.labels]).mean(), rel=1e-4)
    assert figures["accuracy"] == np.mean(expected.argmax(axis=1) == split.labels)


@pytest.mark.slow
def test_a_new_choice_is_one_row(run, monkeypatch):
    """The example of docs/contributing.md: a single view, of which the cache has no bottlenecks."""
    monkeypatch.setitem(AVERAGES, "middle", Average("the middle", (View(0.5, 0.5),), 8 / 7))
    classifier, console = jaxcat.load(run), Console(quiet=True)
    store = open_store(classifier, open_split(classifier, split="validation"), console=console, average_over="middle")
    middles = [views_by_hand(store.split.fetch(number), "five_crops")[4] for number in range(12)]
    found = evaluation.evaluate(classifier, store, average_over="middle")
    np.testing.assert_allclose(np.exp(found), classifier.predict(middles), rtol=0, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("gigabytes", [1.0, 0.0])
def test_views_are_gathered_by_number_and_an_image_is_decoded_once_for_all_of_its_own(run, gigabytes, monkeypatch):
    split = open_split(jaxcat.load(run), split="validation")
    store = Store(split, size=37, mode="squash", cache_gb=gigabytes)
    store.prepare()
    views, fetched, fetch = StoreOfViews(store, AVERAGES["ten_crops"], size=32), [], type(split).fetch
    monkeypatch.setattr(type(split), "fetch", lambda self, number: fetched.append(number) or fetch(self, number))
    found = views.gather(np.array([79, 3, 70, 0, 3]))  # 79 is the last view of record 7
    assert sorted(fetched) == ([] if gigabytes else [0, 7])
    first, eighth = (views_by_hand(fetch(split, number), "ten_crops") for number in (0, 7))
    np.testing.assert_array_equal(found, [eighth[9], first[3], eighth[0], first[0], first[3]])
    assert len(views) == 120
    np.testing.assert_array_equal(views.split.labels, np.repeat(split.labels, 10))


@pytest.mark.slow
def test_predict_prints_the_means_and_says_the_cost(run, tmp_path, capsys):
    files = [tmp_path / f"{number}.png" for number in range(5)]
    for path, image in zip(files, drawn(5), strict=True):
        Image.fromarray(image).save(path)
    files[2].write_bytes(b"no image")
    command = ["--workdir", str(run), "--average-over", "ten_crops", "--batch-size", "2", *map(str, files)]
    assert predict.main(command) == 1
    output = capsys.readouterr()
    assert "10 passes through the network" in output.err
    found = [dict(json.loads(line)["top"]) for line in output.out.splitlines()]
    classifier = jaxcat.load(run)
    expected = classifier.predict([*files[:2], *files[3:]], average_over="ten_crops")
    np.testing.assert_allclose([[row[name] for name in classifier.classes] for row in found], expected, atol=1e-5)


@pytest.mark.parametrize("flag", ["--features=a.npy", "--explain=maps"])
def test_features_and_heat_maps_are_of_one_view(flag, capsys):
    with pytest.raises(SystemExit) as ended:
        predict.main(["--workdir", "run", "a.png", flag, "--average-over", "mirrored"])
    assert ended.value.code == 2
    assert "leave --average-over mirrored out" in capsys.readouterr().err


@pytest.mark.slow
def test_another_name_is_refused(run):
    with pytest.raises(ConfigError, match="average_over=miror: must be one of .* did you mean mirrored"):
        jaxcat.load(run).predict(drawn(1), average_over="miror")
    with pytest.raises(ConfigError, match="average_over=None: must be one of "):
        jaxcat.load(run).predict(drawn(1), average_over=None)


def test_the_figures_of_a_folder_are_never_those_of_an_average(tmp_path):
    assert name_of(tmp_path / "birds") == "birds"
    assert name_of(tmp_path / "birds-Mirrored") != "birds-Mirrored"
    assert name_of(tmp_path / "birds-Mirrored").startswith("birds-Mirrored-")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pays"), [("mirrored", False), ("ten_crops", True)])
def test_whether_a_conversion_pays_is_asked_of_the_number_of_passes(run, monkeypatch, name, pays):
    class Asked(Exception):
        """In place of a converted prefix."""

    def asked(_, *, convert, console):
        raise Asked(convert)

    monkeypatch.setattr("jaxcat.inference.choice.LEAST_RECORDS", 20)
    monkeypatch.setattr(LiteRTComputation, "open", asked)
    with pytest.raises(Asked, match=str(pays)):
        jaxcat.load(run).predict(drawn(3), average_over=name)
