"""Registry, the reading of Keras's HDF5 layout, and the strict load."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import re
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict

from jaxcat import inception
from jaxcat.errors import WeightsError
from jaxcat.weights import MINUS_ONE_TO_ONE, REGISTRY, ZERO_TO_ONE, Preprocessing, load_pretrained
from jaxcat.weights.keras import UNITS, from_legacy_h5

WIDTH = 0.05  # a network small enough to write to disk in every test
TENSORS = {
    "conv/kernel": ("conv2d", "kernel"),
    "bn/bias": ("batch_normalization", "beta"),
    "bn/mean": ("batch_normalization", "moving_mean"),
    "bn/var": ("batch_normalization", "moving_variance"),
}


def random_network(seed: int = 0) -> dict[str, np.ndarray]:
    """A whole narrow Inception-v3 by path, all values in [0, 1)."""
    stages = nnx.eval_shape(lambda: inception.build("mixed10", inception.Options(width=WIDTH)))
    _, *states = nnx.split(stages, nnx.Param, nnx.BatchStat)
    rng = np.random.default_rng(seed)
    shapes: dict = {}
    for state in states:
        shapes |= flatten_dict(nnx.to_pure_dict(state), sep="/")
    return {name: rng.random(leaf.shape, np.float32) for name, leaf in shapes.items()}


def dataset_name(path: str, *, first: int, suffix: str = ":0") -> str:
    """`stem/conv1/bn/bias` → `batch_normalization_1/batch_normalization_1/beta:0`, as Keras 2 writes it."""
    stage, unit, tensor = path.split("/", 2)
    kind, weight = TENSORS[tensor]
    number = UNITS.index(f"{stage}/{unit}") + first
    layer = f"{kind}_{number}" if number else kind
    return f"{layer}/{layer}/{weight}{suffix}"


def write(path: Path, network: dict[str, np.ndarray], *, first: int = 1, **more: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in network.items():
            file[dataset_name(name, first=first)] = array
        for name, array in more.items():
            file[f"predictions/predictions/{name}:0"] = array
    return path


@pytest.fixture(scope="module")
def network() -> dict[str, np.ndarray]:
    return random_network()


@pytest.fixture
def weights(tmp_path, network) -> Path:
    return write(tmp_path / "weights.h5", network)


def load(source, **options):
    return load_pretrained(str(source), **({"cut": "mixed10", "width": WIDTH} | options))


def test_the_table_is_the_order_in_which_inception_declares_its_convolutions():
    declared = []

    def build():  # looked at inside: `eval_shape` returns everything sorted by name
        stages = inception.build("mixed10", inception.Options())
        for stage, module in stages.items():
            units = [name for name, value in vars(module).items() if isinstance(value, inception.ConvBN)]
            declared.extend(f"{stage}/{name}" for name in units)
        return stages

    nnx.eval_shape(build)
    assert list(UNITS) == declared
    assert len(UNITS) == 94


@pytest.mark.parametrize("first", [1, 0, 95, 9_950], ids=["published", "first unnumbered", "offset", "five digits"])
def test_every_tensor_arrives_in_its_place_wherever_the_numbers_start(tmp_path, network, first):
    loaded = load(write(tmp_path / "weights.h5", network, first=first))
    flat = flatten_dict(loaded.params, sep="/") | flatten_dict(loaded.stats, sep="/")
    assert flat.keys() == network.keys()
    for name, array in flat.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, network[name], err_msg=name)


def test_convolutions_and_normalisations_are_numbered_apart(tmp_path, network):
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        for name, array in network.items():
            file[dataset_name(name, first=7 if "/conv/" in name else 40)] = array
    np.testing.assert_array_equal(
        load(tmp_path / "weights.h5").stats["stem"]["conv1"]["bn"]["var"], network["stem/conv1/bn/var"]
    )


def test_a_whole_saved_model_is_read_without_its_optimizer(tmp_path, network):
    with h5py.File(tmp_path / "model.h5", "w") as file:
        for name, array in network.items():
            file["model_weights/" + dataset_name(name, first=1, suffix="")] = array
        file["model_weights/top_level_model_weights/something"] = np.zeros(3, np.float32)
        file["optimizer_weights/adam/iteration"] = np.int64(7)
    assert load(tmp_path / "model.h5").params.keys() == inception.STAGES.keys()


def test_half_and_double_precision_become_float32(tmp_path, network):
    halves = {name: array.astype(np.float16 if "/conv/" in name else np.float64) for name, array in network.items()}
    loaded = load(write(tmp_path / "weights.h5", halves))
    leaves = [*flatten_dict(loaded.params).values(), *flatten_dict(loaded.stats).values()]
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}


def test_the_cut_leaves_out_what_comes_after_it(weights):
    loaded = load(weights, cut="mixed3")
    assert list(loaded.params) == list(loaded.stats) == ["stem", "mixed0", "mixed1", "mixed2", "mixed3"]


def test_provenance_is_plain_json_and_names_the_file(weights):
    loaded = load(weights)
    assert json.loads(json.dumps(loaded.provenance)) == loaded.provenance
    assert loaded.provenance["source"] == str(weights)
    assert loaded.provenance["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert Preprocessing.from_dict(loaded.provenance["preprocessing"]) == loaded.preprocessing == MINUS_ONE_TO_ONE
    assert loaded.pool_counts_padding is False


def test_the_top_is_excused_by_name_and_loaded_on_request(tmp_path, network):
    top = {"kernel": np.ones((2048, 1000), np.float32), "bias": np.arange(1000, dtype=np.float32)}
    path = write(tmp_path / "weights.h5", network, **top)
    assert "logits" not in load(path).params
    logits = load(path, with_top=True).params["logits"]
    np.testing.assert_array_equal(logits["bias"], top["bias"])
    assert logits["kernel"].shape == (2048, 1000)


def test_a_top_that_is_asked_for_must_be_there_and_fit(tmp_path, network, weights):
    with pytest.raises(WeightsError, match=r"- logits/kernel \(2048, 1000\)"):
        load(weights, with_top=True)
    other = {"kernel": np.ones((2048, 1008), np.float32), "bias": np.ones(1008, np.float32)}
    with pytest.raises(WeightsError, match=r"\+ logits/kernel \(2048, 1008\)"):
        load(write(tmp_path / "fid.h5", network, **other), with_top=True)


def test_a_top_on_a_cut_network_is_refused(weights):
    with pytest.raises(WeightsError, match="--config.model.cut=mixed10"):
        load(weights, with_top=True, cut="mixed7")


# What is wrong with the file → what the diff must say. mixed5/branch7x7_2 is conv2d_43.
FLAWS = {
    "missing layer": (lambda file: file.__delitem__("conv2d_43"), [r"^- mixed5/branch7x7_2/conv/kernel \(.*\)$"]),
    "missing tensor": (
        lambda file: file.__delitem__("batch_normalization_94/batch_normalization_94/beta:0"),
        [r"^- mixed10/branch_pool/bn/bias \(10,\)$"],
    ),
    "layer too much": (
        lambda file: file.create_dataset("conv2d_95/kernel:0", data=np.ones((1, 1, 2, 2))),
        [r"^\+ \[conv2d_95/kernel:0\] \(1, 1, 2, 2\)$"],
    ),
    "foreign layer": (
        lambda file: file.create_dataset("dense/dense/kernel:0", data=np.ones((4, 2))),
        [r"^\+ \[dense/dense/kernel:0\] \(4, 2\)$"],
    ),
    "scale": (
        lambda file: file.create_dataset("batch_normalization_1/gamma:0", data=np.ones(2)),
        [r"^\+ stem/conv1/bn/scale \(2,\)$"],
    ),
    "misshapen": (
        lambda file: replace(file, "conv2d_1/conv2d_1/kernel:0", np.ones((3, 3, 1, 2))),
        [r"^- stem/conv1/conv/kernel \(3, 3, 3, 2\)$", r"^\+ stem/conv1/conv/kernel \(3, 3, 1, 2\)$"],
    ),
    "not a number": (
        lambda file: file["conv2d_1/conv2d_1/kernel:0"].write_direct(np.full((3, 3, 3, 2), np.nan)),
        [r"^\+ stem/conv1/conv/kernel \(3, 3, 3, 2\) with 54 values that are NaN or infinite$"],
    ),
    "infinite": (
        lambda file: replace(file, "conv2d_1/conv2d_1/kernel:0", np.full((3, 3, 3, 2), 1e300)),
        [r"^\+ stem/conv1/conv/kernel .* with 54 values that are NaN or infinite$"],
    ),
    "negative variance": (
        lambda file: replace(
            file, "batch_normalization_1/batch_normalization_1/moving_variance:0", np.array([1.0, -1e-9])
        ),
        [r"^\+ stem/conv1/bn/var \(2,\) with 1 negative variances$"],
    ),
    "soft link": (
        lambda file: replace(file, "conv2d_2", h5py.SoftLink("/conv2d_3")),
        [r"^- stem/conv2/conv/kernel"],
    ),
    "link to another file": (
        lambda file: replace(file, "conv2d_2", h5py.ExternalLink("other.h5", "/conv2d_2")),
        [r"^- stem/conv2/conv/kernel"],
    ),
}


def replace(file: h5py.File, name: str, value) -> None:
    del file[name]
    file[name] = value


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flaw_is_refused_and_shown(weights, network, flaw):
    write(weights.with_name("other.h5"), network)
    damage, patterns = FLAWS[flaw]
    with h5py.File(weights, "r+") as file:
        damage(file)
    with pytest.raises(WeightsError) as caught:
        load(weights)
    assert str(weights) in str(caught.value)
    for pattern in patterns:
        assert re.search(pattern, str(caught.value), re.MULTILINE), caught.value


def test_a_long_diff_is_cut_with_a_count(weights):
    with pytest.raises(WeightsError) as caught:
        load(weights, width=1.0)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + 2 * 21
    assert lines[21] == f"- … and {4 * 94 - 20} more"
    assert lines[1] == "- stem/conv1/bn/bias (32,)"


def test_integers_are_not_weights(weights):
    with h5py.File(weights, "r+") as file:
        replace(file, "conv2d_1/conv2d_1/kernel:0", np.ones((3, 3, 3, 2), np.int32))
    with pytest.raises(WeightsError, match="conv2d_1/conv2d_1/kernel:0 holds int32"):
        load(weights)


def test_values_stored_outside_the_file_are_refused(weights, tmp_path):
    name = "conv2d_1/conv2d_1/kernel:0"
    raw = tmp_path / "raw"
    np.ones((3, 3, 3, 2), np.float32).tofile(raw)
    with h5py.File(weights, "r+") as file:
        del file[name]
        file.create_dataset(name, (3, 3, 3, 2), np.float32, external=[(str(raw), 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(WeightsError, match="lie in another file"):
        load(weights)


def test_an_array_too_large_for_the_network_is_not_unpacked(weights):
    with h5py.File(weights, "r+") as file:
        file.create_dataset("dense/kernel:0", (2**20, 2**20), np.float32, compression="gzip")
    with pytest.raises(WeightsError, match="dense/kernel:0 .*larger than any"):
        load(weights)


def test_keras_3_weights_are_refused_with_the_way_out(tmp_path):
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        file["layers/conv2d/vars/0"] = np.ones((3, 3, 3, 32), np.float32)
    with pytest.raises(WeightsError, match=r"Keras 3.*model\.save"):
        load(tmp_path / "x.weights.h5")


def zipped(path: Path, member: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, bytes(1000))
    return path


FILES = {
    "cut in half": (lambda path, whole: path.write_bytes(whole[: len(whole) // 2]), "incomplete"),
    "empty": (lambda path, whole: path.write_bytes(b""), "an empty file"),
    "text": (lambda path, whole: path.write_text("hello, weights"), "a text file"),
    "web page": (lambda path, whole: path.write_text("<!DOCTYPE html><p>404"), "a web page"),
    "lfs": (lambda path, whole: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
    "torch": (lambda path, whole: zipped(path, "archive/data.pkl"), "PyTorch"),
    "keras": (lambda path, whole: zipped(path, "model.weights.h5"), "Keras 3"),
    "zip cut short": (lambda path, whole: path.write_bytes(zipped(path, "x").read_bytes()[:500]), "cut short"),
    "pickle": (lambda path, whole: path.write_bytes(pickle.dumps({})), "a pickle"),
    "safetensors": (lambda path, whole: path.write_bytes((2).to_bytes(8, "little") + b"{}"), "safetensors"),
    "noise": (lambda path, whole: path.write_bytes(bytes(range(200, 220)) + b"\0"), "unknown format"),
}


@pytest.mark.parametrize("kind", FILES)
def test_other_files_are_refused_by_what_they_look_like(tmp_path, weights, kind):
    create, expected = FILES[kind]
    path = tmp_path / "other"
    create(path, weights.read_bytes())
    with pytest.raises(WeightsError, match=expected) as caught:
        load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_damaged_bytes_are_refused_without_a_traceback(weights, place):
    """Bytes of 0xff break HDF5's structure or, inside an array, make NaN."""
    content = bytearray(weights.read_bytes())
    start = int(len(content) * place)
    content[start : start + 4096] = b"\xff" * 4096
    weights.write_bytes(content)
    with pytest.raises(WeightsError):
        load(weights)


