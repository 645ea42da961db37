"""Using a run through LiteRT: no JAX, the answers of XLA, the file of the head, and what falls back on XLA."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import small
from PIL import Image
from small_bottlenecks import SILENT
from test_exact_run import TINY

import jaxcat
from jaxcat import evaluate, predict
from jaxcat.bottlenecks.engines import converted
from jaxcat.bottlenecks.engines import litert as interpreters
from jaxcat.errors import CacheError, CheckpointError, ConfigError, EngineError
from jaxcat.inference import choice
from jaxcat.inference.evaluation import open_split
from jaxcat.inference.litert import HeadInNumPy
from jaxcat.models.plan import Dense, plan_of
from jaxcat.runs import head_file
from jaxcat.runs.meta import digests, meta_digest
from jaxcat.runs.workdir import steps
from jaxcat.system.console import Console

REPOSITORY = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("cache_of_this_file")
ENGINES = ("xla", "litert_float32", "litert_int8")
SOLVED = {"model.pool_from": "block2", "model.cut": "block4", "optim.penalty": 0.6}
TRAINED = {"optim.name": "adam", "model.cut": "block3", "model.pool_from": "cut", "model.pool": "avg"}


@pytest.fixture(scope="module")
def runs(folder, cache, tmp_path_factory) -> dict[str, Path]:
    """An exact head on bottlenecks of each engine, on the same images and blocks."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXCAT_CACHE", str(cache))
        for engine in ENGINES:
            settings = {**TINY, **SOLVED, "data.dir": folder, "bottleneck.engine": engine}
            jaxcat.fit("folder", root / engine, settings=settings)
    return {engine: root / engine for engine in ENGINES}


@pytest.fixture
def int8(runs, tmp_path) -> Path:
    """A copy of the run made with 8-bit weights, to do with as one likes."""
    return shutil.copytree(runs["litert_int8"], tmp_path / "run")


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    """Four images that no run has seen."""
    (tmp_path / "new").mkdir()
    for number in range(4):
        Image.fromarray(small.images(1, seed=100 + number)[0]).save(tmp_path / "new" / f"{number}.png")
    return sorted((tmp_path / "new").iterdir())


def without_jax(code: str, *arguments: str | Path) -> subprocess.CompletedProcess:
    """Runs `code` in another process, which fails if it has imported a framework at the end."""
    code += "\nfound = sys.modules.keys() & {'jax', 'flax', 'optax', 'orbax', 'tensorstore', 'tensorflow'}"
    code += "\nassert not found, found"
    return subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=300,
    )


def figures_of(workdir: Path, results: Path, *more: str | Path) -> dict:
    """What an evaluation of validation writes, with the probabilities of its images under "rows"."""
    assert evaluate.main(["--workdir", str(workdir), "--results-dir", str(results), *map(str, more)]) == 0
    written = json.loads((results / "validation.json").read_text())
    rows = np.genfromtxt(results / "validation.predictions.csv", delimiter=",", skip_header=1, usecols=(3, 4))
    return written | {"rows": rows}


