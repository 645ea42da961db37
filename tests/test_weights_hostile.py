"""Weights files that are made to do harm, or of another network: each is refused with a reason, at little cost."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file
from weights_files import (
    load,
    torch_state,
    write_canonical,
    write_keras_archive,
    write_torch_safetensors,
)

from jaxcat.errors import WeightsError
from jaxcat.weights.formats import hdf5_file


class Bomb:
    """Unpickled without care, it leaves a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def torch_zip(path: Path, member: bytes, *, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", member)


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path, zipped, protocol):
    """With torch or without: its own check comes first."""
    code = pickle.dumps({"conv": Bomb(tmp_path / "ran")}, protocol)
    if zipped:
        torch_zip(tmp_path / "bomb.pth", code)
    else:
        (tmp_path / "bomb.pth").write_bytes(code * 5)
    with pytest.raises(WeightsError, match="loading it could run code: save"):
        load(tmp_path / "bomb.pth")
    assert not (tmp_path / "ran").exists()


def test_a_compressed_torch_archive_is_refused(tmp_path):
    torch_zip(tmp_path / "bomb.pth", bytes(10**8), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="compressed archive"):
        load(tmp_path / "bomb.pth")


@pytest.mark.parametrize("kind", ["one in another", "the same", "in the list of members"])
def test_a_torch_archive_whose_members_overlap_is_refused(tmp_path, kind):
    """Their sizes add up to less than the file has."""
    path = tmp_path / "overlap.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(100))
        archive.writestr("archive/data/1", bytes(100))
        archive.writestr("archive/data/2", bytes(1000))
        offsets = [member.header_offset for member in archive.infolist()]
    content = bytearray(path.read_bytes())
    entries = [match.start() for match in re.finditer(rb"PK\x01\x02", content)]  # an entry's offset stands at 42
    if kind == "in the list of members":
        for at in (20, 24):  # both sizes of the last member
            content[entries[3] + at : entries[3] + at + 4] = (1100).to_bytes(4, "little")
    else:
        place = offsets[1] + (40 if kind == "one in another" else 0)
        content[place : place + 4] = b"PK\3\4"
        content[entries[2] + 42 : entries[2] + 46] = place.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="where another member does|reach into the list"):
        load(path)


@pytest.mark.parametrize("kind", ["PyTorch", "any", "zip64", "an end within the end"])
def test_an_archive_of_too_many_members_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "many.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl" if kind == "PyTorch" else "model.weights.h5", pickle.dumps({}))
        for i in range(20_001 if kind == "PyTorch" else 2):
            archive.writestr(f"archive/data/{i}", b"")
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\5\6")  # the size of the list of members stands at 12
    if kind in ("any", "an end within the end"):
        content[end + 12 : end + 16] = (2**23).to_bytes(4, "little")
    if kind == "an end within the end":
        content[end + 8 : end + 12] = b"PK\5\6"  # counts that zipfile does not read
    if kind == "zip64":
        record = b"PK\6\6" + bytes(36) + (2**23).to_bytes(8, "little") + bytes(8)
        content[end:end] = record + b"PK\6\7" + bytes(4) + end.to_bytes(8, "little") + bytes(4)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="declares more than it holds|more members than any weights file has"):
        load(path)


def test_a_keras_archive_that_unpacks_without_end_is_refused(tmp_path, network):
    path = write_keras_archive(tmp_path / "model.keras", network, compression=zipfile.ZIP_DEFLATED)
    assert load(path).params  # packed is not forbidden
    content = path.read_bytes()
    at = content.rindex(b"PK\1\2")  # the last entry of the directory is the weights': uncompressed size at 24
    path.write_bytes(content[: at + 24] + (10**9).to_bytes(4, "little") + content[at + 28 :])
    with pytest.raises(WeightsError, match="1,000,000,000 bytes unpacked"):
        load(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_keras_archive_packed_otherwise_than_with_deflate_is_refused(tmp_path, network, compression):
    """zipfile unpacks such a member a mebibyte at a time, whatever comes out."""
    path = write_keras_archive(tmp_path / "model.keras", network, compression=compression)
    with pytest.raises(WeightsError, match="packed otherwise than with deflate"):
        load(path)


def test_only_the_weights_of_a_keras_archive_are_read(tmp_path, network):
    path = write_keras_archive(tmp_path / "model.keras", network)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../outside", "something")
    assert load(path).provenance["layout"] == "keras-3"
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["model.keras"]


def test_a_packed_array_that_unpacks_to_more_than_it_declares_is_refused(weights):
    """libhdf5 itself would grow its buffer to whatever comes out."""
    name = "conv2d_1/conv2d_1/kernel:0"
    with h5py.File(weights, "r+") as file:
        del file[name]
        data = file.create_dataset(name, (3, 3, 3, 2), np.float32, chunks=(3, 3, 3, 2), compression="gzip")
        data.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(10**5)))
    with pytest.raises(WeightsError, match="unpacks to more or less than its 216 bytes"):
        load(weights)


