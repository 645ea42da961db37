"""Every path that a user can type is taken as it is, or refused before anything is done."""

from __future__ import annotations

import contextlib
import io
import os
import pwd
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_run
from jax.sharding import SingleDeviceSharding

import jaxcat
from jaxcat import configs, evaluate, flags, predict, train
from jaxcat.errors import CheckpointError, ConfigError, WeightsError
from jaxcat.inference.evaluation import name_of
from jaxcat.runs import checkpoints
from jaxcat.runs import meta as metas
from jaxcat.runs.first_meta import new_meta
from jaxcat.system import files, paths
from jaxcat.system.console import accept_any_text

# Names that mean something to a glob, a shell, a URL, rich, a file system, Python's formatting or TensorStore.
NAMES = {
    "brackets": "run [1]",
    "class": "[a-z]",
    "markup": "[red]run[bold] [i]",
    "emoji code": ":cat:",
    "backslash": "back\\slash",
    "star": "st*r",
    "question": "what?",
    "quotes": 'it\'s "quoted"',
    "hash": "#1",
    "percent": "100%s %20 %(x)s",
    "space": " spaces in it ",
    "emoji": "🐈 été",
    "colon": "12:30",
    "dash": "-rf",
    "tilde inside": "a~b~",
    "braces": "{0} {a,b} $HOME `id`",
    "newline": "two\nlines",
    "lock": "run.__lock",
    "long": "n" * 250,
    "undecodable": os.fsdecode(b"latin_\xe9"),
    "comma": "a,b=c;d&e|f<g>h(i)!",
}
EVERY = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)


# what was typed -------------------------------------------------------------------------------------------------------


@EVERY
def test_a_name_is_taken_as_it_is_with_or_without_a_trailing_slash(tmp_path, name, monkeypatch):
    folder = tmp_path / name
    folder.mkdir()
    assert paths.typed(str(folder)) == paths.typed(f"{folder}/") == paths.typed(folder) == folder
    monkeypatch.chdir(tmp_path)
    assert paths.typed(f"./{name}") == paths.typed(f"{name}/") == paths.typed(name) == folder
    assert paths.expanded(name) == Path(name)


def test_home_directories(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    me = pwd.getpwuid(os.getuid())
    assert paths.typed("~") == tmp_path / "home"
    assert paths.typed("~/runs/") == paths.expanded("~/runs") == tmp_path / "home" / "runs"
    assert paths.typed(f"~{me.pw_name}/runs") == Path(me.pw_dir) / "runs"
    assert paths.typed("./~") == tmp_path / "~"
    (tmp_path / "~backup.jpg").touch()  # as editors name them; there is no such user
    assert paths.typed("~backup.jpg") == tmp_path / "~backup.jpg"
    with pytest.raises(ConfigError, match="no user 'no_such_user'"):
        paths.typed("~no_such_user/runs")


def test_a_relative_path_keeps_its_meaning_and_links_stay(tmp_path, monkeypatch):
    (tmp_path / "a" / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "real")
    monkeypatch.chdir(tmp_path)
    before = paths.typed("link/inner")
    monkeypatch.chdir(tmp_path / "a")
    assert before == tmp_path / "link" / "inner"
    assert paths.typed("../link") == tmp_path / "link"
    assert paths.typed("../link/../real") == (tmp_path / "a" / "real").resolve()  # and not tmp_path/real


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the path is empty"),
        ("a\0b", "zero byte"),
        ("gs://bucket/run", "is a URL"),
        ("https://host/cats.zip", "is a URL"),
        ("file:///tmp/run", "write /tmp/run"),
        ("x" * 256, "File name too long"),
        ("x/" * 2000, "bytes: a path may have 3,500"),
    ],
)
def test_what_is_no_path_is_refused_in_one_line(text, says):
    with pytest.raises(ConfigError, match=says) as refused:
        paths.typed(text)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_status == 2


def test_a_link_to_itself_and_a_working_directory_that_is_gone(tmp_path, monkeypatch):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match="loop"):
        paths.typed(tmp_path / "loop")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match="working directory is gone"):
        paths.typed("runs")
    assert paths.typed(tmp_path) == tmp_path


# every flag × every name ----------------------------------------------------------------------------------------------

IMAGES = ["--config", "folder", "--config.data.dir=images"]