@pytest.mark.slow
def test_predict_evaluate_and_load_import_no_framework_and_answer_as_xla_does(runs, folder, pictures, tmp_path):
    code = """
import json
import numpy as np
import jaxcat
from jaxcat import evaluate, predict
workdir, images, data, results = sys.argv[1:]
assert predict.main(["--workdir", workdir, images, "--features", f"{results}/features.npy"]) == 0
assert not sys.modules.keys() & {"scipy", "sklearn", "requests", "matplotlib"}, "they take long to import"
assert evaluate.main(["--workdir", workdir, "--results-dir", results]) == 0  # its bottlenecks are in the cache
assert evaluate.main(["--workdir", workdir, "--results-dir", results, "--data", data]) == 0  # images
classifier = jaxcat.load(workdir)
assert repr(classifier).startswith("<jaxcat classifier: 2 classes")
np.save(f"{results}/loaded.npy", classifier.predict([np.zeros((40, 50, 3), np.uint8)]))
"""
    data = tmp_path / "data"
    for name in ("disc", "square"):
        shutil.copytree(pictures[0].parent, data / name)
    workdir = runs["litert_float32"]
    result = without_jax(code, workdir, pictures[0].parent, data, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "all 12 found" in result.stdout
    rows = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    xla = jaxcat.load(workdir, engine="xla")
    expected = xla.predict(pictures)
    found = [dict(row["top"]) for row in rows]
    np.testing.assert_allclose([[row[name] for name in xla.classes] for row in found], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "features.npy"), xla.features(pictures), rtol=1e-4, atol=1e-5)
    black = xla.predict([np.zeros((40, 50, 3), np.uint8)])
    np.testing.assert_allclose(np.load(tmp_path / "loaded.npy"), black, rtol=0, atol=1e-5)
    of_rows = figures_of(workdir, tmp_path / "xla", "--engine", "xla")
    assert json.loads((tmp_path / "validation.json").read_text())["loss"] == pytest.approx(of_rows["loss"], rel=1e-4)
    assert json.loads((tmp_path / "data.json").read_text())["count"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_is_evaluated_by_any_engine_and_the_file_names_it(runs, tmp_path, engine):
    """By the rows that each run has put into the cache."""
    own = {}
    for made_with, workdir in runs.items():
        figures = figures_of(workdir, tmp_path / made_with, "--engine", engine)
        assert figures["engine"] == engine
        interpreter = figures["interpreter"]
        assert interpreter is None if engine == "xla" else interpreter.keys() == {"name", "version"}
        own[made_with] = figures["rows"]
    auto = figures_of(runs[engine], tmp_path / "auto")
    assert auto["engine"] == engine
    np.testing.assert_array_equal(auto["rows"], own[engine])
    by_xla = figures_of(runs[engine], tmp_path / "by xla", "--engine", "xla")["rows"]
    assert np.ptp(by_xla) > 0.5
    np.testing.assert_allclose(own[engine], by_xla, rtol=0, atol=0.1 if engine == "litert_int8" else 1e-5)
    if engine == "litert_int8":
        assert np.abs(own[engine] - by_xla).max() > 1e-5, "computed by another engine"


@pytest.mark.slow
def test_heat_maps_of_a_run_with_8_bit_weights_are_of_its_own_answers_by_jax_and_its_head(runs, pictures):
    workdir = runs["litert_int8"]
    classifier, xla = (jaxcat.load(workdir, engine=engine) for engine in ("litert_int8", "xla"))
    answers = [classifier.classes[label] for label in classifier.predict(pictures).argmax(axis=1)]
    found = classifier.explain(pictures)
    assert classifier.engine.computation().engine == "litert_int8"
    np.testing.assert_array_equal(found, xla.explain(pictures, classes=answers))
    assert found.max() > 0


@pytest.mark.slow
def test_images_and_cached_rows_give_the_same(runs, folder, tmp_path):
    workdir = runs["litert_int8"]
    classifier = jaxcat.load(workdir)
    of_rows = figures_of(workdir, tmp_path)["rows"]
    files = [path for name in ("disc", "square") for path in sorted((folder / "validation" / name).iterdir())]
    np.testing.assert_allclose(of_rows, classifier.predict(files), rtol=0, atol=1e-6)
    one_by_one = np.concatenate([classifier.predict([path]) for path in files])
    np.testing.assert_array_equal(one_by_one, classifier.predict(files))


# the file of the head -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_heads_are_those_of_the_checkpoints(folder, tmp_path):
    settings = {**TINY, **TRAINED, "data.dir": folder, "bottleneck.engine": "litert_float32"}
    run = jaxcat.fit("folder:trained", tmp_path / "run", settings=settings | {"epochs": 4, "model.hidden": 6})
    there = steps(run.workdir)
    assert len(there) < 4
    assert sorted(int(path.stem) for path in (run.workdir / "heads").iterdir()) == there
    for step in there:
        classifier = jaxcat.load(run.workdir, step=step)
        found = head_file.read_head(run.workdir, classifier.meta)
        assert found.keys() == {"hidden", "logits"}
        jax.tree.map(np.testing.assert_array_equal, dict(found), dict(classifier.trained["params"]))


@pytest.mark.slow
def test_no_head_beside_the_checkpoints_of_xla(runs):
    assert not (runs["xla"] / "heads").exists()


def foreign(path: Path) -> None:
    head_file.write_head(path.parent.parent, 1, {"logits": {"kernel": np.ones((144, 1)), "bias": np.ones(1)}})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Path.unlink, ""),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x01"), "damaged on disk, 1 array differs"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "not a regular file"),
        (foreign, "arrays differ"),
    ],
    ids=["missing", "damaged", "cut short", "empty", "a pipe", "of another run"],
)
def test_a_head_that_cannot_be_used_is_read_from_the_checkpoint(int8, pictures, caplog, change, said):
    expected = jaxcat.load(int8).predict(pictures)
    change(int8 / "heads" / "1.safetensors")
    classifier = jaxcat.load(int8)
    np.testing.assert_array_equal(classifier.predict(pictures), expected)
    assert classifier.engine.computation().engine == "litert_int8"
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)