@pytest.mark.slow
@pytest.mark.parametrize("mask", [1, 2, 4])
def test_a_packed_array_does_not_go_unchecked_by_saying_that_a_filter_was_left_out(weights, mask):
    name = "conv2d_1/conv2d_1/kernel:0"
    with h5py.File(weights, "r+") as file:
        del file[name]
        shape = (3, 3, 3, 2)
        data = file.create_dataset(name, shape, np.float32, chunks=shape, compression="gzip", shuffle=True)
        data.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(10**5)), filter_mask=mask)
    with pytest.raises(WeightsError, match="unpacks to more or less than its 216 bytes"):
        load(weights)


def test_a_part_that_packing_would_not_shorten_is_read_as_it_is(weights, network):
    """libhdf5 leaves gzip out there, and says so in the part's mask."""
    name = "conv2d_1/conv2d_1/kernel:0"
    values = network["stem/conv1/conv/kernel"]
    with h5py.File(weights, "r+") as file:
        del file[name]
        data = file.create_dataset(name, values.shape, np.float32, chunks=values.shape, compression="gzip")
        data.id.write_direct_chunk((0, 0, 0, 0), values.tobytes(), filter_mask=1)
    np.testing.assert_array_equal(load(weights).params["stem"]["conv1"]["conv"]["kernel"], values)


def test_more_parts_than_values_are_not_walked(weights, monkeypatch):
    monkeypatch.setattr(hdf5_file, "MAX_PARTS", 500)
    assert load(weights).params  # 376 arrays, a part each
    with h5py.File(weights, "r+") as file:
        file.create_dataset("more", data=np.ones(300, np.int8), chunks=(1,))
    with pytest.raises(WeightsError, match="arrays in more than 500 parts"):
        load(weights)


def test_gzip_is_read_and_other_filters_are_refused(weights, network):
    name = "conv2d_1/conv2d_1/kernel:0"
    for compression, message in (("gzip", None), ("lzf", "other than gzip")):
        with h5py.File(weights, "r+") as file:
            del file[name]
            values = network["stem/conv1/conv/kernel"]
            file.create_dataset(name, data=values, chunks=(3, 3, 2, 2), compression=compression, shuffle=True)
        if message is None:
            np.testing.assert_array_equal(load(weights).params["stem"]["conv1"]["conv"]["kernel"], values)
        else:
            with pytest.raises(WeightsError, match=message):
                load(weights)


@pytest.mark.slow
def test_an_array_in_a_great_many_parts_does_not_take_minutes(weights):
    """Asked for its parts by number, libhdf5 takes 350 s for these."""
    name = "mixed10_top/kernel:0"
    with h5py.File(weights, "r+") as file:
        values = np.ones((2048, 1000), np.float32)
        file.create_dataset(name, data=values, chunks=(1, 40), compression="gzip")
    began = time.process_time()
    with h5py.File(weights) as file:
        tensor = hdf5_file.tensors(file, path=weights)[name]
        np.testing.assert_array_equal(tensor.read(), values)
    assert time.process_time() - began < 60  # against a hang: it takes less than one