def test_an_unknown_source_names_the_nearest():
    with pytest.raises(WeightsError, match="Did you mean keras-imagenet.*--config.model.weights=PATH"):
        load("keras-imagnet")


def test_a_directory_is_not_a_weights_file(tmp_path):
    with pytest.raises(WeightsError, match="is a directory"):
        load(tmp_path)


def test_published_weights_need_the_published_width():
    with pytest.raises(WeightsError, match="--config.model.width=1.0"):
        load("keras-imagenet", width=0.5)


def test_the_published_file_without_top_cannot_give_one():
    with pytest.raises(WeightsError, match="keras-imagenet-top"):
        load("keras-imagenet", width=1.0, with_top=True)


def test_a_name_is_loaded_from_the_cache_with_its_own_conventions(shared, monkeypatch, tmp_path):
    """The published file cannot be had here: another takes its place under a name of its own."""
    stand_in = shared / "weights" / "inception_v3_nsfw_notop.h5"
    spec = dataclasses.replace(
        REGISTRY["keras-imagenet"],
        name="stand-in",
        file="stand_in.h5",
        size=stand_in.stat().st_size,
        md5=hashlib.md5(stand_in.read_bytes()).hexdigest(),
        preprocessing=ZERO_TO_ONE,
        pool_counts_padding=True,
    )
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path))
    monkeypatch.setitem(REGISTRY, "stand-in", spec)
    (tmp_path / "stand_in.h5").symlink_to(stand_in.resolve())
    loaded = load_pretrained("stand-in", cut="stem")
    assert loaded.preprocessing == ZERO_TO_ONE
    assert loaded.pool_counts_padding is True
    assert loaded.provenance["licence"] == "MIT"
    assert loaded.provenance["url"] == spec.url


