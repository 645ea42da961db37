"""Reports of tiny runs: the figures are those of evaluate, and what the page says of data, choices and origin is so."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import small
from ml_collections import ConfigDict
from PIL import Image
from small_export import classifier_of

from jaxcat import flags
from jaxcat.config import default, flatten
from jaxcat.data.records import Split
from jaxcat.errors import ConfigError
from jaxcat.evaluate import main as evaluate
from jaxcat.inference.classifier import load
from jaxcat.inference.evaluation import summarize
from jaxcat.models.completion import complete
from jaxcat.report import origins, plots, report
from jaxcat.report.__main__ import main
from jaxcat.report.judged import remarks
from jaxcat.report.making import Request, context_of, measured
from jaxcat.report.numbers import between, percent
from jaxcat.report.origins import shown_path, train_command
from jaxcat.report.sections import confusion, gallery
from jaxcat.runs.meta import read_meta
from jaxcat.system.console import Console
from jaxcat.train import train

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def page(finished) -> Path:
    return report(finished)


@pytest.fixture(scope="module")
def context(finished):
    return context_of(Request(finished), console=QUIET)


@pytest.fixture(scope="module")
def solved(tmp_path_factory) -> Path:
    """A finished run with an exact head, on data with test images."""
    root = small.image_folder(tmp_path_factory.mktemp("images"))
    generator = np.random.default_rng(1)
    for name in small.SHAPES[:2]:
        (root / "test" / name).mkdir(parents=True)
        for i in range(4):
            small.draw(name, generator).save(root / "test" / name / f"{i}.png")
    config, workdir = small.tiny_config(root), tmp_path_factory.mktemp("solved")
    config.update_from_flattened_dict(
        {"optim.name": "exact", "bottleneck.views": 1, "bottleneck.dtype": "float32", "model.pool": "avg_std"}
    )
    assert train(config, workdir) == 0
    return workdir


def island(page: Path, name: str):
    return json.loads(re.search(rf'id="{name}">(.*?)</script>', page.read_text(), re.DOTALL)[1])


# figures -------------------------------------------------------------------------------------------------------------


def test_the_figures_are_those_of_evaluate(finished, page, context):
    assert page == finished / "report" / "index.html"
    assert evaluate(["--workdir", str(finished)]) == 0
    expected = json.loads((finished / "evaluation" / "validation.json").read_text())
    figures = island(page, "figures")
    assert set(figures) == {"count", "accuracy", "loss", "auc", "calibration_error", "step", "engine"}
    for name, value in figures.items():
        assert value == pytest.approx(expected[name], rel=1e-5) if isinstance(value, float) else value == expected[name]
    assert percent(expected["accuracy"]) in page.read_text()
    assert context.summary["confusion"] == expected["confusion"]


@pytest.mark.slow
def test_of_bottlenecks_in_the_cache_the_figures_are_the_same_to_the_bit(solved):
    page = report(solved, split="validation")
    assert evaluate(["--workdir", str(solved), "--split", "validation"]) == 0
    expected = json.loads((solved / "evaluation" / "validation.json").read_text())
    found = island(page, "figures")
    assert found == {name: expected[name] for name in found}


@pytest.mark.slow
def test_test_images_are_taken_if_there_are_any(finished, solved):
    assert island(report(solved), "figures")["count"] == 8
    assert context_of(Request(solved), console=QUIET).name == "test"
    assert context_of(Request(finished), console=QUIET).name == "validation"


@pytest.mark.slow
def test_features_are_those_of_the_classifier(solved, context):
    for found in (context, context_of(Request(solved), console=QUIET)):
        images = [found.split.fetch(i) for i in range(len(found))]
        np.testing.assert_allclose(found.features(), found.classifier.features(images), rtol=1e-4, atol=1e-5)


def test_the_numbers_of_one_image(context):
    for number in range(len(context)):
        chances = context.classifier.predict([context.split.fetch(number)])[0]
        np.testing.assert_allclose(context.probabilities[number], chances, atol=1e-5)
        found = gallery.record(context, number)
        assert (found.file, found.right) == (context.split.files[number], chances.argmax() == context.labels[number])
        assert (found.sure, found.of_label) == pytest.approx((chances.max(), chances[context.labels[number]]), abs=1e-5)


def test_percents_are_never_rounded_to_all_or_nothing():
    assert [percent(share) for share in (0, 1e-6, 0.935, 0.99999, 1)] == [
        "0.0 %",
        "< 0.1 %",
        "93.5 %",
        "99.9 %",
        "100.0 %",
    ]
    assert between((0.91799, 0.94868)) == "95 % interval 91.8 to 94.9 %"


# lists ---------------------------------------------------------------------------------------------------------------


def test_the_lists_of_the_gallery(context):
    found = {each.identifier: each.numbers for each in gallery.chosen(context)}
    probabilities, labels = context.probabilities, context.labels
    own, best = probabilities[np.arange(len(labels)), labels], probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    assert found["losses"] == sorted(range(len(labels)), key=lambda i: own[i])[: context.top]
    assert found["unsure"] == sorted(range(len(labels)), key=lambda i: best[i])  # two classes: the margin is 2p - 1
    assert found["wrong"] == sorted(np.flatnonzero(~right).tolist(), key=lambda i: -best[i])
    assert found["right"] == sorted(np.flatnonzero(right).tolist(), key=lambda i: -best[i])


def test_a_cell_and_a_pair(context):
    counts = np.array([[5, 0, 2], [1, 3, 2], [0, 0, 0]])
    assert [pair[:3] for pair in confusion._pairs(counts)] == [(1, 2, 2), (0, 2, 2), (1, 0, 1)]
    assert [confusion._cell(counts, 0, j).shade for j in range(3)] == [5, 0, 3]


def test_of_many_images_those_are_embedded_that_tell_most(context, monkeypatch):
    monkeypatch.setattr(confusion, "MOST_IMAGES", 7)
    shown = confusion._shown(context)
    assert len(set(shown.tolist())) == 7
    wrong = np.flatnonzero(~context.correct)
    assert set(shown[:4]) <= set(wrong)
    assert set(context.labels[shown[4:]]) == set(context.labels[context.correct])  # both classes, right answers


def test_images_of_many_forms_keep_their_proportions():
    shapes = [(40, 90), (90, 40), (75, 75), (300, 200)]
    images = [np.full((*shape, 3), 99, np.uint8) for shape in shapes]
    split = Split("x", tuple("abcd"), np.zeros(4, np.int32), lambda i: images[i])
    found = measured(classifier_of(), split, Request(Path("run")))
    for number, (height, width) in enumerate(shapes):
        seen = found.pictures.seen(number)
        assert (seen.height, seen.width) == (height, width)
        with Image.open(io.BytesIO(seen.thumbnail)) as thumbnail:
            assert max(thumbnail.size) <= 112
            assert thumbnail.size[0] / thumbnail.size[1] == pytest.approx(width / height, rel=0.03)


def test_records_with_the_same_pixels_are_one_group():
    images = [np.full((80, 80, 3), value, np.uint8) for value in (1, 2, 1, 3)]
    split = Split("x", tuple("abcd"), np.array([0, 1, 0, 1], np.int32), lambda i: images[i])
    assert measured(classifier_of(), split, Request(Path("run"))).groups.tolist() == [0, 1, 0, 2]
    apart = split.take(np.array([0, 1, 3]))
    assert measured(classifier_of(), apart, Request(Path("run"))).groups is None


# what is said --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_images_that_chose_the_step_are_said_to(context, solved):
    assert "chose the best of 3 epochs" in " ".join(remarks(context))
    latest = dataclasses.replace(context, step="latest")
    assert not list(remarks(latest))
    own = context_of(Request(solved, split="validation"), console=QUIET)
    assert not list(remarks(own)), "leave-one-out on train chooses for an exact head"
    assert "trained on" in " ".join(remarks(context_of(Request(solved, split="train"), console=QUIET)))


def test_images_that_changed_or_are_gone_are_said(context):
    own = context.listed["validation"]
    changed = own._replace(digests=(bytes(16), *own.digests[1:]))
    more = own._replace(files=(*own.files, "gone.png"), digests=(*own.digests, bytes(16)))
    for listed, says in ((changed, "1 of the 12 images have other content"), (more, "1 image of validation that")):
        found = remarks(dataclasses.replace(context, listed=context.listed | {"validation": listed}))
        assert [line.startswith(says) for line in found].count(True) == 1
    assert not any("when the run began" in line or "when it began" in line for line in remarks(context))


def test_known_images_of_other_data_are_counted(finished, folder):
    context = context_of(Request(finished, data=folder / "train"), console=QUIET)
    assert not context.own
    assert "24 of the 24 images are images that the run was trained on" in " ".join(remarks(context))


@pytest.mark.slow
def test_an_exact_head_has_its_leave_one_out_estimate(solved):
    entry = read_meta(solved, 1).history[-1]
    text = report(solved).read_text()
    assert percent(entry["leave_one_out/accuracy"]) in text.partition("Leave-one-out on train")[2][:200]


@pytest.mark.slow
def test_the_command_makes_the_same_run_again(finished, solved, monkeypatch, folder):
    for workdir in (finished, solved):
        meta = read_meta(workdir, int(max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name)).name))
        monkeypatch.chdir(Path(meta.config.data.dir).parent)
        words = shlex.split(" ".join(train_command(meta, "again")))
        assert words[:4] == ["python", "-m", "jaxcat.train", "--config"]
        again = flags.read_config(words[4], words[7:])
        complete(again)
        found, wanted = flatten(again), flatten(meta.config)
        assert {name for name in wanted if found[name] != wanted[name]} <= {"data.grey_bits"}


@pytest.mark.slow
def test_no_path_of_the_machine_is_shown(page, solved, finished, tmp_path, monkeypatch):
    for text in (page.read_text(), report(solved).read_text()):
        assert str(finished.parent) not in text
        assert str(Path.home()) + os.sep not in text
    monkeypatch.chdir(tmp_path)
    assert [shown_path(path) for path in (str(tmp_path / "a" / "b"), "/elsewhere/c", "d/e")] == ["a/b", "c", "d/e"]


def test_no_setting_that_names_a_file_shows_its_folders(finished):
    meta = load(finished).meta
    config = meta.config.copy_and_resolve_references()
    names = (
        "data.dir",
        "data.table",
        "data.corrections",
        "data.train_dir",
        "data.test_dir",
        "model.weights",
        "init_from",
    )
    config.update_from_flattened_dict({name: f"/somebody/secret/{name}" for name in names})
    command = train_command(dataclasses.replace(meta, config=config), "run")
    assert not [line for line in command if "secret" in line]
    assert [name for name in names if not any(f"{name}={name}" in line for line in command)] == []


def test_where_the_weights_come_from_is_said_to_the_beginning(context):
    def said(provenance: dict) -> dict[str, str]:
        meta = dataclasses.replace(context.classifier.meta, provenance=provenance)
        return dict(origins._weights(meta))

    scratch = {"source": "scratch", "head": "new"}
    run = {"source": "run", "workdir": "/home/me/first", "step": 7, "before": scratch}
    file = {"source": "/home/me/x.h5", "file": "x.h5", "sha256": "ab" * 32}
    named = {"source": "keras-imagenet", "file": "y.h5", "sha256": "cd" * 32, "licence": "MIT", "notice": "by them"}
    assert said(scratch) == {"Weights": "random numbers", "Attribution": ""}
    assert said(run)["Weights"] == "the run first, step 7, which began with random numbers"
    assert said(file)["Weights"] == "x.h5, sha256 abababababababab…"
    assert "not known" in said(file)["Licence of the weights"]
    of_run = said(run | {"before": named})
    assert of_run["Weights"].endswith("which began with keras-imagenet, y.h5, sha256 cdcdcdcdcdcdcdcd…")
    assert (of_run["Licence of the weights"], of_run["Attribution"]) == ("MIT", "by them")


@pytest.mark.slow
def test_published_weights_on_a_folder(tmp_path):
    from safetensors.numpy import save_file
    from weights_files import golden_state

    save_file(golden_state(), tmp_path / "weights.safetensors")
    images = small.image_folder(tmp_path / "images", train=2, validation=1)
    (images / "train" / "disc").rename(images / "train" / "tabby, tabby cat")
    (images / "train" / "square").rename(images / "train" / "Persian cat")
    data = images / "train"
    page = report(None, weights=str(tmp_path / "weights.safetensors"), data=data, output=tmp_path / "out", top=2)
    text = page.read_text()
    assert island(page, "figures")["auc"] is None
    assert "weights.safetensors" in text
    assert str(tmp_path) not in text
    assert len(island(page, "classes")) == 1000
    assert text.count("<tr>") < 30, "classes without an image or an answer have no row"


# requests ------------------------------------------------------------------------------------------------------------


def test_the_command(copy, capsys):
    assert main(["--workdir", str(copy), "--top", "3"]) == 0
    assert capsys.readouterr().out == f"written: {copy / 'report' / 'index.html'}\n"
    assert len(json.loads(re.search(r'id="larger">(.*?)</script>', (copy / "report/index.html").read_text())[1])) <= 12


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give one"),
        ({"workdir": Path("a"), "weights": "b"}, "give one"),
        ({"weights": "keras-imagenet-top"}, "--data DIR2"),
        ({"weights": "keras-imagenet-top", "data": Path("a")}, "--output DIR3"),
        ({"weights": "x", "data": Path("a"), "output": Path("b"), "compare": (Path("c"),)}, "--compare"),
        ({"workdir": Path("a"), "data": Path("b"), "split": "test"}, "--split test"),
        ({"workdir": Path("a"), "data": Path("b"), "moved": Path("c")}, "--moved-data"),
        ({"workdir": Path("a"), "top": 0}, "--top 0"),
    ],
)
def test_requests_that_mean_nothing(given, message):
    with pytest.raises(ConfigError, match=message):
        Request(**{"workdir": None} | given).check()


def test_a_page_that_cannot_be_written_is_said_before_work(copy, tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="no directory"):
            report(copy, output=output)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="is a link"):
        report(copy, output=tmp_path / "link")


def test_a_block_that_is_not_there_is_said_before_work(copy):
    with pytest.raises(ConfigError, match="--block mixed9 comes after mixed0"):
        report(copy, block="mixed9")


def test_maps_lie_on_the_images_that_are_shown(context):
    for block in ("", "stem"):
        maps = gallery.heat_maps(dataclasses.replace(context, block=block or context.block), [0, 1])
        for uri in maps.values():
            with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as heat:
                assert heat.size == (96, 96)
                assert np.ptp(np.asarray(heat)[..., 3]) > 200, "from nothing to the maximum"


@pytest.mark.slow
def test_another_output(copy, tmp_path):
    shutil.rmtree(copy / "report", ignore_errors=True)  # of another test of the same run
    assert report(copy, output=tmp_path / "new" / "folder") == tmp_path / "new" / "folder" / "index.html"
    assert not (copy / "report").exists()
    assert (tmp_path / "new" / "folder" / "index.html").read_bytes() == report(copy).read_bytes(), "the same each time"
    assert os.listdir(tmp_path / "new" / "folder") == ["index.html"]


def test_the_summary_is_that_of_the_arrays(context):
    own = summarize(context.log_probabilities, context.labels, context.classifier.classes)
    assert own == {name: context.summary[name] for name in own}
    assert isinstance(default(), ConfigDict)
    assert load(context.workdir).classes == context.classifier.classes


def test_the_dark_plot_is_the_one_that_is_drawn_in_its_colours():
    def draw(figure, colours):
        axes = figure.subplots()
        axes.bar([1, 2], [3, 4], color=colours.first, alpha=0.75, label="#2457d6")
        axes.errorbar([1, 2], [3, 4], [1, 1], color=colours.second, ecolor=colours.text, marker="D")
        axes.text(1, 1, "bad", color=colours.bad)
        axes.legend()

    light, dark = (plots._drawn(draw, colours, 4, 3) for colours in (plots.LIGHT, plots.DARK))
    identifiers = r"(?<=[\"#])m[0-9a-f]{10}"  # matplotlib makes them of the style
    assert re.sub(identifiers, "", plots._dark(light)) == re.sub(identifiers, "", dark)
