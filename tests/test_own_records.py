"""A finished run whose data moved, were renamed, changed or went away; and whose workdir is read-only."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import small
from PIL import Image

from jaxcat import evaluate
from jaxcat.data.records import Split
from jaxcat.data.store import Store
from jaxcat.errors import CheckpointError, ConfigError, DataError
from jaxcat.inference import evaluation, found_images, own_records
from jaxcat.runs import meta as checkpoint_meta
from jaxcat.runs import records
from jaxcat.runs import workdir as workdirs

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Class folders without splits, so that a fifth is held out: which one depends on every name."""
    made = small.image_folder(tmp_path_factory.mktemp("made"), train=10)
    return Path(shutil.copytree(made / "train", tmp_path_factory.mktemp("images") / "data"))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, images) -> Path:
    workdir = small.one_epoch(images, tmp_path_factory.mktemp("run"))
    assert evaluate.main(["--workdir", str(workdir)]) == 0
    return workdir


@pytest.fixture
def meta(workdir) -> checkpoint_meta.Meta:
    return checkpoint_meta.read_meta(workdir, workdirs.steps(workdir)[-1])


@pytest.fixture
def listed(workdir, meta) -> dict[str, records.Listed]:
    return own_records.listed_records(workdir, meta)


@pytest.fixture
def moved(images, tmp_path) -> Path:
    return Path(shutil.copytree(images, tmp_path / "moved"))


def without_list(meta: checkpoint_meta.Meta) -> checkpoint_meta.Meta:
    """The meta of a run of a version that wrote no list."""
    return dataclasses.replace(meta, records=dataclasses.replace(meta.records, rules=1, list_digest=None))


def at(meta: checkpoint_meta.Meta, folder: Path) -> checkpoint_meta.Meta:
    """The same run, as if its data had always been there."""
    config = meta.config.copy_and_resolve_references()
    config.data.dir = str(folder)
    return dataclasses.replace(meta, config=config)


def figures(folder: Path, name: str = "validation") -> tuple[dict, list[dict]]:
    with open(folder / f"{name}.predictions.csv", newline="") as file:
        return json.loads((folder / f"{name}.json").read_text()), list(csv.DictReader(file))


def same_content(split, listed) -> bool:
    return [split.digest(index) for index in range(len(split))] == list(listed.digests)


def renamed(folder: Path) -> None:
    """Every image gets another name, in one flat folder whose order is another one."""
    for number, path in enumerate(sorted(folder.rglob("*.png"), reverse=True)):
        path.rename(folder / f"{number}.png")
    for each in [path for path in folder.iterdir() if path.is_dir()]:
        each.rmdir()


@pytest.mark.slow
def test_moved_and_renamed_images_give_the_figures_of_the_run(workdir, moved, tmp_path, capsys, caplog):
    renamed(moved)
    before = figures(workdir / "evaluation")
    arguments = ["--workdir", str(workdir), "--moved-data", str(moved), "--results-dir", str(tmp_path / "new" / "here")]
    assert evaluate.main(arguments) == 0
    assert figures(tmp_path / "new" / "here") == before
    assert str(tmp_path / "new" / "here") in capsys.readouterr().out
    assert not caplog.records


@pytest.mark.parametrize("split", ["train", "validation"])
def test_each_split_is_found_by_content(meta, listed, moved, split):
    renamed(moved)
    (moved / "others").mkdir()
    Image.new("RGB", (90, 90)).save(moved / "others" / "000.png")
    found = own_records.moved_split(meta, split, moved=moved, listed=listed)
    assert found.files == listed[split].files
    assert found.labels.tolist() == listed[split].labels.tolist()
    assert same_content(found, listed[split])


def test_content_counts_before_the_name(meta, listed, moved):
    """Two images have changed places: both are found, each under the name of the other."""
    first, second = (moved / name for name in listed["validation"].files[:2])
    first.rename(moved / "aside")
    second.rename(first)
    (moved / "aside").rename(second)
    assert same_content(own_records.moved_split(meta, "validation", moved=moved, listed=listed), listed["validation"])


