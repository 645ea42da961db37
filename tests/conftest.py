"""Eight CPU devices for every test, and where the shared real images and weights are."""

import gc
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before anything imports TensorFlow
# Threads of OpenBLAS wait for the next product in a loop: a fit to five numbers takes ten times the processor's time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before anything imports NumPy
# Compiling is most of what tests wait for, and these three leave a third of it; convolutions are Eigen's either way.
# Commands that tests start in a process of their own inherit them. `as_users_have_it` is without them, as are
# scripts/quickstart.sh and the published benchmarks.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
if version("jaxlib").startswith("0.10."):  # a newer XLA ends the process at a flag that it does not know
    more = ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *more]).strip()

import jax
import pytest

gc.set_threshold(50_000, 10, 10)  # nearly as `cli.run` does: tracing takes a tenth less than with Python's 700
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items) -> None:
    """Tests in a browser are slow ones."""
    for item in items:
        if "chromium" in item.fixturenames:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory) -> None:
    """Tests share the programs they compile, as runs of a user do; so do the workers of pytest-xdist, and commands."""
    from jaxcat.system.compilation import enable_compilation_cache

    root = tmp_path_factory.getbasetemp()
    programs = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "xla"
    programs.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXCAT_CACHE", str(root / "cache"))
        enable_compilation_cache()
    of_commands = Path(jax.config.jax_compilation_cache_dir)
    of_commands.parent.mkdir(exist_ok=True)
    of_commands.symlink_to(programs)
    jax.config.update("jax_compilation_cache_dir", str(programs))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)


@pytest.fixture(scope="session", autouse=True)
def conversions_are_forked():
    """Converting for LiteRT in a process that need not import TensorFlow; test_converted.py has the real one."""
    import processes

    from jaxcat.bottlenecks.engines import converted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converted, "subprocess", SimpleNamespace(Popen=processes.Forked, PIPE=subprocess.PIPE))
        yield


@pytest.fixture(scope="session", autouse=True)
def curves_are_empty_files():
    """Hundreds of runs end with a learning curve, and drawing one takes 0.1 s; test_curve.py and commands draw it."""
    from jaxcat.training import reporting

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reporting, "learning_curve", lambda history, path: path.touch())
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and weights that lies beside the repository, or a skip."""
    path = Path(os.environ.get("JAXCAT_SHARED", REPOSITORY.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no shared folder at {path}; set JAXCAT_SHARED")
    return path


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def streams_take_what_they_took():
    """`jaxcat.fit` lets standard output write undecodable names as bytes; pytest could not read them in later tests."""
    yield
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@pytest.fixture
def as_users_have_it(monkeypatch) -> None:
    """Commands in processes of their own are compiled as those of users are."""
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS")
    monkeypatch.delenv("XLA_FLAGS", raising=False)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    """A cache for each test; compiled programs stay where all tests share them."""
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """A cache for all tests of a file, if they use `cache_of_this_file`; runs of module fixtures set it themselves."""
    return tmp_path_factory.mktemp("cache") / "cache"


@pytest.fixture
def cache_of_this_file(cache, cache_of_its_own, monkeypatch) -> None:
    monkeypatch.setenv("JAXCAT_CACHE", str(cache))


@pytest.fixture(scope="module")
def small_batches() -> Iterator[None]:
    """For files with few images: 32 in a batch for bottlenecks, as on one device; else 8 devices pad it to 256."""
    from jaxcat.bottlenecks.engines import xla

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(xla.IMAGES_PER_DEVICE, "cpu", xla.IMAGES_PER_DEVICE["cpu"] // 8)
        yield


@pytest.fixture
def no_kept_programs() -> Iterator[None]:
    """For tests that replace what makes programs: none of another test is used, and none of theirs stays."""
    from jaxcat.runs import restore

    restore._network.cache_clear()  # programs are kept by network
    yield
    restore._network.cache_clear()


@pytest.fixture
def rows_written(monkeypatch) -> dict[str, int]:
    """How many bottlenecks have been added to each part, by block and statistic; clear it in between."""
    from jaxcat.bottlenecks.rows import Rows

    counts: dict[str, int] = {}
    add = Rows.add

    def counted(self, wanted, values):
        name = "-".join(self.folder.name.split("-")[:2])
        counts[name] = counts.get(name, 0) + len(wanted)
        add(self, wanted, values)

    monkeypatch.setattr(Rows, "add", counted)
    return counts


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Iterator[Path]:
    """A folder data set of drawn images, two classes; not to be changed."""
    import small

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in root.rglob("*.*")}

    root = small.image_folder(tmp_path_factory.mktemp("images"))
    drawn = contents()
    yield root
    assert contents() == drawn, "a test has changed images that others use"


@pytest.fixture(scope="session")
def finished(tmp_path_factory, folder) -> Path:
    """The workdir of a finished run of `small_run.config`; reports and evaluations may be added to it, nothing else."""
    from small_run import config

    from jaxcat.train import train

    workdir = tmp_path_factory.mktemp("run")
    assert train(config(folder), workdir) == 0
    return workdir


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """The same, to do with as one likes."""
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture(scope="module")
def solved(folder, tmp_path_factory) -> Path:
    """The workdir of a run with an exact head; not to be changed."""
    from test_exact_run import fit

    workdir = tmp_path_factory.mktemp("solved") / "run"
    fit(folder, workdir)
    return workdir


@pytest.fixture(scope="module")
def client(solved):
    """A server of `solved`."""
    from small_serve import serving

    with serving(solved) as client:
        yield client


@pytest.fixture
def own(solved, tmp_path):
    """A server of a copy of `solved`, to keep corrections in."""
    from small_serve import serving

    with serving(shutil.copytree(solved, tmp_path / "own")) as client:
        yield client


@pytest.fixture(scope="session")
def chromium():
    """A browser for all tests of a worker; their files are skipped where there is none."""
    import browser

    with browser.started() as process:
        yield process


@pytest.fixture(scope="module")
def tab(chromium):
    """A tab of it for the pages of all tests of a file."""
    with chromium.tab() as tab:
        yield tab


@pytest.fixture(scope="module")
def network() -> dict:
    """Random tensors of a narrow Inception-v3, by path; see weights_files.py."""
    from weights_files import random_network

    return random_network()


@pytest.fixture
def weights(tmp_path, network) -> Path:
    """The same in a Keras legacy file."""
    from weights_files import write_legacy

    return write_legacy(tmp_path / "weights.h5", network)
