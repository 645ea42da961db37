"""LiteRT engines: their features against JAX's, and that nothing but the image shapes a row."""

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small
from small_engines import config_of, converted_here, side_by_side, small_of

from jaxcat.bottlenecks.engines import conversion, litert
from jaxcat.bottlenecks.engines.litert import LiteRTPrefix, division
from jaxcat.errors import EngineError
from jaxcat.models.plan import folded
from jaxcat.models.preprocessing import BGR_MINUS_MEANS, Conventions

GOLDEN = Path(__file__).with_name("golden") / "litert_int8.npz"
VARIANTS = {
    "averages and deviations": ({}, Conventions()),
    "maxima on a grid, padding counted": (
        {"model__cut": "mixed1", "model__pool": "max", "model__pool_grid": 2},
        Conventions(pool_counts_padding=True),
    ),
    "all values": ({"model__cut": "mixed0", "model__pool_from": "cut", "model__pool": "flatten"}, Conventions()),
    "averages of cells that overlap": (
        {"model__cut": "mixed0", "model__pool": "avg", "model__pool_grid": 3},
        Conventions(),
    ),
    "VGG-19, BGR": (
        {"model__backbone": "vgg19", "model__pool_from": "block1", "data__image_size": 32},
        Conventions(BGR_MINUS_MEANS),
    ),
}


@pytest.fixture(scope="module")
def whole():
    """All blocks, in 8 bits."""
    of = small_of(config_of())
    return of, converted_here(of)


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    """Root mean square of the difference, relative to the spread of the features over images."""
    return float(np.sqrt(np.mean((found - wanted) ** 2) / np.mean(np.var(wanted, axis=0))))


@pytest.mark.parametrize("variant", small.slow_except(["averages and deviations"], VARIANTS))
def test_float32_equals_jax(variant):
    changes, conventions = VARIANTS[variant]
    of = small_of(config_of("litert_float32", **changes), conventions)
    images = small.images(4, of.config.data.image_size)
    wanted = of.features(images)
    found = side_by_side(LiteRTPrefix(converted_here(of)).rows(images))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.slow
def test_eight_bits_are_near_jax(whole):
    of, converted = whole
    images = small.images(8)
    found = distance(side_by_side(LiteRTPrefix(converted).rows(images)), of.features(images))
    assert 0.001 < found < 0.15  # at 0.001 it would not be computed in 8 bits


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["litert_int8", "litert_float32"])
def test_the_number_of_threads_and_interpreters_changes_no_bit(engine):
    converted = converted_here(small_of(config_of(engine, model__cut="mixed3")))
    images = small.images(9)
    by_number = [side_by_side(LiteRTPrefix(converted, threads=threads).rows(images)) for threads in (1, 2, 3, 4)]
    alone = converted._replace(image_size=litert.ONE_THREAD_FROM)  # interpreters of one thread
    by_number.append(side_by_side(LiteRTPrefix(alone, threads=3).rows(images)))
    for found in by_number[1:]:
        np.testing.assert_array_equal(found, by_number[0])


@pytest.mark.parametrize(
    ("threads", "image_size", "wanted"),
    [
        (1, 176, (1, 1)),
        (2, 176, (1, 2)),
        (3, 176, (2, 2)),
        (8, 176, (4, 2)),
        (1, 299, (1, 1)),
        (8, 224, (8, 1)),
        (64, 299, (16, 4)),
    ],
)
def test_all_cores_are_busy(threads, image_size, wanted):
    assert division(threads, image_size=image_size) == wanted


def test_a_row_depends_on_its_image_only_and_rows_come_in_order(whole):
    _, converted = whole
    prefix, images = LiteRTPrefix(converted, threads=4), small.images(12)
    rows = side_by_side(prefix.rows(images))
    np.testing.assert_array_equal(side_by_side(prefix.rows(images[::-1])), rows[::-1])
    np.testing.assert_array_equal(side_by_side(prefix.rows(images[5:6])), rows[5:6])