def test_an_image_that_was_stored_anew_is_found_by_name_and_said_to_differ(workdir, meta, listed, moved, caplog):
    name = listed["validation"].files[0]
    pixels = Image.open(moved / name).copy()
    pixels.save(moved / name, compress_level=1)
    found = own_records.moved_split(meta, "validation", moved=moved, listed=listed)
    assert found.files == listed["validation"].files
    assert not same_content(found, listed["validation"])
    results = moved.parent / "results"
    arguments = ["--workdir", str(workdir), "--moved-data", str(moved), "--results-dir", str(results)]
    assert evaluate.main(arguments) == 0
    assert f"1 of 4 images of validation have other content than when the run began, such as {name}" in caplog.text
    assert figures(results)[0]["count"] == 4


def test_a_name_that_another_record_has_taken_is_no_match(meta, listed, moved):
    """Numbered names that moved up by one: train's image must not be measured as the one of validation it replaced."""
    name, other = listed["validation"].files[0], listed["train"].files[0]
    (moved / other).rename(moved / name)
    with pytest.raises(DataError, match=rf"1 of 4 images of the run's validation split(.|\n)*\n  {name}\n"):
        own_records.moved_split(meta, "validation", moved=moved, listed=listed)


def test_missing_images_are_counted_and_named(meta, listed, moved):
    for name in listed["validation"].files[1:3]:
        (moved / name).unlink()
    with pytest.raises(DataError, match=r"--moved-data .*: 2 of 4 images") as caught:
        own_records.moved_split(meta, "validation", moved=moved, listed=listed)
    assert all(f"\n  {name}\n" in str(caught.value) for name in listed["validation"].files[1:3])
    own_records.moved_split(meta, "train", moved=moved, listed=listed)


def test_names_that_lead_outside_the_data_are_never_opened(meta, listed, moved):
    outside = moved.parent / "outside.png"
    Image.new("RGB", (90, 90)).save(outside)
    own = listed["validation"]
    for name in ("../outside.png", str(outside), "disc/../../outside.png"):
        hostile = {**listed, "validation": own._replace(files=(name, *own.files[1:]), digests=(b"x" * 16,) * 4)}
        with pytest.raises(DataError, match="1 of 4 images"):
            own_records.moved_split(meta, "validation", moved=moved, listed=hostile)


def test_moved_data_of_a_run_without_a_list_go_by_names_and_it_is_said(meta, moved, caplog):
    old = without_list(meta)
    found = own_records.moved_split(old, "validation", moved=moved, listed=None)
    assert len(found) == 4
    assert (
        "no usable records.jsonl: its validation split was found by names only (names and labels agree" in caplog.text
    )
    renamed_one = next((moved / "disc").iterdir())
    renamed_one.rename(renamed_one.with_name("zzz.png"))
    with pytest.raises(DataError, match=r"--moved-data .*other names or labels than those of the run"):
        own_records.moved_split(old, "validation", moved=moved, listed=None)