@pytest.mark.parametrize("kind", ["contiguous", "chunked"])
def test_hdf5_arrays_in_the_same_bytes_are_refused(tmp_path, kind):
    path = tmp_path / "overlap.h5"
    with h5py.File(path, "w") as file:
        chunks = (8, 8) if kind == "chunked" else None
        data = [file.create_dataset(f"layer/{i}", data=np.full((8, 8), i, np.float32), chunks=chunks) for i in (1, 2)]
        first, second = ((x.id.get_chunk_info(0).byte_offset if chunks else x.id.get_offset()) for x in data)
    content = path.read_bytes()
    assert content.count(second.to_bytes(8, "little")) == 1
    path.write_bytes(content.replace(second.to_bytes(8, "little"), (first + 100).to_bytes(8, "little")))
    with pytest.raises(WeightsError, match="layer/1 and layer/2 are stored in the same bytes"):
        load(path)


def test_a_virtual_data_set_is_refused(weights, tmp_path):
    """It is made of parts of other files."""
    name = "conv2d_1/conv2d_1/kernel:0"
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["values"] = np.ones((3, 3, 3, 2), np.float32)
    with h5py.File(weights, "r+") as file:
        del file[name]
        layout = h5py.VirtualLayout((3, 3, 3, 2), np.float32)
        layout[...] = h5py.VirtualSource(tmp_path / "other.h5", "values", (3, 3, 3, 2))
        file.create_virtual_dataset(name, layout)
    with pytest.raises(WeightsError, match="the values of tensor conv2d_1/conv2d_1/kernel:0 lie in another file"):
        load(weights)


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [None, (3, 3, 1, 2)])
def test_declared_arrays_without_values_are_not_zeros(weights, chunks):
    name = "conv2d_1/conv2d_1/kernel:0"
    with h5py.File(weights, "r+") as file:
        del file[name]
        file.create_dataset(name, (3, 3, 3, 2), np.float32, chunks=chunks)
    with pytest.raises(WeightsError, match="values are missing|0 of 3 stored parts"):
        load(weights)


def test_a_small_array_in_a_huge_piece_is_refused(weights):
    """HDF5 holds a piece in memory whole, however little of it the array has."""
    name = "conv2d_1/conv2d_1/kernel:0"
    with h5py.File(weights, "r+") as file:
        del file[name]
        file.create_dataset(name, (3, 3, 3, 2), np.float32, chunks=(64, 64, 64, 65), maxshape=(None,) * 4)
    with pytest.raises(WeightsError, match=f"{name} is stored in pieces larger than itself"):
        load(weights)


def test_a_file_that_the_hdf5_library_breaks_down_over_is_refused(weights, tmp_path, monkeypatch):
    """Such a file depends on the library's version; the process that reads it first is replaced by one that dies."""
    monkeypatch.setattr("jaxcat.weights.formats.hdf5_file._PROBE", tmp_path / "probe.py")
    (tmp_path / "probe.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(WeightsError, match="crashes on it, with signal 11"):
        load(weights)


def edit_header(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length]
    assert old in header
    header = header.replace(old, new, 1)
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])


