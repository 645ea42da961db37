"""Train and validation: nothing held out, folds that cover all, and groups that are never on both sides."""

from __future__ import annotations

import csv
import json
import random

import numpy as np
import pytest
import small
from test_data import counts, flat, names, opened, refused
from test_settings import request

import jaxcat
from jaxcat import evaluate
from jaxcat.config import default
from jaxcat.data.division import divide, folds_of, parse_fold
from jaxcat.data.grouping import spread
from jaxcat.data.records import Split
from jaxcat.errors import ConfigError, DataError
from jaxcat.flags import validate
from jaxcat.runs import meta as checkpoint_meta
from jaxcat.runs import workdir as workdirs
from jaxcat.train import train

# Nothing held out -----------------------------------------------------------------------------------------------------


def test_a_fraction_of_zero_trains_on_everything(tmp_path):
    flat(tmp_path, cat=10, dog=3)
    data = opened(tmp_path, validation_fraction=0.0)
    assert counts(data.splits["train"]) == [10, 3]
    assert len(data.splits["validation"]) == 0
    assert sorted(data.splits["train"].files) == sorted(f for files in names(opened(tmp_path)).values() for f in files)
    flat(tmp_path / "given" / "train", cat=4, dog=4)
    flat(tmp_path / "given" / "validation", cat=1, dog=2)
    assert counts(opened(tmp_path / "given", validation_fraction=0.0).splits["validation"]) == [1, 2]


@pytest.mark.parametrize("source", ["digits", "glyphs"])
def test_sources_inside_packages_hold_nothing_out_either(source):
    config = small.tiny_config()
    config.data.source, config.data.validation_fraction = source, 0.0
    config.data.train_size, config.data.validation_size = 0, 0
    from jaxcat.data.sources import open_data

    splits = open_data(config).splits
    assert len(splits["train"])
    assert len(splits["validation"]) == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"stop__patience": 3}, "--config.stop.patience=3 needs validation"),
        ({"stop__accuracy": 0.9}, "--config.stop.accuracy=0.9 needs validation.*--config.stop.on=train"),
        ({"data__validation_size": 4}, "--config.data.validation_size=4 needs validation"),
    ],
)
def test_what_needs_validation_is_refused_if_nothing_is_held_out(settings, says):
    with pytest.raises(ConfigError, match=says):
        validate(request(data__validation_fraction=0.0, **settings))
    validate(request(**settings))
    validate(request(data__validation_fraction=0.0, data__fold="1/3", **settings))  # the fold is validation


def test_the_default_of_stop_on_is_no_reason_to_refuse():
    validate(request(data__validation_fraction=0.0))
    validate(request(data__validation_fraction=0.0, stop__on="train", stop__accuracy=0.9))
    with pytest.raises(ConfigError, match=r"validation_fraction=-0\.1"):
        validate(request(data__validation_fraction=-0.1))


@pytest.fixture(scope="module")
def unvalidated(tmp_path_factory):
    """The config and workdir of a finished run that holds nothing out."""
    folder = flat(tmp_path_factory.mktemp("images"), cat=9, dog=7)
    config = small.tiny_config(folder)
    config.data.validation_fraction, config.bottleneck.views = 0.0, 1
    workdir = tmp_path_factory.mktemp("run")
    assert train(config, workdir) == 0
    return config, workdir