def _train(monkeypatch, *arguments: str) -> tuple:
    """(config, workdir) that the command would train with."""
    asked = []
    monkeypatch.setattr(train, "train", lambda *given: asked.append(given) or 0)
    train.main(arguments)
    return asked[0]


def _arguments(monkeypatch, command, does: str, *arguments: str):
    asked = []
    monkeypatch.setattr(command, does, lambda given: asked.append(given) or 0)
    command.main(arguments)
    return asked[0]


def _converted(monkeypatch, *arguments: str) -> list[Path]:
    import convert_weights

    asked = []
    monkeypatch.setattr(convert_weights, "find_file", lambda source: Path(source))
    monkeypatch.setattr(convert_weights, "has_top", lambda path: False)
    monkeypatch.setattr(convert_weights, "load_pretrained", lambda *args, **kwargs: None)
    monkeypatch.setattr(convert_weights, "write", lambda loaded, out: (out.touch(), asked.append(out)))
    convert_weights.main(arguments)
    return asked


def _cache(monkeypatch, text: str) -> Path:
    monkeypatch.setenv("JAXCAT_CACHE", text)
    files._cache_of.cache_clear()
    return files.cache_dir()


# Where a path can be typed → (monkeypatch, text) → the path that the command then uses.
TYPED = {
    "train --workdir": lambda m, t: _train(m, f"--workdir={t}", *IMAGES)[1],
    "train --config": lambda m, t: configs.find(t)[0],
    "train --config FILE:VARIANT": lambda m, t: configs.find(f"{t}:fast")[0],
    "config.data.dir": lambda m, t: Path(_train(m, "--workdir=w", *IMAGES, f"--config.data.dir={t}")[0].data.dir),
    "config.init_from": lambda m, t: Path(_train(m, "--workdir=w", *IMAGES, f"--config.init_from={t}")[0].init_from),
    "config.model.weights": lambda m, t: Path(
        _train(m, "--workdir=w", *IMAGES, f"--config.model.weights={t}")[0].model.weights
    ),
    "evaluate --workdir": lambda m, t: _arguments(m, evaluate, "measure", f"--workdir={t}").workdir,
    "evaluate --data": lambda m, t: _arguments(m, evaluate, "measure", "--workdir=w", f"--data={t}").data,
    "predict --workdir": lambda m, t: _arguments(m, predict, "write_rows", f"--workdir={t}", "x").workdir,
    "predict PATH": lambda m, t: _arguments(m, predict, "write_rows", "--workdir=w", "--", t).paths[0].absolute(),
    "convert_weights OUT": lambda m, t: _converted(m, "--", "source.h5", t)[0],
    "JAXCAT_CACHE": _cache,
}
WHERE = pytest.mark.parametrize("where", TYPED)


@WHERE
@EVERY
def test_every_flag_takes_every_name(tmp_path, monkeypatch, where, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    if where.startswith("train --config"):  # a file; its name has .py, or may be one of a recipe
        shutil.copy(configs.shipped()["folder"], tmp_path / name)
    if where == "config.model.weights":  # without a slash it is a name of published weights, unless there is a file
        (tmp_path / name).touch()
    for text in (name, f"~/{name}"):
        if where == "convert_weights OUT":
            (tmp_path / name).unlink(missing_ok=True)
        assert TYPED[where](monkeypatch, text) == tmp_path / name, text


@WHERE
@pytest.mark.parametrize("text", ["", "gs://bucket/x", "~no_such_user/x", "x" * 256])
def test_every_flag_refuses_what_is_no_path_in_one_line(monkeypatch, capsys, where, text):
    if (where, text) in {("config." + name, "") for name in ("data.dir", "init_from", "model.weights")}:
        return  # an empty setting means none
    if (where, text) == ("JAXCAT_CACHE", ""):
        return  # the same as no JAXCAT_CACHE
    if (where, text) == ("config.model.weights", "x" * 256):
        return  # a name, as far as anybody can tell: refused as an unknown one
    if (where, text) == ("predict PATH", "x" * 256):
        return  # an error line for this image, and the others are classified
    with pytest.raises((ConfigError, SystemExit)) as refused:
        TYPED[where](monkeypatch, text)
    said = str(refused.value) if isinstance(refused.value, ConfigError) else capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert any(word in said for word in ("empty", "is a URL", "no user", "too long", "no such file")), said


# configs --------------------------------------------------------------------------------------------------------------


def test_a_colon_in_the_path_of_a_config_file(tmp_path, monkeypatch):
    folder = tmp_path / "12:30"
    folder.mkdir()
    shutil.copy(configs.shipped()["cats_vs_dogs"], folder / "mine.py")
    monkeypatch.chdir(tmp_path)
    assert configs.find("12:30/mine.py") == (folder / "mine.py", None)
    assert configs.find("12:30/mine.py:fast") == (folder / "mine.py", "fast")
    assert flags.read_config("12:30/mine.py:fast", []).model.cut == "fast"
    (folder / "mine.py:fast").write_text("")  # the whole of it is a file
    assert configs.find("12:30/mine.py:fast") == (folder / "mine.py:fast", None)


def test_a_name_is_a_shipped_recipe_even_beside_a_folder_or_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "digits").write_text("get_config = None")
    assert configs.find("folder")[0].read_text().startswith('"""A folder of images')
    assert configs.find("digits:source") == (configs.shipped()["digits"], "source")
    assert flags.read_config("cats_vs_dogs:fast", []).model.cut == "fast"
    with pytest.raises(ConfigError, match="is a directory"):
        configs.find("./folder")
    with pytest.raises(ConfigError, match="--config digits.py: no such file; the shipped recipe .* --config digits$"):
        configs.find("digits.py")
    with pytest.raises(ConfigError, match="did you mean folder"):
        configs.find("foldr")


