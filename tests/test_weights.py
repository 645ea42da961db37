"""Registry, the reading of Keras's HDF5 layout, and the strict load."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re

import h5py
import numpy as np
import pytest
import small
from flax import nnx
from flax.traverse_util import flatten_dict
from weights_files import dataset_name, load
from weights_files import write_legacy as write

from jaxcat.errors import WeightsError
from jaxcat.models import inception
from jaxcat.models.backbone import BACKBONES
from jaxcat.models.layers import ConvBN, Options
from jaxcat.models.preprocessing import ZERO_TO_ONE, Conventions, Preprocessing
from jaxcat.weights.formats import hdf5_file
from jaxcat.weights.keras_names import UNITS
from jaxcat.weights.load import load_pretrained
from jaxcat.weights.registry import REGISTRY


@pytest.mark.slow
def test_the_table_is_the_order_in_which_inception_declares_its_convolutions():
    declared = []

    def build():  # looked at inside: `eval_shape` returns everything sorted by name
        stages = BACKBONES["inception_v3"].build("mixed10", Options())
        for stage, module in stages.items():
            units = [name for name, value in vars(module).items() if isinstance(value, ConvBN)]
            declared.extend(f"{stage}/{name}" for name in units)
        return stages

    nnx.eval_shape(build)
    assert list(UNITS) == declared
    assert len(UNITS) == 94


@pytest.mark.parametrize(
    "first",
    small.slow_except([1, 95], [1, 0, 95, 9_950]),
    ids=["published", "first unnumbered", "offset", "five digits"],
)
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


def test_values_after_the_cut_are_not_read(weights):
    with h5py.File(weights, "r+") as file:
        file[dataset_name("mixed9/branch1x1/bn/bias", first=1)][0] = np.nan
    load(weights, cut="mixed8")
    with pytest.raises(WeightsError, match="mixed9/branch1x1/.*1 value of NaN"):
        load(weights, cut="mixed9")


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    ("shape", "chunks"),
    [((7,), (3,)), ((5, 4), (2, 3)), ((6, 4), (6, 4)), ((3, 3, 5, 7), (2, 3, 4, 7)), ((2, 2), (4, 4))],
)
def test_packed_arrays_are_read_as_h5py_reads_them(shape, chunks, shuffle, dtype, tmp_path):
    """jaxcat unpacks the pieces itself, since it must look at their sizes anyway."""
    values = np.random.default_rng(0).normal(size=shape).astype(dtype)
    most = tuple(max(sides) for sides in zip(shape, chunks, strict=True))
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=chunks, maxshape=most, compression="gzip", shuffle=shuffle)
    with h5py.File(tmp_path / "one.h5") as file:
        found = hdf5_file.tensors(file, path=tmp_path / "one.h5")["x"].read()
        np.testing.assert_array_equal(found, file["x"][()].astype(np.float32))
    assert found.dtype == np.float32


@pytest.mark.slow
def test_another_process_reads_a_file_first_but_only_once(weights, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path / "cache"))
    run, started = hdf5_file.subprocess.run, []
    monkeypatch.setattr(
        hdf5_file.subprocess, "run", lambda *given, **more: started.append(given) or run(*given, **more)
    )
    for _ in range(2):
        load(weights)
    assert len(started) == 1
    with h5py.File(weights, "r+") as file:
        file["more"] = 1.0
    with pytest.raises(WeightsError, match="more"):
        load(weights)
    assert len(started) == 2, "other content"
    monkeypatch.setattr(hdf5_file.h5py.version, "hdf5_version", "99.0")
    with pytest.raises(WeightsError, match="more"):
        load(weights)
    assert len(started) == 3, "another library"
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path / "file"))
    for _ in range(2):  # nothing can be remembered
        with pytest.raises(WeightsError, match="more"):
            load(weights)
    assert len(started) == 5


def test_provenance_is_plain_json_and_names_the_file(weights):
    loaded = load(weights)
    assert json.loads(json.dumps(loaded.provenance)) == loaded.provenance
    assert loaded.provenance["source"] == str(weights)
    assert loaded.provenance["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert Conventions.from_dict(loaded.provenance) == loaded.conventions == Conventions()
    assert loaded.provenance["backbone"] == loaded.backbone == "inception_v3"


@pytest.mark.slow
def test_the_top_is_excused_by_name_and_loaded_on_request(tmp_path, network):
    top = {"kernel": np.ones((102, 1000), np.float32), "bias": np.arange(1000, dtype=np.float32)}
    path = write(tmp_path / "weights.h5", network, **top)
    assert "logits" not in load(path).params
    logits = load(path, with_top=True).params["logits"]
    np.testing.assert_array_equal(logits["bias"], top["bias"])
    assert logits["kernel"].shape == (102, 1000)


@pytest.mark.slow
def test_a_top_that_is_asked_for_must_be_there_and_fit(tmp_path, network, weights):
    with pytest.raises(WeightsError, match=r"- logits/kernel \(102, 1000\)"):
        load(weights, with_top=True)
    other = {"kernel": np.ones((102, 1008), np.float32), "bias": np.ones(1008, np.float32)}
    with pytest.raises(WeightsError, match=r"\+ logits/kernel \(102, 1008\)"):
        load(write(tmp_path / "fid.h5", network, **other), with_top=True)


def test_a_top_on_a_cut_network_is_refused(weights):
    with pytest.raises(WeightsError, match="--config.model.cut=mixed10"):
        load(weights, with_top=True, cut="mixed7")


def test_an_unknown_source_names_the_nearest():
    with pytest.raises(WeightsError, match="Did you mean keras-imagenet.*Give the path of a file"):
        load("keras-imagnet")


def test_a_directory_is_not_a_weights_file(tmp_path):
    with pytest.raises(WeightsError, match="is a directory"):
        load(tmp_path)


def test_a_run_in_place_of_a_weights_file_names_the_flag_for_runs(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(WeightsError, match=f"--config.init_from={tmp_path} "):
        load(tmp_path)


def test_published_weights_need_the_published_width():
    with pytest.raises(WeightsError, match="--config.model.width=1.0"):
        load("keras-imagenet", width=0.5)


def test_asked_for_its_top_a_name_stands_for_the_file_that_has_one(monkeypatch, tmp_path):
    """The download fails at once: the message names the file that would have been read."""
    spec = dataclasses.replace(REGISTRY["keras-imagenet-top"], url="http://127.0.0.1:9/with_top.h5")
    monkeypatch.setitem(REGISTRY, "keras-imagenet-top", spec)
    monkeypatch.setattr("jaxcat.weights.load.fetch", lambda spec, limit: pytest.fail(spec.url, pytrace=False))
    with pytest.raises(pytest.fail.Exception, match="with_top.h5"):
        load("keras-imagenet", width=1.0, with_top=True)


@pytest.mark.slow
def test_a_name_is_loaded_from_the_cache_with_its_own_conventions(shared, monkeypatch, tmp_path):
    """The published file cannot be had here: another takes its place under a name of its own."""
    stand_in = shared / "weights" / "inception_v3_nsfw_notop.h5"
    spec = dataclasses.replace(
        REGISTRY["keras-imagenet"],
        name="stand-in",
        file="stand_in.h5",
        size=stand_in.stat().st_size,
        md5=hashlib.md5(stand_in.read_bytes()).hexdigest(),
        conventions=Conventions(ZERO_TO_ONE, pool_counts_padding=True),
    )
    monkeypatch.setenv("JAXCAT_CACHE", str(tmp_path))
    monkeypatch.setitem(REGISTRY, "stand-in", spec)
    (tmp_path / "stand_in.h5").symlink_to(stand_in.resolve())
    loaded = load_pretrained("stand-in", cut="stem")
    assert loaded.conventions == spec.conventions
    assert loaded.provenance["licence"] == "MIT"
    assert loaded.provenance["url"] == spec.url


@pytest.mark.parametrize("name", REGISTRY)
def test_registry_entries_can_be_verified_and_say_whose_they_are(name):
    spec = REGISTRY[name]
    assert spec.name == name
    assert spec.url.startswith("https://")
    assert spec.md5 is None or re.fullmatch("[0-9a-f]{32}", spec.md5)
    assert spec.sha256 is None or re.fullmatch("[0-9a-f]{8,64}", spec.sha256)
    assert spec.hash_source
    assert spec.md5 or spec.sha256 or "first use" in spec.hash_source
    assert spec.licence
    assert spec.notice
    assert spec.accuracy_source
    assert 70 < spec.top1 < spec.top5 < 100
    assert spec.conventions.pool_counts_padding is not name.startswith("keras")
    assert spec.backbone in BACKBONES
    assert [other.file for other in REGISTRY.values()].count(spec.file) == 1


def test_preprocessing_survives_json():
    odd = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert Preprocessing.from_dict(json.loads(json.dumps(odd.to_dict()))) == odd


@pytest.mark.slow
def test_the_real_file_loads(shared):
    loaded = load_pretrained(str(shared / "weights" / "inception_v3_nsfw_notop.h5"))
    params, stats = flatten_dict(loaded.params), flatten_dict(loaded.stats)
    assert sum(path[-1] == "kernel" for path in params) == 94
    assert len(params) == 188
    assert len(stats) == 188
    assert sum(array.size for array in [*params.values(), *stats.values()]) == 21_802_784
    assert loaded.provenance["sha256"].startswith("45d6b617")