@pytest.mark.slow
def test_a_run_that_holds_nothing_out(unvalidated, capsys, tmp_path):
    config, workdir = unvalidated
    entries = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [entry["validation/accuracy"] for entry in entries] == [None, None]
    assert [entry["validation/loss"] for entry in entries] == [None, None]
    assert all(entry["train/loss"] > 0 for entry in entries)
    assert (workdir / "learning_curve.png").is_file()
    last = workdirs.steps(workdir)[-1]
    assert jaxcat.load(workdir, step="best").step == jaxcat.load(workdir, step="latest").step == last
    meta = checkpoint_meta.read_meta(workdir, last)
    assert meta.records is not None
    assert meta.records.images == 16
    assert meta.history[-1]["validation/loss"] is None
    capsys.readouterr()
    assert train(config, workdir) == 0  # finished
    finished = capsys.readouterr().out
    assert "this run is finished" in finished
    assert "--data DIR" in finished
    with pytest.raises(ConfigError, match=r"--split validation: this run holds nothing out.*--data DIR.*--split train"):
        evaluate.main(["--workdir", str(workdir)])
    assert evaluate.main(["--workdir", str(workdir), "--split", "train"]) == 0
    assert evaluate.main(["--workdir", str(workdir), "--data", config.data.dir]) == 0
    longer = config.copy_and_resolve_references()
    longer.epochs, longer.bottleneck.views, longer.resume = 3, 0, "force"
    assert train(longer, workdir) == 0
    shown = capsys.readouterr().out
    assert "nothing is held out (--config.data.validation_fraction=0)" in shown
    assert "validation none" in shown
    assert jaxcat.load(workdir).step == workdirs.steps(workdir)[-1] > last
    after = config.copy_and_resolve_references()
    after.init_from, after.epochs, after.data.validation_fraction = str(workdir), 1, 0.2
    assert train(after, tmp_path / "after") == 0


def test_the_best_of_epochs_that_were_not_validated_is_the_latest():
    epochs = [{"epoch": e, "step": e, "validation/accuracy": None, "validation/loss": None} for e in (1, 2, 3)]
    assert checkpoint_meta.best_epoch(epochs) == epochs[-1]
    measured = {"epoch": 2, "step": 2, "validation/accuracy": 0.1, "validation/loss": 9.0}
    assert checkpoint_meta.best_epoch([epochs[0], measured, epochs[2]]) == measured