def signed(workdir: Path, **changes) -> None:
    """Changes the meta of the checkpoint, and its digest with it."""
    path = workdir / "checkpoints" / "1" / "meta" / "metadata"
    plain = json.loads(path.read_text())
    plain["config"]["bottleneck"]["engine"] = changes.get("engine", plain["config"]["bottleneck"]["engine"])
    plain["digests"] |= changes.get("digests", {})
    plain["frozen_digests"] |= changes.get("frozen_digests", {})
    path.write_text(json.dumps(plain | {"meta_digest": meta_digest(plain)}))


@pytest.mark.slow
def test_a_signed_head_of_another_shape_is_refused(int8, pictures):
    head = {"logits": {"kernel": np.ones((3, 1), np.float32), "bias": np.ones(1, np.float32)}}
    head_file.write_head(int8, 1, head)
    signed(int8, digests=digests({"model": {"params": head}}))
    with pytest.raises(CheckpointError, match=r"the head's logits is \(3, 1\)"):
        jaxcat.load(int8).predict(pictures)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["auto", "litert", ""])
def test_a_signed_engine_that_there_is_not_is_refused(int8, engine):
    signed(int8, engine=engine)
    with pytest.raises(CheckpointError, match="config.bottleneck.engine"):
        jaxcat.load(int8)


@pytest.mark.slow
def test_a_signed_digest_of_no_block_changes_nothing(int8, pictures):
    expected = jaxcat.load(int8).predict(pictures)
    signed(int8, frozen_digests={"no block": "0", "": "0"})
    np.testing.assert_array_equal(jaxcat.load(int8).predict(pictures), expected)


@pytest.mark.slow
def test_a_planted_link_in_place_of_the_heads_is_refused(int8, folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "7.safetensors").write_text("mine")
    shutil.rmtree(int8 / "heads")
    (int8 / "heads").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="heads is a link"):
        head_file.write_head(int8, 1, {})
    with pytest.raises(CheckpointError, match="heads is a link"):
        head_file.keep_heads(int8, [1])
    assert (tmp_path / "elsewhere" / "7.safetensors").read_text() == "mine"


@pytest.mark.parametrize("classes", [2, 3])
def test_the_head_in_numpy_is_that_of_the_network(classes):
    config = small.tiny_config()
    config.model.hidden = 5
    network = small.network(config, classes=classes)
    params, stats = network.initialize(0)
    head = {name: params[name] for name in ("hidden", "logits")}
    features = np.random.default_rng(0).normal(size=(7, network.features)).astype(np.float32)
    expected, _ = network.suffix(head, {name: {} for name in head}, features)
    plan = plan_of(config.model, image_size=75, conventions=network.conventions, classes=classes)
    layers = [layer for layer in plan.layers if isinstance(layer, Dense)]
    found = HeadInNumPy(layers, head, features=plan.features).logits(features)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(CheckpointError, match="the head's hidden is"):
        HeadInNumPy(layers, head, features=plan.features + 1)


