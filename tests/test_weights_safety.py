"""Weights files that are damaged or of another kind: each is refused with a reason."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import small
from weights_files import load
from weights_files import write_legacy as write

from jaxcat.errors import WeightsError

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
        [r"^\+ stem/conv1/conv/kernel \(3, 3, 3, 2\) with 54 values of NaN or infinity$"],
    ),
    "infinite": (
        lambda file: replace(file, "conv2d_1/conv2d_1/kernel:0", np.full((3, 3, 3, 2), 1e300)),
        [r"^\+ stem/conv1/conv/kernel .* with 54 values of NaN or infinity$"],
    ),
    "negative variance": (
        lambda file: replace(
            file, "batch_normalization_1/batch_normalization_1/moving_variance:0", np.array([1.0, -1e-9])
        ),
        [r"^\+ stem/conv1/bn/var \(2,\) with 1 negative variance$"],
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
@pytest.mark.parametrize("flaw", small.slow_except(["missing tensor", "not a number"], FLAWS))
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
    with pytest.raises(WeightsError, match=r"\+ stem/conv1/conv/kernel \(3, 3, 3, 2\) of int32"):
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
    with pytest.raises(WeightsError, match=r"\+ \[dense/kernel:0\] \(1048576, 1048576\)"):
        load(weights)


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
    "keras": (lambda path, whole: zipped(path, "model.weights.h5"), "cannot be read as HDF5"),
    "zip cut short": (lambda path, whole: path.write_bytes(zipped(path, "x").read_bytes()[:500]), "cut short"),
    "pickle": (lambda path, whole: path.write_bytes(pickle.dumps({})), "cannot be read as PyTorch"),
    "safetensors": (
        lambda path, whole: path.write_bytes((2).to_bytes(8, "little") + b"{}"),
        "it holds another network",
    ),
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