@pytest.mark.parametrize("name", REGISTRY)
def test_registry_entries_can_be_verified_and_say_whose_they_are(name):
    spec = REGISTRY[name]
    assert spec.name == name
    assert spec.url.startswith("https://")
    assert spec.url.endswith("/" + spec.file)
    assert re.fullmatch("[0-9a-f]{32}", spec.md5)
    assert spec.licence
    assert spec.notice
    assert spec.preprocessing == MINUS_ONE_TO_ONE


def test_preprocessing_survives_json():
    odd = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert Preprocessing.from_dict(json.loads(json.dumps(odd.to_dict()))) == odd


def test_the_real_file_loads(shared):
    loaded = load_pretrained(str(shared / "weights" / "inception_v3_nsfw_notop.h5"), cut="mixed10")
    params, stats = flatten_dict(loaded.params), flatten_dict(loaded.stats)
    assert sum(path[-1] == "kernel" for path in params) == 94
    assert len(params) == 188
    assert len(stats) == 188
    assert sum(array.size for array in [*params.values(), *stats.values()]) == 21_802_784
    assert loaded.provenance["sha256"].startswith("45d6b617")


def test_the_reader_alone_checks_nothing(weights):
    with h5py.File(weights, "r+") as file:
        del file["conv2d_43"]
    params, _ = from_legacy_h5(weights, with_top=False)
    assert "conv" not in params["mixed5"]["branch7x7_2"]
