"""Answers averaged over several views of each image: which views, the mean, its files, and what refuses it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import small
from PIL import Image
from test_exact_run import TINY

import jaxcat
from jaxcat import evaluate, predict
from jaxcat.data.images.resizing import resize
from jaxcat.data.store import Store
from jaxcat.errors import ConfigError
from jaxcat.inference.averaged import AVERAGES, StoreOfViews
from jaxcat.inference.evaluation import name_of, open_split
from jaxcat.system.console import Console

SIZE, ENLARGED = 32, 37  # 32 · 8 / 7 is 36.57
pytestmark = pytest.mark.usefixtures("cache_of_this_file")


def views_by_hand(image: np.ndarray, name: str) -> list[np.ndarray]:
    """The views of an image of any size as the documentation describes them, for a network that sees 32 pixels."""
    if name == "mirrored":
        whole = resize(image, SIZE, mode="squash")
        return [whole, np.fliplr(whole)]
    large = resize(image, ENLARGED, mode="squash")
    five = [large[:32, :32], large[:32, 5:], large[5:, :32], large[5:, 5:], large[2:34, 2:34]]
    return five if name == "five_crops" else [*five, *map(np.fliplr, five)]


def drawn(count: int) -> list[np.ndarray]:
    """Images of uneven sizes."""
    generator = np.random.default_rng(5)
    sides = [(61, 47), (40, 93), (37, 37), (32, 32), (20, 25)]
    return [np.asarray(small.draw("square", generator).resize(sides[number % 5])) for number in range(count)]


@pytest.fixture(scope="module")
def runs(cache, tmp_path_factory) -> dict[str, Path]:
    """Solved heads: of two classes on bottlenecks of XLA, so with one logit, and of three on those of LiteRT."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXCAT_CACHE", str(cache))
        for engine, classes in (("xla", 2), ("litert_float32", 3)):
            data = small.image_folder(root / f"images of {engine}", validation=5, classes=small.SHAPES[:classes])
            settings = {"model.pool_from": "block2", "model.cut": "block4", "optim.penalty": 0.6}
            settings |= {**TINY, "data.dir": data, "bottleneck.engine": engine}
            jaxcat.fit("folder", root / engine, settings=settings)
    return {engine: root / engine for engine in ("xla", "litert_float32")}


@pytest.mark.parametrize("name", AVERAGES.keys() - {"original"})
@pytest.mark.parametrize("engine", ["xla", "litert_float32"])
def test_the_answer_is_the_mean_of_the_probabilities_of_the_views(runs, engine, name):
    classifier, images = jaxcat.load(runs[engine]), drawn(7)
    by_view = [classifier.predict(views_by_hand(image, name)) for image in images]
    found = classifier.predict(images, average_over=name)
    np.testing.assert_allclose(found, [np.mean(rows, axis=0) for rows in by_view], rtol=0, atol=1e-6)
    assert np.abs(found - classifier.predict(images)).max() > 1e-3
    in_threes = classifier.predict(images, average_over=name, batch_size=3)
    np.testing.assert_allclose(in_threes, found, rtol=0, atol=1e-6)
    assert len(list(classifier.predict_pixels(map(classifier.prepare, images), batch_size=3))) == 3


def test_the_original_is_the_default_and_no_images_have_no_answers(runs):
    classifier, images = jaxcat.load(runs["litert_float32"]), drawn(3)
    np.testing.assert_array_equal(classifier.predict(images, average_over="original"), classifier.predict(images))
    assert classifier.predict([], average_over="ten_crops").shape == (0, 3)


@pytest.mark.parametrize(("engine", "name"), [("xla", "five_crops"), ("litert_float32", "mirrored")])
def test_an_evaluation_has_files_of_its_own_with_each_image_once(runs, tmp_path, engine, name, capsys):
    command = ["--workdir", str(runs[engine]), "--results-dir", str(tmp_path), "--batch-size", "4"]
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
    classifier = jaxcat.load(runs[engine])
    split = open_split(classifier, split="validation")
    assert [row["file"] for row in rows] == list(split.files)
    assert figures["count"] == len(split) == 5 * len(classifier.classes)
    views = [views_by_hand(split.fetch(number), name) for number in range(len(split))]
    expected = np.array([np.mean(classifier.predict(of_image), axis=0) for of_image in views])
    written = np.array([[float(row[other]) for other in classifier.classes] for row in rows])
    np.testing.assert_allclose(written, expected, rtol=0, atol=2e-6)
    of_labels = expected[np.arange(len(split)), split.labels]
    assert figures["loss"] == pytest.approx(-np.log(of_labels).mean(), rel=1e-4)
    assert figures["accuracy"] == np.mean(expected.argmax(axis=1) == split.labels)