def test_parts_are_found_by_name(whole):
    of, converted = whole
    (image,) = small.images(1)
    (row,) = LiteRTPrefix(converted).rows([image])
    assert [len(values) for values in row] == [part.width for part in of.network.parts]
    (some,) = LiteRTPrefix(converted).rows([image], [7, 0])
    np.testing.assert_array_equal(some[0], row[7])
    np.testing.assert_array_equal(some[1], row[0])
    backwards = converted._replace(outputs=converted.outputs[::-1])
    (other,) = LiteRTPrefix(backwards).rows([image])
    for ours, theirs in zip(row, reversed(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_images_are_read_only_a_little_ahead(whole):
    _, converted = whole
    read = []

    def images():
        for image in small.images(50):
            read.append(image)
            yield image

    rows = LiteRTPrefix(converted, threads=2).rows(images())
    list(itertools.islice(rows, 3))
    assert len(read) < 10
    rows.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_computes_too(whole, tmp_path):
    """As a worker of multiprocessing on Linux; here without JAX, whose own threads a fork would break."""
    program = """
import os, sys, signal
from pathlib import Path
import numpy as np
from jaxcat.bottlenecks.engines.litert import Converted, LiteRTPrefix
path, outputs = Path(sys.argv[1]), tuple(sys.argv[2:])
prefix = LiteRTPrefix(Converted(path, path.read_bytes(), 75, outputs), threads=4)
images = list(np.random.default_rng(0).integers(0, 256, (9, 75, 75, 3), np.uint8))
expected = [np.concatenate(row) for row in prefix.rows(images)]
if child := os.fork():
    sys.exit(os.waitpid(child, 0)[1] != 0)
signal.alarm(60)
os._exit(not np.array_equal([np.concatenate(row) for row in prefix.rows(images)], expected))
"""
    converted = whole[1]
    (tmp_path / "prefix.tflite").write_bytes(converted.content)
    command = [sys.executable, "-c", program, str(tmp_path / "prefix.tflite"), *converted.outputs]
    result = subprocess.run(command, timeout=120)
    assert result.returncode == 0


def test_an_image_of_another_size_or_dtype_is_refused(whole):
    _, converted = whole
    for image in (small.images(1, 80)[0], small.images(1)[0].astype(np.float32)):
        with pytest.raises(ValueError, match="does not fit the input"):
            next(LiteRTPrefix(converted).rows([image]))


@pytest.mark.parametrize("cut", small.slow_except(["mixed0"], ["mixed0", "mixed6"]))
def test_where_a_file_ends_changes_no_bit_of_what_it_shares(whole, cut):
    _, converted = whole
    images = small.images(3)
    shorter = LiteRTPrefix(converted_here(small_of(config_of(model__cut=cut)))).rows(images)
    for ours, theirs in zip(shorter, LiteRTPrefix(converted).rows(images), strict=True):
        assert len(ours) < len(theirs)
        for ours_part, theirs_part in zip(ours, theirs, strict=False):
            np.testing.assert_array_equal(ours_part, theirs_part)


def test_features_in_eight_bits_are_those_stored(whole):
    """Within 2 % of their spread. After a change on purpose: python tests/test_engines.py --write"""
    stored = np.load(GOLDEN)["features"]
    assert distance(golden(whole[1]), stored) < 0.02


def golden(converted) -> np.ndarray:
    return side_by_side(LiteRTPrefix(converted).rows(small.images(16, seed=3)))[:, ::12]


def test_a_file_without_weights_is_noticed(whole):
    of, converted = whole
    arrays = folded(conversion.plan_of_run(of.config, of.network.conventions), of.frozen["params"], of.frozen["stats"])
    size = len(converted.content)
    conversion.check_size(size, arrays, quantized=True)
    with pytest.raises(EngineError, match="the converter made .* bytes, and the weights alone take"):
        conversion.check_size(size, arrays, quantized=False)
    with pytest.raises(EngineError, match="the converter made 1,000 bytes"):
        conversion.check_size(1000, arrays, quantized=True)


def test_what_is_no_file_of_litert_is_refused_in_one_line(whole):
    with pytest.raises(EngineError, match=r"here\.tflite: .* cannot open it") as refused:
        LiteRTPrefix(whole[1]._replace(content=b"not a file" * 100))
    assert "\n" not in str(refused.value)


def test_without_a_package_the_interpreter_is_tensorflows_and_silent(whole, monkeypatch, recwarn):
    _, converted = whole
    images = small.images(1)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    litert.interpreter.cache_clear()
    try:
        found = litert.interpreter()
        assert found.package == "tensorflow"
        assert side_by_side(LiteRTPrefix(converted).rows(images)).shape[0] == 1
        monkeypatch.setattr(litert, "_of_tensorflow", lambda: importlib.import_module("no_such_package"))
        litert.interpreter.cache_clear()
        assert litert.interpreter() is None
        with pytest.raises(EngineError, match="pip install 'ai-edge-litert"):
            LiteRTPrefix(converted)
    finally:
        litert.interpreter.cache_clear()
    assert not [warning for warning in recwarn if "lite" in str(warning.message)]


def test_an_interpreter_that_cannot_be_imported_is_none(monkeypatch):
    def broken() -> None:
        raise TypeError("Descriptors cannot be created directly")  # of protobuf, if its version does not fit

    monkeypatch.setattr(litert, "_own_package", broken)
    monkeypatch.setattr(litert, "_of_tensorflow", broken)
    litert.interpreter.cache_clear()
    try:
        assert litert.interpreter() is None
    finally:
        litert.interpreter.cache_clear()


@pytest.mark.slow
def test_the_interpreter_of_tensorflow_says_nothing():
    program = (
        "import sys; sys.modules['ai_edge_litert'] = None; from jaxcat.bottlenecks.engines import litert;"
        "assert litert.interpreter().package == 'tensorflow'"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_reading_and_looking_up_import_no_framework():
    program = (
        "import sys; from jaxcat.bottlenecks import key; from jaxcat.bottlenecks.engines import converted, litert;"
        "litert.interpreter(); assert litert.interpreter().package == 'ai-edge-litert';"
        "print(sorted({'jax', 'flax', 'optax', 'orbax', 'tensorflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


if __name__ == "__main__":
    assert sys.argv[1:] == ["--write"]
    np.savez_compressed(GOLDEN, features=golden(converted_here(small_of(config_of()))))