def test_get_config_of_the_shipped_recipes_can_be_imported():
    from jaxcat.configs.cats_vs_dogs import get_config

    assert get_config("fast").model.cut == "fast"


# checkpoints ----------------------------------------------------------------------------------------------------------


def tree() -> dict:
    return {"params": {"stem": {"kernel": jnp.arange(6.0).reshape(2, 3)}}, "stats": {"stem": {"mean": jnp.ones(3)}}}


def meta_of(saved: dict) -> metas.Meta:
    run = small_run.config(Path("images"))
    from jaxcat.models.completion import complete
    from jaxcat.models.preprocessing import Conventions

    complete(run)
    meta = new_meta(run, ("cat", "dog"), conventions=Conventions(), provenance={"source": "scratch"})
    import dataclasses

    return dataclasses.replace(meta, step=3, digests=metas.digests(saved))


def write_all(workdir: Path) -> metas.Meta:
    """A checkpoint and a frozen tree."""
    saved = {"model": tree(), "training": {"step": jnp.int32(3)}}
    meta = meta_of(saved)
    with checkpoints.Checkpoints(workdir) as writer:
        writer.save_frozen(tree())
        writer.save(saved, meta)
    return meta


def read_all(workdir: Path, meta: metas.Meta) -> None:
    """Both come back as they were."""
    place = SingleDeviceSharding(jax.devices()[0])
    model = checkpoints.restore_model(workdir, meta, shapes=tree(), sharding=place)
    frozen = checkpoints.restore_frozen(workdir, shapes=tree(), wanted=metas.digests(tree()), sharding=place)
    for found in (model, frozen):
        assert all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(tree())))


@pytest.mark.slow
@EVERY
def test_a_checkpoint_below_every_name_comes_back(tmp_path, name):
    workdir = tmp_path / name
    workdir.mkdir()
    (tmp_path / "star").mkdir()
    meta = write_all(workdir)
    read_all(workdir, meta)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "star"]), "nothing beside it"
    workdir.rename(tmp_path / "renamed")
    read_all(tmp_path / "renamed", meta)


def test_a_name_that_is_a_pattern_of_its_neighbour(tmp_path):
    """Orbax would have merged the arrays of `run1` into those of `run[1]`, which its glob finds there."""
    for name in ("run1", "run[1]"):
        (tmp_path / name).mkdir()
        read_all(tmp_path / name, write_all(tmp_path / name))