HEADERS = {
    "huge shape": (b'"shape":[2]', b'"shape":[2000000000000]'),
    "negative offset": (b'"data_offsets":[0,', b'"data_offsets":[-8,'),
    "overlap": (b'"data_offsets":[0,', b'"data_offsets":[4,'),
    "unknown dtype": (b'"F32"', b'"F33"'),
    "no JSON": (b'"F32"', b'"F32'),
    "deep JSON": (b'"F32"', b"[" * 5000 + b"]" * 5000),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_safetensors_header_that_does_not_fit_is_refused(tmp_path, network, kind):
    path = write_torch_safetensors(tmp_path / "model.safetensors", network)
    edit_header(path, *HEADERS[kind])
    with pytest.raises(WeightsError, match="safetensors"):
        load(path)


def test_a_huge_safetensors_header_is_not_read(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes((2**21).to_bytes(8, "little") + b"{" + bytes(2**21))
    with pytest.raises(WeightsError, match="a safetensors header of 2,097,152 bytes"):
        load(path)


def test_a_canonical_file_must_say_how_it_was_trained(tmp_path, network):
    for about in ({"preprocessing": {"mean": [1], "std": [1]}}, {"preprocessing": None}, {"evaluation": {"crop": 1}}):
        with pytest.raises(WeightsError, match="does not say how it was trained"):
            load(write_canonical(tmp_path / "model.safetensors", network, **about))


HALF = [0.5, 0.5, 0.5]
IMPOSSIBLE = {
    "huge images": ({"evaluation": ("image_size", 100_000)}, "image_size=100000, which must be .* at most 4096"),
    "tiny images": ({"evaluation": ("image_size", 74)}, "image_size=74, which must be at least 75"),
    "unknown resize": ({"evaluation": ("resize", "crops")}, "resize='crops', which must be one of squash"),
    "infinite size": ({"evaluation": ("image_size", np.inf)}, "does not say how it was trained"),
    "mean": ({"preprocessing": {"mean": [0.5, np.nan, 0.5], "std": HALF}}, r"mean=\[0.5, nan, 0.5\], which must be"),
    "no std": ({"preprocessing": {"mean": HALF, "std": [0.5, 0, 0.5]}}, r"std=\[0.5, 0.0, 0.5\], which must be"),
    "infinite std": ({"preprocessing": {"mean": HALF, "std": [np.inf, 1, 1]}}, r"std=\[inf, 1.0, 1.0\]"),
    "negative std": ({"preprocessing": {"mean": HALF, "std": [-1, 1, 1]}}, r"std=\[-1.0, 1.0, 1.0\]"),
    "three classes": ({"classes": ["a", "b", "c"]}, "classes are 3 names, where the top has 1,000 outputs"),
}


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_what_a_canonical_file_says_of_itself_must_be_possible(tmp_path, network, kind):
    about, message = IMPOSSIBLE[kind]
    top = {"logits/kernel": np.ones((102, 1000), np.float32), "logits/bias": np.ones(1000, np.float32)}
    if isinstance(about.get("evaluation"), tuple):
        about = {"evaluation": {"image_size": 299, "resize": "timm", "source": "x"} | dict([about["evaluation"]])}
    path = write_canonical(tmp_path / "model.safetensors", network | top, **about)
    with pytest.raises(WeightsError, match=f"{path}.*{message}"):
        load(path)


def test_a_canonical_file_without_a_top_has_no_classes_to_name(tmp_path, network):
    with pytest.raises(WeightsError, match="classes are 1 name, where the top has 0 outputs"):
        load(write_canonical(tmp_path / "model.safetensors", network, classes=["a"]))


def test_a_description_that_is_no_table_is_refused(tmp_path, network):
    save_file(network, tmp_path / "model.safetensors", metadata={"jaxcat": "[1]"})
    with pytest.raises(WeightsError, match="its description is a list"):
        load(tmp_path / "model.safetensors", like="torchvision")


@pytest.mark.parametrize(
    ("outputs", "message"), [(1008, "the FID variant"), (10, "its top has 10 classes and not ImageNet's 1000")]
)
def test_a_top_of_other_classes_is_refused_even_when_nobody_asked_for_it(tmp_path, network, outputs, message):
    top = {"fc.weight": np.ones((outputs, 102), np.float32), "fc.bias": np.ones(outputs, np.float32)}
    path = write_torch_safetensors(tmp_path / "model.safetensors", network, **top)
    with pytest.raises(WeightsError, match=message):
        load(path)


OTHERS = {  # the second has a tensor of the shape that Inception-v3 begins with
    "ResNet": (
        {"conv1.weight": (64, 3, 7, 7), "layer1.0.bn1.running_mean": (64,)},
        r"\[conv1.weight\] \(64, 3, 7, 7\)",
    ),
    "Inception-v4": (
        {"features.0.conv.weight": (32, 3, 3, 3), "features.0.bn.running_mean": (32,)},
        r"\[features.0.conv.weight\] \(32, 3, 3, 3\)",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_network_is_refused_as_such(tmp_path, kind):
    shapes, message = OTHERS[kind]
    save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=rf"it holds another network[\s\S]*{message}"):
        load(tmp_path / "other.safetensors")


def test_integers_in_safetensors_are_not_weights(tmp_path, network):
    state = torch_state(network)
    state["Conv2d_1a_3x3.conv.weight"] = state["Conv2d_1a_3x3.conv.weight"].astype(np.int64)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"\+ stem/conv1/conv/kernel \(3, 3, 3, 2\) of i64"):
        load(tmp_path / "model.safetensors")


@pytest.mark.slow
def test_reading_weights_imports_no_framework_but_jax():
    code = "import sys, jaxcat.weights.load; print({'torch', 'keras', 'tensorflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