def test_digests_name_arrays_as_jax_does():
    tree = {"b": np.ones(3, np.float32), "a": {"x": np.zeros((2, 2)), "10": np.int32(1), "9": np.int32(2)}}
    transforms = {"u": optax.chain(optax.clip(1.0), optax.adamw(optax.linear_schedule(1, 0, 9))), "f": optax.sgd(1)}
    labels = {"b": "u", "a": {"x": "f", "10": "u", "9": "u"}}
    state = {"opt": optax.partition(transforms, labels).init(tree), "none": None, "list": [np.ones(1), (np.ones(2),)]}
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(state)[0]]
    assert digests(state).keys() == {jax.tree_util.keystr(path, simple=True, separator="/") for path in paths}
    assert digests(jax.device_put(tree)) == digests(jax.tree.map(jax.numpy.asarray, tree))


# which engine ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows_only(cache, tmp_path, monkeypatch) -> Path:
    """A copy of the cache without converted prefixes."""
    copied = shutil.copytree(cache, tmp_path / "cache", ignore=shutil.ignore_patterns("converted"))
    monkeypatch.setenv("JAXCAT_CACHE", str(copied))
    return copied


@pytest.mark.slow
def test_few_images_are_not_worth_a_conversion(int8, pictures, rows_only, capsys):
    assert predict.main(["--workdir", str(int8), *map(str, pictures)]) == 0
    output = capsys.readouterr()
    assert output.err.count("engine: xla, not the run's litert_int8: its converted prefix is not in the cache") == 1
    assert len(output.out.splitlines()) == 4
    assert not (rows_only / "converted").exists()


@pytest.mark.slow
def test_many_images_are_worth_it(int8, pictures, rows_only, capsys, monkeypatch):
    monkeypatch.setattr(predict, "LEAST_RECORDS", 4)
    monkeypatch.setattr(choice, "LEAST_RECORDS", 4)
    assert predict.main(["--workdir", str(int8), str(pictures[0].parent)]) == 0
    assert "engine: xla" not in capsys.readouterr().err
    assert list((rows_only / "converted").glob("*/prefix.tflite"))


@pytest.mark.slow
def test_cached_rows_need_no_converted_prefix(int8, rows_only, tmp_path, capsys):
    assert figures_of(int8, tmp_path / "results")["engine"] == "litert_int8"
    assert "all 12 found" in capsys.readouterr().out
    shutil.rmtree(rows_only)
    assert figures_of(int8, tmp_path / "results")["engine"] == "xla"
    assert "engine: xla, not the run's litert_int8" in capsys.readouterr().out


@pytest.mark.slow
def test_without_an_interpreter(int8, pictures, tmp_path, capsys, monkeypatch):
    for module in (interpreters, sys.modules["jaxcat.training.engine"]):
        monkeypatch.setattr(module, "interpreter", lambda: None)
    assert predict.main(["--workdir", str(int8), str(pictures[0])]) == 0
    said = capsys.readouterr().err
    assert said.count("engine: xla, not the run's litert_int8: no LiteRT interpreter is installed: pip install") == 1
    assert figures_of(int8, tmp_path / "results")["interpreter"] is None
    with pytest.raises(EngineError, match="pip install"):
        predict.main(["--workdir", str(int8), str(pictures[0]), "--engine", "litert_int8"])