def test_a_run_of_an_older_version_under_such_a_name_can_be_restored(tmp_path, monkeypatch):
    """Its arrays are there, and the list of them is not; see runs/unmerged.py."""
    monkeypatch.setattr(checkpoints, "plain_link", contextlib.nullcontext)
    workdir = tmp_path / "run [1]"
    workdir.mkdir()
    meta = write_all(workdir)
    monkeypatch.undo()
    assert not list(workdir.rglob("manifest.ocdbt"))[:1] or not (workdir / "frozen" / "manifest.ocdbt").exists()
    before = sorted(workdir.rglob("*"))
    read_all(workdir, meta)
    assert sorted(workdir.rglob("*")) == before, "nothing is written there"
    workdir.rename(tmp_path / "renamed")
    read_all(tmp_path / "renamed", meta)
    shutil.rmtree(next((tmp_path / "renamed" / "frozen").glob("ocdbt.process_*")) / "d")
    with pytest.raises(CheckpointError, match="frozen"):
        read_all(tmp_path / "renamed", meta)


def test_without_a_temporary_directory_nothing_is_begun(tmp_path, monkeypatch):
    workdir = tmp_path / "run [1]"
    workdir.mkdir()
    monkeypatch.setattr(paths.tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="set TMPDIR"), checkpoints.Checkpoints(workdir):
        pass
    (tmp_path / "[tmp]").mkdir()
    monkeypatch.setattr(paths.tempfile, "tempdir", str(tmp_path / "[tmp]"))
    with pytest.raises(CheckpointError, match="set TMPDIR"), checkpoints.Checkpoints(workdir):
        pass


def test_what_etils_takes_for_a_bucket_is_a_folder(tmp_path):
    assert paths.is_misread(Path("/gs/run"))
    assert paths.is_misread(Path("/s3"))
    assert not paths.is_misread(Path("/data/gs/run"))


# whole runs -----------------------------------------------------------------------------------------------------------


def run(main: Callable, arguments: list[str]) -> tuple[int, bytes]:
    """The status of a command and its output; the stream takes undecodable bytes, as a command's does."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    accept_any_text(out)
    with contextlib.redirect_stdout(out):
        status = main(arguments)
    return status, out.buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["run [1] *?\\ '\" #%s :cat: [red] 🐈.__lock", os.fsdecode(b"latin_\xe9")], ids=["all", "undecodable"]
)
def test_a_whole_run_whose_every_path_has_such_a_name(tmp_path, folder, name, monkeypatch):
    root = tmp_path / name
    root.mkdir()
    shutil.copytree(folder, root / name)
    shutil.copy(configs.shipped()["folder"], root / f"{name}.py")
    monkeypatch.setenv("JAXCAT_CACHE", str(root / "cache"))
    monkeypatch.setenv("HOME", str(root))
    monkeypatch.chdir(root)
    tiny = ["--config.model.weights=none", "--config.model.width=0.0625", "--config.data.image_size=75"]
    tiny += ["--config.model.cut=mixed0", "--config.bottleneck.views=1"]
    command = ["--config", f"./{name}.py:default", f"--config.data.dir=~/{name}", *tiny]
    assert run(train.main, [*command, "--workdir=a", "--config.epochs=1"])[0] == 0
    assert run(train.main, [*command, "--workdir=a", "--config.epochs=2"])[0] == 0
    assert run(train.main, [*command, f"--workdir={root}/b/", "--config.init_from=a", "--config.epochs=1"])[0] == 0
    monkeypatch.chdir(tmp_path)
    assert run(evaluate.main, ["--workdir", f"{name}/a", "--data", f"{name}/{name}/validation"])[0] == 0
    assert (root / "a" / "evaluation" / f"{name_of(root / name / 'validation')}.json").is_file()
    assert run(evaluate.main, ["--workdir", f"{root}/b"])[0] == 0
    status, out = run(predict.main, ["--workdir", f"{name}/b", f"{name}/{name}/validation/disc"])
    assert (status, len(out.splitlines())) == (0, 6)
    assert len(jaxcat.load("~/a").classes) == 2


def test_an_evaluation_of_a_folder_with_a_long_name_has_a_name_that_a_file_can_have(tmp_path):
    long = tmp_path / ("é" * 120) / ("é" * 120) / "validation"
    name = name_of(long)
    assert len(os.fsencode(f"{name}.predictions.csv")) < 256
    assert name_of(tmp_path / ("é" * 120)) != name_of(tmp_path / ("é" * 119 + "e"))
    assert name_of(tmp_path / "cats") == "cats"
    assert name_of(Path("/")) == "root"


def test_a_url_for_weights_is_refused_before_anything_is_done():
    from jaxcat.weights.load import load_pretrained

    with pytest.raises(WeightsError, match="is a URL"):
        load_pretrained("https://host/weights.h5")