def test_moved_data_that_cannot_be(meta, listed, moved, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, said in ((tmp_path / "nowhere", "there is no such folder"), (tmp_path / "empty", "no images there")):
        with pytest.raises(DataError, match=f"--moved-data .*{said}"):
            own_records.moved_split(meta, "validation", moved=folder, listed=listed)
    with pytest.raises(ConfigError, match="--split test: the run had only train, validation"):
        own_records.moved_split(meta, "test", moved=moved, listed=listed)
    config = meta.config.copy_and_resolve_references()
    config.data.source = "digits"
    with pytest.raises(ConfigError, match="come with a package"):
        own_records.moved_split(dataclasses.replace(meta, config=config), "train", moved=moved, listed=listed)


def test_images_that_were_added_leave_the_splits_of_the_run_alone(meta, listed, moved, caplog):
    generator = np.random.default_rng(1)
    for number in range(40):
        small.draw("disc", generator).save(moved / "disc" / f"new{number}.png")
    found = own_records.own_split(at(meta, moved), "validation", listed=listed)
    assert found.files == listed["validation"].files
    assert same_content(found, listed["validation"])
    assert "other names or labels than when the run began: the run's own 4 of validation are measured" in caplog.text
    caplog.clear()
    by_names = own_records.own_split(at(without_list(meta), moved), "validation", listed=None)
    assert len(by_names) == 12, "the rules hold out other images now"
    assert "it may have been trained on some of the images that are measured now" in caplog.text


def test_images_that_are_gone_are_left_out_and_it_is_said(meta, listed, moved, caplog):
    (moved / listed["validation"].files[0]).unlink()
    found = own_records.own_split(at(meta, moved), "validation", listed=listed)
    assert found.files == listed["validation"].files[1:]
    assert "1 of 4 images of the run's validation split are not there and not measured" in caplog.text


def test_an_unchanged_run_without_a_list_says_by_which_rules_it_goes(meta, images, caplog):
    assert len(own_records.own_split(without_list(meta), "validation", listed=None)) == 4
    assert "indexed by rules 1, as when it began; names and labels agree with its fingerprint" in caplog.text
    caplog.clear()
    known = dataclasses.replace(without_list(meta).records, fingerprint=None)
    own_records.own_split(dataclasses.replace(meta, records=known), "validation", listed=None)
    assert not caplog.records


def test_each_run_goes_by_the_rules_that_it_was_made_with(meta, listed, moved):
    """Rules 1 took the thumbnails of network storage for images, rules 2 do not."""
    (moved / "disc" / "@eaDir").mkdir()
    Image.new("RGB", (90, 90), "white").save(moved / "disc" / "@eaDir" / "SYNOPHOTO_THUMB_M.png")
    old = at(without_list(meta), moved)
    splits = [own_records.own_split(old, name, listed=None).files for name in ("train", "validation")]
    assert sum(map(len, splits)) == 21
    splits = [own_records.own_split(at(meta, moved), name, listed=None).files for name in ("train", "validation")]
    assert sum(map(len, splits)) == 20
    own = listed["validation"]
    thumbnail = "disc/@eaDir/SYNOPHOTO_THUMB_M.png"
    taken = {**listed, "validation": own._replace(files=(*own.files[1:], thumbnail), digests=(*own.digests[1:], None))}
    assert own_records.moved_split(old, "validation", moved=moved, listed=taken).files[-1] == thumbnail
    with pytest.raises(DataError, match="1 of 4 images"):
        own_records.moved_split(meta, "validation", moved=moved, listed=taken)


def test_names_in_the_other_unicode_form_are_the_same(meta, listed, moved):
    """As a copy to another system may write them; the images were stored anew as well."""
    own, name = listed["validation"], "disc/caf\u00e9.png"
    taken = {**listed, "validation": own._replace(files=(name, *own.files[1:]), digests=(b"x" * 16, *own.digests[1:]))}
    Image.new("RGB", (90, 90)).save(moved / "disc" / "cafe\u0301.png")
    assert own_records.moved_split(meta, "validation", moved=moved, listed=taken).files[0] == name


def test_data_that_are_gone_lead_to_the_flag(meta, listed, tmp_path):
    with pytest.raises(DataError, match="if the data have moved, give their place with --moved-data DIR"):
        own_records.own_split(at(meta, tmp_path / "gone"), "validation", listed=listed)


def test_class_folders_that_were_renamed_lead_to_the_flag_and_it_helps(meta, listed, moved):
    (moved / "disc").rename(moved / "discs")
    with pytest.raises(ConfigError, match="the data now have classes discs, square; .*--moved-data DIR finds"):
        own_records.own_split(at(meta, moved), "validation", listed=listed)
    found = own_records.moved_split(meta, "validation", moved=moved, listed=listed)
    assert same_content(found, listed["validation"])
    shutil.rmtree(moved / "square")
    with pytest.raises(DataError, match="--moved-data DIR finds"):
        own_records.own_split(at(meta, moved), "validation", listed=listed)


def test_files_that_have_changed_places_are_said_to_be_images_of_train(workdir, listed, moved, tmp_path, caplog):
    """Every name is there and every label fits, but validation holds an image that the run was trained on."""
    shutil.copy(moved / listed["train"].files[0], moved / listed["validation"].files[0])
    store = Store(small_split(listed["validation"], moved), size=75, mode="squash", cache_gb=0.0)
    assert store.prepare() == 0
    own_records.warn_of_changes(store, listed)
    name = listed["validation"].files[0]
    assert f"1 of them now have that of an image that the run was trained on: {name}" in caplog.text


def small_split(own: records.Listed, folder: Path) -> Split:
    return Split("validation", own.files, own.labels, lambda index: folder / own.files[index])


@pytest.mark.parametrize("damage", ["gone", "of another run"])
def test_a_lost_list_is_said_and_names_are_what_is_left(workdir, meta, moved, tmp_path, caplog, damage):
    copied = tmp_path / "copy"
    copied.mkdir()
    if damage != "gone":
        (copied / "records.jsonl").write_bytes((workdir / "records.jsonl").read_bytes()[:-1])
    assert own_records.listed_records(copied, meta) is None
    assert "records.jsonl: " in caplog.text
    assert "the images of the run are now known by their names only" in caplog.text
    assert len(own_records.moved_split(meta, "validation", moved=moved, listed=None)) == 4


def test_another_folder_with_images_of_the_run_is_said_to_have_them(workdir, listed, images, tmp_path, caplog):
    (tmp_path / "new" / "square").mkdir(parents=True)
    shutil.copy(images / listed["train"].files[0], tmp_path / "new" / "square" / "renamed.png")
    shutil.copy(images / listed["validation"].files[0], tmp_path / "new" / "square" / "other.png")
    Image.new("RGB", (90, 90)).save(tmp_path / "new" / "square" / "black.png")
    arguments = ["--workdir", str(workdir), "--results-dir", str(tmp_path), "--data"]
    assert evaluate.main([*arguments, str(tmp_path / "new")]) == 0
    assert "1 of 3 images, such as square/renamed.png: the run was trained on them" in caplog.text
    assert "1 of 3 images, such as square/other.png: they are the run's validation images" in caplog.text
    caplog.clear()
    for name in ("renamed", "other"):
        (tmp_path / "new" / "square" / f"{name}.png").unlink()
    assert evaluate.main([*arguments, str(tmp_path / "new")]) == 0
    assert not caplog.records


def test_validation_images_of_a_solved_head_are_said_to_have_chosen_nothing(meta, listed, images, caplog):
    """A solved head has no epochs among which they could have chosen."""
    solved = meta.config.copy_and_resolve_references()
    solved.optim.name = "exact"
    store = Store(small_split(listed["validation"], images), size=75, mode="squash", cache_gb=0.0)
    assert store.prepare() == 0
    for config, says in ((meta.config, "by which the best of its epochs was chosen"), (solved, "nothing was chosen")):
        caplog.clear()
        own_records.warn_of_known(store, listed, meta=dataclasses.replace(meta, config=config))
        assert "they are the run's validation images" in caplog.text
        assert says in caplog.text
        assert ("epochs" in caplog.text) == (config is meta.config)


@pytest.mark.parametrize("divided", [False, True])
def test_a_split_that_the_data_lack_is_said_with_the_place_for_it(meta, listed, images, tmp_path, divided):
    """Class folders alone take no folder of a split beside them."""
    if divided:
        images = tmp_path / "divided"
        for split in ("train", "validation"):
            shutil.copytree(meta.config.data.dir, images / split)
    with pytest.raises(ConfigError, match="--split test: the data have only train, validation; .*--data DIR") as error:
        own_records.own_split(at(meta, images), "test", listed=listed)
    assert (f"put images into {images}/test/CLASS" in str(error.value)) == divided


def test_results_go_where_they_are_asked_for_and_nowhere_else(workdir, tmp_path):
    before = sorted(str(path) for path in workdir.rglob("*"))
    assert evaluate.main(["--workdir", str(workdir), "--results-dir", str(tmp_path / "a" / "b")]) == 0
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == [
        "validation.json",
        "validation.predictions.csv",
    ]
    assert sorted(str(path) for path in workdir.rglob("*")) == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"--results-dir .*file: cannot be written: .*file is no directory"):
        evaluate.main(["--workdir", str(workdir), "--results-dir", str(tmp_path / "file")])
    assert (tmp_path / "file").read_text() == "mine"


