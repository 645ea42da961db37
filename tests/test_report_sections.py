"""Sections of the report: what they show is so, checked by other means, on tiny runs and on arrays."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import small
from PIL import Image
from sklearn.metrics import brier_score_loss
from small_export import classifier_of
from test_exact_run import TINY

import jaxcat
from jaxcat.config import default
from jaxcat.data.records import Split
from jaxcat.errors import ConfigError
from jaxcat.evaluate import main as evaluate
from jaxcat.objectives.paired import Paired
from jaxcat.objectives.temperature import fit_temperature
from jaxcat.report import report
from jaxcat.report.comparing import Other, check_compared
from jaxcat.report.context import Context
from jaxcat.report.features import parts_of
from jaxcat.report.known_data import indexed, twins_across
from jaxcat.report.making import Request, context_of, measured
from jaxcat.report.page import text_of
from jaxcat.report.sections import comparison, curve, data, trust
from jaxcat.report.sections import map as layout
from jaxcat.system.console import Console

pytestmark = pytest.mark.usefixtures("cache_of_this_file")
QUIET = Console(quiet=True)
ON_BLOCK = {"model.pool_from": "block2", "model.cut": "block3", "optim.penalty": 0.6}
TRAINED = {
    "optim.name": "adam",
    "optim.learning_rate": 0.01,
    "model.cut": "block3",
    "model.pool": "avg_std",
    "epochs": 12,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """80 train and 80 validation images, some of which are there twice, one has a wrong label, and one is no image."""
    root = small.image_folder(tmp_path_factory.mktemp("images"), train=40, validation=38)
    disc, square = root / "validation" / "disc", root / "validation" / "square"
    shutil.copy(root / "train" / "disc" / "003.png", disc / "twin.png")
    Image.open(root / "train" / "square" / "004.png").save(square / "pixels.bmp")
    Image.open(root / "train" / "square" / "005.png").save(square / "near.jpg", quality=95)
    drawn = small.draw("square", np.random.default_rng(9))
    drawn.resize((60, 40)).save(disc / "mislabelled.png")
    (root / "validation" / "notes.xyz").write_text("not an image")
    (disc / "thumbs.db").write_text("left by a system")
    return root


@pytest.fixture(scope="module")
def runs(folder, cache, tmp_path_factory) -> dict[str, Path]:
    """An exact head with a choice of blocks, another on one range, and a trained head, on the same images."""
    root = tmp_path_factory.mktemp("runs")
    settings = {**TINY, "data.dir": folder}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXCAT_CACHE", str(cache))
        jaxcat.fit("folder", root / "solved", settings=settings)
        jaxcat.fit("folder", root / "narrow", settings=settings | ON_BLOCK)
        jaxcat.fit("folder:trained", root / "trained", settings=settings | TRAINED)
    return {name: root / name for name in ("solved", "narrow", "trained")}


@pytest.fixture(scope="module")
def contexts(runs, cache) -> dict[str, Context]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXCAT_CACHE", str(cache))
        return {name: context_of(Request(workdir), console=QUIET) for name, workdir in runs.items()}


def events(workdir: Path, kind: str) -> list[dict]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == kind]


# how the head was made ------------------------------------------------------------------------------------------------


def test_the_curve_of_a_trained_head_is_that_of_its_metrics(runs, contexts):
    found = curve.section_of(contexts["trained"]).values
    epochs = events(runs["trained"], "epoch")
    assert [row["epoch"] for row in found["rows"]] == list(range(1, 13))
    for row, epoch in zip(found["rows"], epochs, strict=True):
        wanted = [epoch[f"{split}/{what}"] for split in ("train", "validation") for what in ("accuracy", "loss")]
        assert [float(figure) for figure in row["figures"]] == pytest.approx(wanted, abs=6e-4)
    best = max(epochs, key=lambda epoch: (epoch["validation/accuracy"], -epoch["validation/loss"]))
    assert [row["epoch"] for row in found["rows"] if row["used"]] == [best["epoch"]]


def test_epochs_after_the_step_of_the_report_are_shown(runs, contexts):
    first = min(step for step in map(int, (p.name for p in (runs["trained"] / "checkpoints").iterdir())))
    context = context_of(Request(runs["trained"], step=first), console=QUIET)
    assert len(curve.section_of(context).values["rows"]) == 12


def test_the_stages_of_a_run_are_told_and_drawn():
    asked = default()
    asked.train.stages = "head::exact, mixed8:2:1e-4, mixed4:1:1e-5"
    measured = dict.fromkeys([f"{split}/{what}" for split in curve.SPLITS for what in ("accuracy", "loss")], 0.5)
    history = [{"epoch": epoch, "step": epoch, "stage": stage, **measured} for epoch, stage in ((1, 1), (2, 2), (3, 2))]
    context = SimpleNamespace(classifier=SimpleNamespace(step=2, meta=SimpleNamespace(asked=asked)))
    found = curve._of_epochs(context, history)
    assert [row["stage"] for row in found.values["rows"]] == [1, 2, 2]
    told = "2 stages: from epoch 1, the head alone was solved; from epoch 2, mixed8 and what follows it was trained at"
    assert told in found.reading
    assert "mixed4" not in found.reading  # the third has not begun
    assert "Stage 2 begins with epoch 2." in found.values["plot"].alt


def test_the_table_of_an_exact_head_is_that_of_its_metrics(runs, contexts):
    found = curve.section_of(contexts["solved"]).values["candidates"]
    (wanted,) = events(runs["solved"], "candidates")
    assert len(found) == len(wanted["ranges"]) > 1
    for row, candidate in zip(found, wanted["ranges"], strict=True):
        assert float(row["error"]) == pytest.approx(candidate["squared_error"], abs=1e-4)
        assert row["chosen"] == ([candidate["blocks"][0], candidate["blocks"][-1]] == wanted["chosen"])


@pytest.mark.parametrize("candidates", [None, {}, {"ranges": [{}]}, {"ranges": [], "chosen": 3}, {"ranges": [7]}])
def test_a_planted_table_is_left_out(contexts, candidates):
    found = curve._of_candidates(candidates)
    assert found is None or found.values["candidates"] == []


def test_published_weights_have_no_curve(tmp_path):
    assert curve.section_of(drawn(tmp_path, 3)) is None


# trust ----------------------------------------------------------------------------------------------------------------


def drawn(folder: Path, count: int, *, classes: tuple[str, ...] = ("cat", "dog"), **changes) -> Context:
    """A context about noise, some of whose arrays are changed."""
    images = small.images(count, size=40)
    labels = np.arange(count, dtype=np.int32) % len(classes)
    split = Split("test", tuple(f"{i}.png" for i in range(count)), labels, lambda i: images[i])
    found = measured(classifier_of(classes=classes), split, Request(folder / "run"))
    return dataclasses.replace(found, **changes)


def test_what_refusing_brings_is_counted_by_hand(contexts):
    context = contexts["solved"]
    for row in trust.section_of(context).values["refusals"]:
        answered = context.confidence >= np.sort(context.confidence)[int(row["refused"])]
        assert row["after"] == f"{100 * context.correct[answered].mean():.2f} %"
        assert int(row["answered"]) == answered.sum()
        assert int(row["refused"]) <= float(row["share"].split()[0]) / 100 * len(context)


def test_the_calibration_error_is_that_of_evaluate(runs, contexts):
    assert evaluate(["--workdir", str(runs["solved"])]) == 0
    expected = json.loads((runs["solved"] / "evaluation" / "validation.json").read_text())["calibration_error"]
    (error, exact) = trust.section_of(contexts["solved"]).values["sentences"]
    assert error.startswith(f"Calibration error {expected:.4f} (")
    assert "solved, not trained" in exact


def test_bad_probabilities_are_called_so(tmp_path):
    random = np.random.default_rng(0)
    context = drawn(tmp_path, 400)
    true = random.uniform(0.2, 0.8, 400)  # of the second class
    labels = (random.random(400) < true).astype(np.int32)
    logits = 6 * np.log(true / (1 - true))
    log_probabilities = -np.logaddexp(0, np.stack([logits, -logits], axis=1))
    split = dataclasses.replace(context.split, labels=labels)
    found = dataclasses.replace(context, split=split, log_probabilities=log_probabilities)
    accuracy = float(found.correct.mean())
    found = dataclasses.replace(found, summary=found.summary | {"accuracy": accuracy})
    error, temperature, offer = trust.section_of(found).values["sentences"]
    assert "too sure" in error
    fitted = fit_temperature(logits[:, None], labels)
    assert f"temperature of {fitted.temperature:.2f} helps" in temperature
    assert 4 < fitted.temperature < 9
    second = np.exp(log_probabilities[:, 1])
    assert brier_score_loss(labels, second) > brier_score_loss(labels, true), "the planted error is one"
    assert "--calibrate" in offer


@pytest.mark.slow
def test_calibrate_writes_what_evaluate_then_uses(runs, tmp_path, capsys):
    workdir = shutil.copytree(runs["trained"], tmp_path / "run")
    text = report(workdir, calibrate=True).read_text()
    assert "calibration.json has it now" in text
    written = json.loads((workdir / "calibration.json").read_text())
    context = context_of(Request(workdir), console=QUIET)
    assert written["temperature"] == pytest.approx(
        fit_temperature(context.log_probabilities, context.labels).temperature, rel=1e-6
    )
    assert (written["split"], written["images"]) == ("validation", 80)
    assert "logits were divided by" in report(workdir, calibrated=True).read_text()
    for flags, loss in (([], written["before"]["loss"]), (["--calibrated"], None)):
        assert evaluate(["--workdir", str(workdir), *flags]) == 0
        found = json.loads((workdir / "evaluation" / "validation.json").read_text())
        assert loss is None or found["loss"] == pytest.approx(loss, rel=1e-6)
    assert found["loss"] <= written["before"]["loss"]


@pytest.mark.parametrize(
    ("run", "options", "said"),
    [
        ("solved", {}, "--calibrate: the head of this run is solved"),
        ("trained", {"split": "train"}, "--split train: the head has seen these"),
        ("trained", {"split": "test"}, "--split test: nothing may be fitted"),
        ("trained", {"calibrated": True}, "calibration.json: missing"),
    ],
)
def test_calibrate_is_refused_with_the_reason(runs, run, options, said):
    with pytest.raises(jaxcat.errors.JaxcatError, match=said):
        report(runs[run], calibrate=True, **options)
    assert not (runs[run] / "calibration.json").exists()


def test_calibrate_knows_images_of_train_in_another_folder(runs, folder):
    with pytest.raises(ConfigError, match="80 of the 80 images are of train: the head has seen these images"):
        report(runs["trained"], calibrate=True, data=folder / "train")
    assert not (runs["trained"] / "calibration.json").exists()


# runs side by side ----------------------------------------------------------------------------------------------------


def test_two_runs_are_compared_on_the_same_images(runs, contexts, tmp_path):
    compared = dataclasses.replace(contexts["solved"], compare=(runs["narrow"], runs["trained"]), groups=None)
    found = comparison.section_of(compared).values
    assert [row["name"] for row in found["rows"]] == ["solved", "narrow", "trained"]
    for row, name in zip(found["rows"][1:], ("narrow", "trained"), strict=True):
        other = contexts[name]
        assert float(row["loss"]) == pytest.approx(other.summary["loss"], abs=1e-3)
        only = [int((other.correct & ~compared.correct).sum()), int((compared.correct & ~other.correct).sum())]
        assert row["only"] == f"{only[0]} and {only[1]}"
        assert float(row["difference"].split()[0]) == pytest.approx(100 * (only[0] - only[1]) / 80, abs=0.01)
        (details,) = [each for each in found["others"] if each["name"] == name]
        assert len(details["cards"]) + max(0, details["more"]) == sum(only)
        for card in details["cards"]:
            assert compared.correct[card["number"]] != other.correct[card["number"]]
    settings = {row["name"]: row["values"] for row in found["settings"]}
    assert settings["optim.name"] == ["exact", "exact", "adam"]
    assert settings["optim.penalty"][1] == "0.6"
    assert "data.dir" not in settings
    text = text_of(compared, [comparison.section_of(compared)])
    assert "p is too small" not in text
    grouped = dataclasses.replace(compared, groups=np.arange(80) // 2)
    assert "p is too small" in text_of(grouped, [comparison.section_of(grouped)])


def test_nothing_to_compare_is_no_section(contexts):
    assert comparison.section_of(contexts["solved"]) is None


@pytest.mark.parametrize(
    ("p", "interval", "grouped", "clear"),
    [(0.01, (-0.1, 0.02), True, False), (0.01, (-0.1, -0.02), True, True), (0.01, (-0.1, 0.02), False, True)],
)
def test_of_groups_the_interval_decides_too(contexts, p, interval, grouped, clear):
    context, narrow = contexts["solved"], contexts["narrow"]
    context = dataclasses.replace(context, groups=np.arange(80) // 2 if grouped else None)
    other = Other("narrow", narrow.classifier.meta, narrow.log_probabilities, narrow.summary, ())
    pair = Paired(60, 4, 15, 1, p, -0.1375, interval)
    verdict = comparison._other(context, other, narrow.correct, pair)["verdict"]
    assert ("better by more than chance" in verdict) == clear


def test_a_twin_in_train_that_both_runs_have_is_no_reason_to_refuse(runs, contexts):
    context, listed = contexts["solved"], contexts["solved"].listed
    assert set(listed["train"].digests) & set(context.digests)
    given = {"workdir": runs["solved"], "classes": context.classifier.classes, "split": "validation"}
    check_compared([runs["narrow"]], **given, listed=listed)
    other = listed | {"train": listed["train"]._replace(digests=(b"x",))}
    with pytest.raises(ConfigError, match="--compare .*: was trained on 1 of the 80 images"):
        check_compared([runs["narrow"]], **given, listed=other)


@pytest.mark.slow
def test_runs_that_cannot_be_compared_are_refused_before_work(runs, folder, tmp_path):
    with pytest.raises(ConfigError, match="--compare .*: is the run of --workdir itself"):
        report(runs["solved"], compare=[runs["solved"]])
    for missing in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(jaxcat.errors.CheckpointError, match=f"^--compare {missing}: no "):
            report(runs["solved"], compare=[missing])
    others = small.image_folder(tmp_path / "three", train=4, validation=2, classes=small.SHAPES)
    jaxcat.fit("folder", tmp_path / "run", settings={**TINY, **ON_BLOCK, "data.dir": others})
    with pytest.raises(ConfigError, match="--compare .*: has other classes"):
        report(runs["solved"], compare=[tmp_path / "run"])
    swapped = tmp_path / "swapped"
    shutil.copytree(folder / "train", swapped / "validation")
    shutil.copytree(folder / "validation", swapped / "train")
    jaxcat.fit("folder", tmp_path / "other", settings={**TINY, **ON_BLOCK, "data.dir": swapped})
    with pytest.raises(ConfigError, match="--compare .*: was trained on 79 of the 80 images"):
        report(runs["solved"], compare=[tmp_path / "other"])
    context = context_of(Request(runs["solved"], data=folder / "validation"), console=QUIET)
    (other,) = comparison.others_of(dataclasses.replace(context, compare=(tmp_path / "other",)))
    assert other.notes[0].startswith("It was trained on 80 images of these")


# the data -------------------------------------------------------------------------------------------------------------


def test_twins_by_bytes_and_by_pixels_are_found(contexts):
    context = contexts["solved"]
    found = {context.files[each.number]: each for each in twins_across(context)}
    assert {name.rpartition("/")[2]: (each.split, each.file.rpartition("/")[2]) for name, each in found.items()} == {
        "twin.png": ("train", "003.png"),
        "pixels.bmp": ("train", "004.png"),
    }
    values = data.section_of(context).values
    assert "The head was trained on 2 of them" in values["twins"]["words"]
    assert len(values["twins"]["cards"]) == 2


def test_near_duplicates_across_train_are_found_with_images(contexts, monkeypatch):
    """With so few images a pair that is expected by chance is not far from a copy."""
    context = contexts["solved"]
    values = data.section_of(context).values
    assert "among these images and those of train, 160 in all" in values["compared"]
    pairs = [(pair["first"]["file"], pair["second"]["file"]) for pair in values["pairs"]["pairs"]]
    names = [tuple(sorted(Path(file).name for file in pair)) for pair in pairs]
    assert ("005.png", "near.jpg") in names
    (pair,) = [each for each, of in zip(values["pairs"]["pairs"], names, strict=True) if "near.jpg" in of][:1]
    of_train = pair["first"] if pair["first"]["number"] is None else pair["second"]
    assert of_train["source"].startswith("data:image/jpeg;base64,/9j/")


def test_train_that_is_not_in_the_cache_is_not_computed(contexts, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path))
    values = data.section_of(contexts["solved"]).values
    assert "Train was not compared: the cache does not have its features" in values["compared"]


def test_a_wrong_label_is_suspected(contexts):
    context = contexts["solved"]
    wrong = next(number for number, name in enumerate(context.files) if name.endswith("mislabelled.png"))
    chances = np.full((80, 2), 0.02)
    chances[np.arange(80), context.labels] = 0.98
    chances[wrong] = chances[wrong, ::-1]
    sure = dataclasses.replace(context, log_probabilities=np.log(chances))
    found = data.section_of(sure).values["suspects"]
    assert [card["number"] for card in found["cards"]] == [wrong]
    assert found["cards"][0]["lines"] == ("looks like square", "probability 0.020 of its label, 0.980 of that")
    nothing = dataclasses.replace(context, log_probabilities=np.log(np.full((80, 2), 0.5)))
    assert "no better than" in data.section_of(nothing).values["suspects"]["words"]


def test_counts_sizes_formats_and_what_was_left_out(contexts, folder):
    values = data.section_of(contexts["solved"]).values
    assert values["splits"] == ["validation", "train"]
    assert {row["name"]: row["counts"] for row in values["counts"]} == {"disc": ["40", "40"], "square": ["40", "40"]}
    about = {each["what"]: each["value"] for each in values["about"]}
    assert about["Sizes"] == "60 × 40 to 90 × 90 pixels, 90 × 90 in the middle"
    assert sorted(about["Formats"].split(", ")) == ["BMP (1)", "JPEG (1)", "PNG (78)"]
    assert about["The network sees"] == "32 × 32; 0 images had a shorter side"
    assert any("left" in line or "thumbnails" in line for line in values["skipped"])
    assert str(folder) not in json.dumps(values)
    assert indexed(contexts["solved"]).train.files == contexts["solved"].listed["train"].files


def test_images_that_the_run_left_out_are_counted(contexts):
    context = contexts["solved"]
    for less, says in ((1, "1 image of validation not used"), (2, "2 images of validation not used")):
        validation = context.listed["validation"]
        listed = context.listed | {"validation": validation._replace(files=validation.files[less:])}
        skipped = data.section_of(dataclasses.replace(context, listed=listed)).values["skipped"]
        assert [line.startswith(says) for line in skipped].count(True) == 1
    assert not any("not used" in line for line in data.section_of(context).values["skipped"])


def test_images_that_were_left_out_are_named_without_folders(contexts, tmp_path, monkeypatch):
    context, place = contexts["solved"], tmp_path / "data"
    lines = (f"{place}/disc/a: b.png: damaged", f"{tmp_path}/elsewhere/c.png: damaged", "disc/d.png: damaged")
    other = dataclasses.replace(context, unreadable=lines, own=False, data=place)
    left_out = ["disc/a: b.png: damaged", "c.png: damaged", "disc/d.png: damaged"]
    assert data.section_of(other).values["skipped"] == left_out


def test_the_images_of_the_report_are_not_decoded_again(contexts, monkeypatch):
    context = contexts["solved"]
    monkeypatch.setattr(type(context.split), "fetch", lambda self, index: fetched.append((self.name, index)) or pixels)
    fetched, pixels = [], np.zeros((4, 4, 3), np.uint8)
    for section in (trust, data, layout):
        section.section_of(context)
    assert all(name == "train" for name, _ in fetched)


# the map --------------------------------------------------------------------------------------------------------------


def test_every_image_is_on_the_map_and_wrong_ones_are_crosses(contexts):
    context = contexts["solved"]
    section = layout.section_of(context)
    points = section.values["points"]
    assert [point[2] for point in points] == list(range(80))
    for point, mark in zip(points, section.values["marks"], strict=True):
        assert tuple(point[:2]) == mark[:2]
        assert mark[3] == context.correct[point[2]]
        assert 0 <= point[0] <= layout.WIDTH
        assert 0 <= point[1] <= layout.HEIGHT
    again = layout.section_of(context)
    assert again.values["points"] == points
    text = text_of(context, [section])
    assert text.count('<path d="M') - 1 == int((~context.correct).sum())  # one is in the legend


def test_alike_images_lie_together(contexts):
    """Features in two clusters, which the labels do not follow."""
    context = contexts["solved"]
    random, cluster = np.random.default_rng(0), np.arange(80) % 4 < 2
    width = context.features().shape[1]
    features = (random.normal(0, 1, (80, width)) + 5 * cluster[:, None]).astype(np.float32)
    places = np.array([p[:2] for p in layout.section_of(drawn_with(context, features)).values["points"]])
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (cluster[distances.argmin(axis=1)] == cluster).all()


def drawn_with(context: Context, features: np.ndarray) -> Context:
    return dataclasses.replace(context, given_features=lambda: features)


def test_of_many_images_a_sample_is_drawn(contexts, monkeypatch):
    monkeypatch.setattr(layout, "MOST", 30)
    found = layout.section_of(contexts["solved"]).values
    numbers = [point[2] for point in found["points"]]
    assert len(set(numbers)) == 30
    assert numbers == sorted(numbers)
    assert found["sample"] == "A sample of 30 of the 80 images."
    assert numbers == [point[2] for point in layout.section_of(contexts["solved"]).values["points"]]


@pytest.mark.parametrize("features", [np.zeros((80, 5), np.float32), None])
def test_without_features_there_is_no_map(contexts, features):
    assert layout.section_of(drawn_with(contexts["solved"], features)) is None
    assert "not looked for" in data.section_of(drawn_with(contexts["solved"], None)).values["compared"]


@pytest.mark.slow
def test_features_of_grids_and_flattened_maps_are_averaged_over_positions(tmp_path):
    for settings in ({"model__pool": "flatten"}, {"model__pool": "avg_std", "model__pool_grid": 2}, {}):
        images = small.images(4, size=75)
        split = Split("test", tuple("abcd"), np.array([0, 1, 0, 1], np.int32), lambda i, images=images: images[i])
        classifier = classifier_of(**settings)
        parts = parts_of(measured(classifier, split, Request(tmp_path)))
        plain = classifier_of(model__pool="avg_std" if len(parts) == 2 else "avg")
        plain_features = plain.features(list(images))
        width = plain_features.shape[1] // len(parts)
        for number, part in enumerate(parts[:1]):  # a mean of cells' means is that of the map if they do not overlap
            expected = plain_features[:, number * width : (number + 1) * width]
            assert part.width == width
            np.testing.assert_allclose(part.read(0, 4), expected, rtol=0.2, atol=0.2)
            if settings.get("model__pool") == "flatten" or not settings:
                np.testing.assert_allclose(part.read(1, 3), expected[1:3], rtol=1e-3, atol=1e-4)