@pytest.mark.slow
def test_a_failed_conversion_names_the_flag_of_the_command(int8, pictures, rows_only, capsys, monkeypatch):
    monkeypatch.setattr(converted, "PROGRAM", "json.no_such_program")
    monkeypatch.setattr(choice, "LEAST_RECORDS", 1)
    with pytest.raises(EngineError, match="^--engine litert_int8: the network could not .*; or use --engine xla$"):
        predict.main(["--workdir", str(int8), str(pictures[0]), "--engine", "litert_int8"])
    assert predict.main(["--workdir", str(int8), str(pictures[0])]) == 0
    said = capsys.readouterr().err
    assert "engine: xla, not the run's litert_int8: the network could not be converted for litert_int8: " in said
    assert "--config" not in said
    shutil.rmtree(rows_only / "converted")
    (rows_only / "converted").write_text("a file where a folder should be")
    with pytest.raises(CacheError, match="^--engine litert_int8: .* cannot be written: .*; or use --engine xla$"):
        predict.main(["--workdir", str(int8), str(pictures[0]), "--engine", "litert_int8"])


def test_an_engine_that_cannot_be_is_refused(finished, capsys):
    with pytest.raises(ConfigError, match=r"--engine litert_int8: --config.model.train_from=mixed0 trains a block"):
        jaxcat.load(finished, engine="litert_int8")
    with pytest.raises(ConfigError, match=r"--engine tpu: "):
        jaxcat.load(finished, engine="tpu")
    with pytest.raises(SystemExit):
        predict.main(["--weights", "x", "--engine", "litert_int8", "a.png"])
    assert "--engine litert_int8 needs --workdir" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["auto", "xla"])
def test_a_loaded_classifier_no_longer_needs_its_workdir(int8, pictures, engine):
    """A run that goes on removes checkpoints."""
    expected = jaxcat.load(int8, engine=engine).predict(pictures)
    classifier = jaxcat.load(int8, engine=engine)
    shutil.rmtree(int8)
    np.testing.assert_array_equal(classifier.predict(pictures), expected)


@pytest.mark.slow
def test_several_processes_compute_by_xla(int8, monkeypatch, caplog):
    monkeypatch.setattr(choice, "process_count", lambda: 2)
    assert jaxcat.load(int8).engine.computation().engine == "xla"
    assert "engine: xla, not the run's litert_int8: it computes in one process" in caplog.text
    with pytest.raises(ConfigError, match="--engine litert_int8: it computes in one process"):
        jaxcat.load(int8, engine="litert_int8")


@pytest.mark.slow
def test_an_engine_chosen_for_cached_rows_computes_images_too(int8, rows_only, pictures):
    classifier = jaxcat.load(int8)
    validation = open_split(classifier, split="validation")
    assert classifier.engine.cached(validation, console=SILENT) is not None
    found = classifier.predict(pictures)
    np.testing.assert_array_equal(found, jaxcat.load(int8, engine="litert_int8").predict(pictures))


@pytest.mark.slow
def test_the_engine_chosen_first_stays(int8, pictures):
    classifier = jaxcat.load(int8)
    chosen = classifier.engine.computation(console=SILENT)
    assert classifier.engine.computation(10**6, console=SILENT) is chosen
    assert chosen.engine == "litert_int8"
    assert jaxcat.load(int8, engine="xla").engine.computation().engine == "xla"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a terminal")
def test_progress_on_a_terminal_if_the_rows_go_elsewhere(int8, pictures, tmp_path):
    """Standard error is a terminal, standard output a file: how many images are done is shown, errors stay whole."""
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    ours, theirs = os.openpty()
    with open(tmp_path / "rows.jsonl", "w") as rows:
        command = [sys.executable, "-m", "jaxcat.predict", "--workdir", str(int8), str(pictures[0].parent), str(bad)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm", "COLUMNS": "200"}
        process = subprocess.Popen(command, stdout=rows, stderr=theirs, env=environment)
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other side has closed the terminal
                break
            if not part:
                break
            shown += part
        assert process.wait(120) == 1
    os.close(ours)
    assert "5 done" in shown.decode()
    assert f"error: {bad}" in shown.decode()
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
def test_nothing_is_counted_where_standard_error_is_no_terminal(int8, pictures, capsys):
    assert predict.main(["--workdir", str(int8), str(pictures[0].parent)]) == 0
    assert capsys.readouterr().err == ""
    assert not Console(stderr=True).is_terminal