# Folds ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0/5", "6/5", "1/1", "5", "1/", "1/5/2", "a/b", "1.0/5", "-1/5", " 1/5", "١/٥"])
def test_what_names_no_fold_is_refused(text):
    with pytest.raises(ConfigError, match="--config.data.fold="):
        parse_fold(text)
    with pytest.raises(ConfigError, match="--config.data.fold="):
        validate(request(data__fold=text))


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_the_folds_are_disjoint_complete_stratified_and_seeded(folds, tmp_path):
    flat(tmp_path, cat=23, dog=10)
    runs = [opened(tmp_path, fold=f"{k}/{folds}").splits for k in range(1, folds + 1)]
    everything = {file for split in opened(tmp_path).splits.values() for file in split.files}
    held = [file for splits in runs for file in splits["validation"].files]
    assert len(held) == len(set(held))
    assert set(held) == everything
    for splits in runs:
        assert set(splits["train"].files) == everything - set(splits["validation"].files)
        for label, total in enumerate((23, 10)):
            assert counts(splits["validation"])[label] in (total // folds, -(-total // folds))
        assert len(splits["validation"]) in (33 // folds, -(-33 // folds))
    assert opened(tmp_path, fold=f"1/{folds}", seed=1).splits["validation"].files != runs[0]["validation"].files


def test_a_fold_beside_a_validation_split(tmp_path):
    flat(tmp_path / "train", cat=6, dog=6)
    flat(tmp_path / "validation", cat=3, dog=3)
    flat(tmp_path / "test", cat=1, dog=1)
    refused(tmp_path, "--config.data.fold=1/3", "6 images", "fold_over=train+validation", kind=ConfigError, fold="1/3")
    runs = [opened(tmp_path, fold=f"{k}/3", fold_over="train+validation").splits for k in (1, 2, 3)]
    held = sorted(file for splits in runs for file in splits["validation"].files)
    assert len(held) == 18
    assert len(set(held)) == 18
    assert {file.partition("/")[0] for file in held} == {"train", "validation"}
    assert all(counts(splits["test"]) == [1, 1] for splits in runs)
    for splits in runs:
        for split in splits.values():  # the images still belong to their names
            assert all(str(split.stored(i)) == str(tmp_path / file) for i, file in enumerate(split.files))
    with pytest.raises(ConfigError, match=r"fold_over=train\+validation needs --config.data.fold"):
        validate(request(data__fold_over="train+validation"))


def test_folds_that_cannot_be(tmp_path, caplog):
    flat(tmp_path, cat=6, dog=2)
    refused(tmp_path, "8 images, too few for 9 folds", fold="1/9")
    opened(tmp_path, fold="1/4")
    assert "in some of the 4 folds, validation has no image of 1 class: dog" in caplog.text
    flat(tmp_path, fox=1)
    refused(tmp_path, "too few images to divide them into folds: 'fox' (1)", fold="1/2")


@pytest.mark.slow
def test_predictions_of_all_folds_join(tmp_path):
    folder = flat(tmp_path / "images", cat=7, dog=6)
    rows: list[dict] = []
    for k in (1, 2, 3):
        config = small.tiny_config(folder)
        config.data.fold, config.epochs, config.bottleneck.views = f"{k}/3", 1, 1
        assert train(config, tmp_path / str(k)) == 0
        assert evaluate.main(["--workdir", str(tmp_path / str(k))]) == 0
        with open(tmp_path / str(k) / "evaluation" / "validation.predictions.csv", newline="") as file:
            table = csv.DictReader(file)
            rows += table
            assert table.fieldnames == ["file", "label", "predicted", "cat", "dog"]
    files = [row["file"] for row in rows]
    assert sorted(files) == sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert all(row["label"] == row["file"].partition("/")[0] for row in rows)


def test_glyphs_are_folded_by_font():
    from jaxcat.data.indexing.embedded import open_glyphs

    config = default()
    seen: set[str] = set()
    for k in (1, 2):
        config.data.fold = f"{k}/2"
        splits = open_glyphs(config).splits
        held = {file.split("/")[1] for file in splits["validation"].files}
        assert not held & {file.split("/")[1] for file in splits["train"].files}
        assert not held & seen
        seen |= held


# Groups ---------------------------------------------------------------------------------------------------------------


def grouped(sizes: list[dict[int, int]], *, shuffle: int = 0) -> Split:
    """A train split with one group for each of `sizes`, which maps classes to numbers of images."""
    rows = [
        (f"{number:03}/{label}/{i}", label, f"group {number}")
        for number, size in enumerate(sizes)
        for label, count in size.items()
        for i in range(count)
    ]
    random.Random(shuffle).shuffle(rows)
    files, labels, groups = zip(*rows, strict=True)
    return Split("train", files, np.array(labels, np.int32), lambda i: np.zeros((1, 1, 3), np.uint8), groups=groups)


def random_groups(seed: int, *, groups: int, classes: int) -> list[dict[int, int]]:
    generator = np.random.default_rng(seed)
    return [
        {int(c): int(generator.integers(1, 9)) for c in generator.choice(classes, size=2, replace=False)}
        for _ in range(groups)
    ]


def divided(split: Split, **settings) -> dict[str, Split]:
    config = default()
    config.seed = settings.pop("seed", 0)
    config.data.update(settings)
    return divide({"train": split}, config, [f"class {c}" for c in range(int(split.labels.max()) + 1)])


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_on_both_sides_and_classes_are_held_out_alike(seed):
    split = grouped(random_groups(seed, groups=60, classes=4))
    parts = divided(split, seed=seed, validation_fraction=0.2)
    assert parts["train"].groups
    assert parts["validation"].groups
    assert not set(parts["train"].groups or ()) & set(parts["validation"].groups or ())
    assert sorted(parts["train"].files + parts["validation"].files) == sorted(split.files)
    shares = np.bincount(parts["validation"].labels, minlength=4) / np.bincount(split.labels, minlength=4)
    np.testing.assert_allclose(shares, 0.2, atol=0.05)
    again = divided(grouped(random_groups(seed, groups=60, classes=4), shuffle=1), seed=seed)
    assert set(again["validation"].files) == set(parts["validation"].files)  # whatever the order of the records
    assert set(divided(split, seed=seed + 1)["validation"].files) != set(parts["validation"].files)


@pytest.mark.parametrize("seed", range(5))
def test_folds_of_groups_are_about_as_stratified_as_those_of_scikit_learn(seed):
    from sklearn.model_selection import StratifiedGroupKFold

    split = grouped(random_groups(seed, groups=80, classes=5))
    classes = [str(c) for c in range(5)]
    ours = folds_of(split, 4, classes, seed=seed)
    theirs = np.zeros(len(split), int)
    dealt = StratifiedGroupKFold(4, shuffle=True, random_state=seed).split(split.labels, split.labels, split.groups)
    for number, (_, held) in enumerate(dealt):
        theirs[held] = number

    def spoilt(fold):
        table = np.zeros((4, 5))
        np.add.at(table, (fold, split.labels), 1)
        return np.square(table / table.sum(axis=0) - 1 / 4).sum()

    assert spoilt(ours) <= spoilt(theirs) + 0.005  # of 20 shares: 0.016 each, as the root of the mean square
    for group in set(split.groups or ()):
        assert len({int(f) for f, g in zip(ours, split.groups or (), strict=True) if g == group}) == 1
    assert set(ours) == {0, 1, 2, 3}


def test_few_groups_are_divided_as_well_as_they_can_be():
    """Against every possible division."""
    for seed in range(8):
        sizes = random_groups(seed, groups=8, classes=2)
        split = grouped(sizes)
        members = np.array([int(name.partition(" ")[2]) for name in split.groups or ()])
        part = spread(members, split.labels, classes=2, shares=(0.7, 0.3))
        table = np.array([[size.get(c, 0) for c in range(2)] for size in sizes])

        def cost(side, table=table):
            held = (table * np.asarray(side)[:, None]).sum(axis=0)
            return np.square(held / table.sum(axis=0) - 0.3).sum()

        best = min(cost([number >> bit & 1 for bit in range(8)]) for number in range(1, 2**8 - 1))
        assert cost(part) <= best + 0.02


def test_a_class_of_one_group_and_classes_that_are_tied_together_are_named():
    with pytest.raises(
        DataError, match=r"one group only, too few to hold one out for validation: 'class 1' \(group group 1\)"
    ):
        divided(grouped([{0: 3}, {1: 3}, {0: 2}]))
    with pytest.raises(DataError, match="2 groups, too few for 3 folds"):
        divided(grouped([{0: 3, 1: 1}, {0: 3, 1: 2}]), fold="1/3")
    parts = divided(grouped([{0: 50, 1: 50}, {0: 50, 1: 50}]))  # half and half is the only way
    assert len(parts["train"]) == len(parts["validation"]) == 100


def test_a_group_in_two_splits_of_the_data_is_named():
    config, split = default(), grouped([{0: 2}, {1: 2}])
    with pytest.raises(DataError, match=r"1 of 2 groups .* group 0 \(train and validation\)"):
        divide({"train": split, "validation": split.take(np.flatnonzero(split.labels == 0))}, config, ["a", "b"])
    apart = divide({"train": split, "validation": grouped([{0: 0}, {1: 0}, {0: 1, 1: 1}])}, config, ["a", "b"])
    assert len(apart["validation"]) == 2


def test_a_group_in_train_and_validation_is_no_fault_if_both_are_divided_together():
    config = default()
    config.data.fold, config.data.fold_over = "1/3", "train+validation"
    split = grouped(random_groups(1, groups=30, classes=2))
    odd = np.arange(len(split)) % 2 == 1
    given = {"train": split.take(np.flatnonzero(odd)), "validation": split.take(np.flatnonzero(~odd), "validation")}
    parts = divide(given, config, ["a", "b"])
    assert parts["train"].groups
    assert parts["validation"].groups
    assert len(parts["train"]) + len(parts["validation"]) == len(split)
    assert not set(parts["train"].groups or ()) & set(parts["validation"].groups or ())


def test_subsets_keep_their_groups():
    parts = divided(grouped(random_groups(3, groups=40, classes=3)), train_size=30, validation_size=9)
    assert len(parts["train"]) == 30
    assert not set(parts["train"].groups or ()) & set(parts["validation"].groups or ())
    assert all(
        g == f"group {int(f[:3])}" for f, g in zip(parts["train"].files, parts["train"].groups or (), strict=True)
    )