@pytest.mark.parametrize("gigabytes", [1.0, 0.0])
def test_views_are_gathered_by_number_and_an_image_is_decoded_once_for_all_of_its_own(runs, gigabytes, monkeypatch):
    classifier = jaxcat.load(runs["xla"])
    split = open_split(classifier, split="validation")
    store = Store(split, size=ENLARGED, mode="squash", cache_gb=gigabytes)
    store.prepare()
    views, fetched, fetch = StoreOfViews(store, AVERAGES["ten_crops"], size=SIZE), [], type(split).fetch
    monkeypatch.setattr(type(split), "fetch", lambda self, number: fetched.append(number) or fetch(self, number))
    found = views.gather(np.array([79, 3, 70, 0, 3]))  # 79 is the last view of record 7
    assert sorted(fetched) == ([] if gigabytes else [0, 7])
    first, eighth = (views_by_hand(fetch(split, number), "ten_crops") for number in (0, 7))
    np.testing.assert_array_equal(found, [eighth[9], first[3], eighth[0], first[0], first[3]])
    assert len(views) == 100
    np.testing.assert_array_equal(views.split.labels, np.repeat(split.labels, 10))


def test_predict_prints_the_means_and_says_the_cost(runs, tmp_path, capsys):
    files = [tmp_path / f"{number}.png" for number in range(5)]
    for path, image in zip(files, drawn(5), strict=True):
        Image.fromarray(image).save(path)
    (tmp_path / "2.png").write_bytes(b"no image")
    run = ["--workdir", str(runs["litert_float32"]), "--average-over", "ten_crops", "--batch-size", "2"]
    assert predict.main([*run, *map(str, files)]) == 1
    output = capsys.readouterr()
    assert "10 passes through the network" in output.err
    rows = [json.loads(line) for line in output.out.splitlines()]
    classifier = jaxcat.load(runs["litert_float32"])
    expected = classifier.predict([files[number] for number in (0, 1, 3, 4)], average_over="ten_crops")
    found = [[dict(row["top"])[name] for name in classifier.classes] for row in rows]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("flag", ["--features=a.npy", "--explain=maps"])
def test_features_and_heat_maps_are_of_one_view(flag, capsys):
    with pytest.raises(SystemExit) as ended:
        predict.main(["--workdir", "run", "a.png", flag, "--average-over", "mirrored"])
    assert ended.value.code == 2
    assert "leave --average-over mirrored out" in capsys.readouterr().err


def test_another_name_is_refused(runs):
    with pytest.raises(ConfigError, match="average_over=miror: must be one of .* did you mean mirrored"):
        jaxcat.load(runs["litert_float32"]).predict(drawn(1), average_over="miror")


def test_the_figures_of_a_folder_are_never_those_of_an_average(tmp_path):
    assert name_of(tmp_path / "birds") == "birds"
    assert name_of(tmp_path / "birds-Mirrored") != "birds-Mirrored"
    assert name_of(tmp_path / "birds-Mirrored").startswith("birds-Mirrored-")


def test_the_engine_is_chosen_for_the_number_of_passes(runs, tmp_path, monkeypatch):
    """Without a converted prefix in the cache, LiteRT is worth it for many passes only, whatever their images are."""
    monkeypatch.setattr("jaxcat.inference.choice.LEAST_RECORDS", 20)
    chosen = []
    for name in ("mirrored", "ten_crops"):
        monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path / name))
        classifier = jaxcat.load(shutil.copytree(runs["litert_float32"], tmp_path / f"run {name}"))
        classifier.predict(drawn(3), average_over=name)
        chosen.append(classifier.engine.computation(console=Console(quiet=True)).engine)
    assert chosen == ["xla", "litert_float32"]