def test_a_workdir_that_cannot_be_written_leads_to_the_flag_before_any_image_is_read(workdir, monkeypatch, tmp_path):
    monkeypatch.setattr(evaluation.os, "access", lambda path, mode: tmp_path in Path(path).parents)
    monkeypatch.setattr(evaluation, "open_split", lambda *_, **__: pytest.fail("too late"))
    with pytest.raises(CheckpointError, match=r"evaluation: cannot be written: .*--results-dir DIR"):
        evaluate.main(["--workdir", str(workdir)])


AS_ANOTHER_USER = """
import os, sys
from jaxcat import evaluate
from jaxcat.errors import CheckpointError
arguments, results = sys.argv[1:-1], sys.argv[-1]
os.umask(0)
assert evaluate.main([*arguments, "--results-dir", results + "/warm"]) == 0  # imports everything that is needed
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
try:
    evaluate.main(arguments)
except CheckpointError as error:
    print("REFUSED", error)
assert evaluate.main([*arguments, "--results-dir", results + "/new"]) == 0
"""


@pytest.mark.slow
def test_a_read_only_workdir_is_measured_by_another_user(workdir, images):
    """In a process that becomes a user who may write nothing there, if it is root's."""
    root = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    try:
        root.chmod(0o755)
        shutil.copytree(workdir, root / "run")
        shutil.copytree(images, root / "images")
        (root / "results").mkdir()
        (root / "results").chmod(0o777)
        shutil.rmtree(root / "run" / "evaluation")
        for path in (root / "run", *(root / "run").rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = sorted(str(path) for path in (root / "run").rglob("*"))
        arguments = ["--workdir", str(root / "run"), "--moved-data", str(root / "images"), str(root / "results")]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "JAXCAT_CACHE": str(root / "results" / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", AS_ANOTHER_USER, *arguments], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert f"REFUSED {root}/run/evaluation: cannot be written: {root}/run is read-only" in done.stdout
        assert "--results-dir DIR" in done.stdout
        assert figures(root / "results" / "new")[0]["confusion"] == figures(workdir / "evaluation")[0]["confusion"]
        assert sorted(str(path) for path in (root / "run").rglob("*")) == before
    finally:
        for path in (root / "run", *(root / "run").rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(root)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/", "root"),
        ("/validation", "root-validation"),
        ("/x/Test", "x-Test"),
        ("/x/new\nline\x1b", "new\\nline\\x1b"),
        ("/x/\udcff", "\\udcff"),
        ("/x/evaluation.json", "evaluation.json"),
    ],
)
def test_the_name_of_another_folder_is_the_name_of_its_files(folder, name):
    assert evaluation.name_of(Path(folder)) == name


def test_long_names_are_cut_and_stay_apart(tmp_path):
    names = {evaluation.name_of(tmp_path / f"{'ä' * 120}{number}") for number in range(3)}
    assert len(names) == 3
    assert max(len(name.encode()) for name in names) < 120
    assert evaluation.name_of(Path(".")) == evaluation.name_of(Path.cwd())


def test_images_that_a_table_names_are_found_whatever_their_suffix(tmp_path):
    paths = ["img/a0", "img/b0.dat"]
    (tmp_path / "img").mkdir()
    for path in paths:
        Image.new("RGB", (4, 4)).save(tmp_path / path, "PNG")
    found = found_images.images_below(tmp_path, "x", rules=2, names=[*paths, "../out", "/etc/hostname", "img/none"])
    assert sorted(found.files) == paths
