"""Images of more than 8 bits a channel: one scale a run, found from train. The tables of levels are made by hand."""

from __future__ import annotations

import io
import shutil
import struct

import numpy as np
import pytest
import small
from ml_collections import ConfigDict
from PIL import Image
from test_hostile import hostile

import jaxcat
from jaxcat.bottlenecks.key import keys_of
from jaxcat.config import completed
from jaxcat.data.images import deep
from jaxcat.data.images.decoding import Decoding, decode
from jaxcat.data.images.grey import bits_of, deep_files, find_bits, is_deep
from jaxcat.data.records import Split
from jaxcat.data.sources import open_data
from jaxcat.errors import ConfigError, DataError
from jaxcat.flags import validate
from jaxcat.runs.meta import read_meta
from jaxcat.runs.workdir import steps
from jaxcat.train import train

# value → its level, by bits of the scale; by hand: divided by 2 ** (bits - 8), rounded down, 255 at most
TABLE = {
    8: {0: 0, 1: 1, 15: 15, 16: 16, 254: 254, 255: 255, 256: 255, 65535: 255},
    10: {0: 0, 3: 0, 4: 1, 511: 127, 512: 128, 1019: 254, 1020: 255, 1023: 255, 1024: 255},
    12: {0: 0, 15: 0, 16: 1, 2047: 127, 2048: 128, 4079: 254, 4080: 255, 4095: 255, 4096: 255, 65535: 255},
    14: {0: 0, 63: 0, 64: 1, 8191: 127, 8192: 128, 16319: 254, 16320: 255, 16383: 255, 40000: 255},
    16: {0: 0, 255: 0, 256: 1, 4095: 15, 32767: 127, 32768: 128, 65279: 254, 65280: 255, 65535: 255},
}
TWELVE = np.array([[0, 15, 16, 2047], [2048, 4079, 4080, 4095]], np.uint16)
LEVELS = np.array([[0, 0, 1, 127], [128, 254, 255, 255]], np.uint8)


def png(values: np.ndarray, *, clear=(), significant: int = 0) -> bytes:
    """A 16-bit PNG of (H, W) or (H, W, channels), with an sBIT chunk if `significant` is given."""
    values = values[..., None] if values.ndim == 2 else values
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]]
    encoded = hostile.png(values, kind, clear=clear)
    if not significant:
        return encoded
    import zlib

    content = b"sBIT" + bytes([significant] * values.shape[2])
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return encoded[:33] + chunk + encoded[33:]


def tiff(values: np.ndarray, **tags) -> bytes:
    """A 16-bit TIFF by Pillow; `tags` by number, such as t281=4095."""
    buffer = io.BytesIO()
    numbers = {int(name[1:]): value for name, value in tags.items()}
    Image.fromarray(values).save(buffer, "TIFF", tiffinfo=numbers)
    return buffer.getvalue()


def colour_tiff(values: np.ndarray, *, order: str, planar: int = 1, kind: int = 1, depth: int = 16) -> bytes:
    """An uncompressed TIFF of (H, W) or (H, W, 3), written by hand: Pillow writes none of 16 bits a channel."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    stored = np.moveaxis(values, -1, 0) if planar == 2 else values
    if depth == 12:
        pairs = values.reshape(-1, 2).astype(np.uint16)
        pixels = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs.tolist())
    else:
        pixels = stored.astype(f"{order}{values.dtype.kind}{depth // 8}").tobytes()
    mark = {"<": b"II", ">": b"MM"}[order]
    bits_at = 8 + 2 + 9 * 12 + 4
    plane = len(pixels) // channels if planar == 2 else len(pixels)
    begin = bits_at + 2 * channels + 8 * channels
    tags = [
        *((256, 4, 1, width), (257, 4, 1, height)),
        (258, 3, channels, bits_at if channels > 1 else depth),
        *((259, 3, 1, 1), (262, 3, 1, 2 if channels == 3 else 1)),
        (273, 4, channels if planar == 2 else 1, bits_at + 2 * channels if planar == 2 else begin),
        *((277, 3, 1, channels), (284, 3, 1, planar), (339, 3, 1, kind)),
    ]
    table = b""
    for number, type_, count, value in tags:
        packed = struct.pack(f"{order}HH", value, 0) if type_ == 3 and count == 1 else struct.pack(f"{order}I", value)
        table += struct.pack(f"{order}HHI", number, type_, count) + packed
    rest = struct.pack(f"{order}{channels}H", *[depth] * channels)
    rest += struct.pack(f"{order}{2 * channels}I", *[begin + i * plane for i in range(channels)], *[plane] * channels)
    return mark + struct.pack(f"{order}HI", 42, 8) + struct.pack(f"{order}H", 9) + table + bytes(4) + rest + pixels


def pgm(values: np.ndarray, maximum: int) -> bytes:
    kind = "P6" if values.ndim == 3 else "P5"
    return f"{kind}\n{values.shape[1]} {values.shape[0]}\n{maximum}\n".encode() + values.astype(">u2").tobytes()


def levels_of(encoded: bytes, bits: int) -> np.ndarray:
    return decode(encoded, "x", Decoding(grey_bits=bits))


@pytest.mark.parametrize("bits", TABLE)
@pytest.mark.parametrize("kind", ["png", "tiff", "array", "pillow"])
def test_levels_are_those_of_the_table(bits, kind):
    values = np.array([list(TABLE[bits])], np.uint16)
    expected = np.array([list(TABLE[bits].values())], np.uint8)
    stored = {
        "png": lambda: png(values),
        "tiff": lambda: tiff(values),
        "array": lambda: values,
        "pillow": lambda: Image.fromarray(values),
    }[kind]()
    assert decode(stored, "x", Decoding(grey_bits=bits))[..., 1].tolist() == expected.tolist()


def of_colour(values: np.ndarray) -> np.ndarray:
    return np.stack([values, values[::-1], values[:, ::-1]], axis=-1)


OPAQUE = np.full(TWELVE.shape, 65535, np.uint16)
KINDS = {
    "grey png": (png(TWELVE), LEVELS),
    "grey png with alpha": (png(np.dstack([TWELVE, OPAQUE])), LEVELS),
    "grey png with alpha of 12 bits": (png(np.dstack([TWELVE, OPAQUE >> 4])), LEVELS),
    "grey png with a hole": (png(TWELVE, clear=[15]), np.where(TWELVE == 15, 255, LEVELS)),
    "colour png": (png(of_colour(TWELVE)), of_colour(LEVELS)),
    "colour png with alpha": (png(np.dstack([of_colour(TWELVE), OPAQUE])), of_colour(LEVELS)),
    "grey tiff": (tiff(TWELVE), LEVELS),
    "grey tiff, big end first": (tiff(TWELVE.astype(">u2")), LEVELS),
    "grey tiff, 0 is white": (tiff(TWELVE, t262=0), 255 - LEVELS),
    "grey tiff, signed, none negative": (colour_tiff(TWELVE.astype(np.int16), order="<", kind=2), LEVELS),
    "grey tiff of 32 bits": (colour_tiff(TWELVE.astype(np.uint32), order="<", depth=32), LEVELS),
    "colour tiff": (colour_tiff(of_colour(TWELVE), order="<"), of_colour(LEVELS)),
    "colour tiff, big end first": (colour_tiff(of_colour(TWELVE), order=">"), of_colour(LEVELS)),
    "pgm that declares 16 bits": (pgm(TWELVE, 65535), LEVELS),
    "ppm that declares 16 bits": (pgm(of_colour(TWELVE), 65535), of_colour(LEVELS)),
    "array": (TWELVE, LEVELS),
    "colour array": (of_colour(TWELVE), of_colour(LEVELS)),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_12_bits_is_found_and_scaled(name):
    stored, expected = KINDS[name]
    assert is_deep(stored)
    assert bits_of(stored, max_pixels=100) == 12
    shown = levels_of(stored, 12)
    expected = expected if expected.ndim == 3 else np.stack([expected] * 3, axis=-1)
    assert shown.tolist() == expected.tolist()


def test_what_is_scaled_up_already_counts_as_16_bits():
    """Pillow scales a PGM by its maximum; a PNG with sBIT holds scaled values unless none exceeds the declared bits."""
    assert bits_of(pgm(TWELVE, 4095), max_pixels=100) == 16
    assert levels_of(pgm(TWELVE, 4095), 16)[1, :, 0].tolist() == [128, 254, 255, 255]  # 2048 / 4095 · 65535 >> 8 …
    packed = colour_tiff(TWELVE, order="<", depth=12)
    assert bits_of(packed, max_pixels=100) == 16
    assert np.array_equal(levels_of(packed, 16)[..., 0], LEVELS)
    assert bits_of(png(TWELVE << 4, significant=12), max_pixels=100) == 16
    assert bits_of(png(TWELVE, significant=12), max_pixels=100) == 12
    assert bits_of(png(TWELVE, significant=10), max_pixels=100) == 16


def test_a_tiffs_largest_sample_value_helps_to_find_the_scale_and_no_more():
    dark = TWELVE // 8
    assert bits_of(tiff(dark), max_pixels=100) == 9
    assert bits_of(tiff(dark, t281=4095), max_pixels=100) == 12
    assert bits_of(tiff(TWELVE, t281=255), max_pixels=100) == 12, "a value above it is still covered"
    assert bits_of(tiff(TWELVE, t281=65535), max_pixels=100) == 12, "the default says nothing"


def deep_jp2() -> bytes:
    """A JPEG 2000 of colours that says it has 16 bits a channel."""
    encoded = bytearray(hostile.encode(Image.fromarray(hostile.example()), "JPEG2000", no_jp2=True))
    place = encoded.index(b"\xff\x51") + 40
    encoded[place : place + 9 : 3] = bytes([15] * 3)
    return bytes(encoded)


REFUSED = {
    "negative": (colour_tiff(TWELVE.astype(np.int16) - 100, order="<", kind=2), "from -100 to 3995"),
    "32 bits": (colour_tiff(TWELVE.astype(np.uint32) * 70000, order="<", depth=32), "unsigned 16 bits"),
    "floats": (tiff(TWELVE.astype(np.float32)), "floating-point"),
    "planes": (colour_tiff(of_colour(TWELVE), order="<", planar=2), "one after the other"),
    "JPEG 2000": (deep_jp2(), "in JPEG 2000"),
    "text": (b"P3 1 1 65535 1 2 3\n", "as text"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_known_scale_is_refused_by_name(name):
    encoded, reason = REFUSED[name]
    with pytest.raises(DataError, match=f"scan.tif: .*{reason}"):
        decode(encoded, "scan.tif")


def split_of(*stored) -> Split:
    names = tuple(f"{i}" for i in range(len(stored)))
    return Split("train", names, np.zeros(len(stored), np.int32), stored.__getitem__)


def test_the_scale_is_the_smallest_that_covers_all_of_train(tmp_path):
    path = tmp_path / "grey.png"
    path.write_bytes(png(TWELVE // 64))  # 6 bits
    plain = hostile.encode(Image.fromarray(hostile.example()), "PNG")
    assert find_bits(split_of(path, plain)) == 8
    assert find_bits(split_of(plain, path, png(TWELVE // 8))) == 10  # 9 bits
    assert find_bits(split_of(path, plain, png(TWELVE))) == 12
    assert find_bits(split_of(path, plain, png(TWELVE * 2))) == 14  # 13 bits
    assert find_bits(split_of(path, plain, png(TWELVE * 5))) == 16
    assert find_bits(split_of(plain, b"damaged", png(TWELVE)[:50], tmp_path / "none.png")) == 0
    assert list(deep_files(split_of(plain, path, b"", tiff(TWELVE)))) == ["1", "3"]


def test_images_of_8_bits_are_not_decoded_to_find_the_scale(monkeypatch):
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("jaxcat.data.images.grey.open_image", forbidden)
    plain = Image.fromarray(hostile.example())
    assert find_bits(split_of(*(hostile.encode(plain, form) for form in ("JPEG", "PNG", "GIF", "WEBP", "BMP")))) == 0
    assert find_bits(split_of(hostile.example())) == 0


def test_the_first_image_that_16_bits_make_nearly_black_is_named(caplog, monkeypatch):
    """As an image of 12 bits that is given to a run whose training images have 8 or 16."""
    monkeypatch.setattr(deep, "_warned_of_dark", set())
    for name in ("dark.png", "darker.png"):
        assert decode(np.full((4, 4), 4095, np.uint16), name).max() == 15
    (message,) = caplog.messages
    assert message.startswith("dark.png: its values use 12 bits, so it is nearly black on this run's scale of 16 bits")
    decode(np.full((4, 4), 4095, np.uint16), "x", Decoding(grey_bits=12))
    monkeypatch.setattr(deep, "_warned_of_dark", set())
    decode(np.full((4, 4), 4096, np.uint16), "x")
    decode(np.dstack([np.full((4, 4, 3), 4096, np.uint16), np.full((4, 4), 9, np.uint16)]), "x")  # of its alpha
    assert len(caplog.messages) == 1


def test_a_value_above_the_scale_clips_with_one_warning_that_names_the_file(caplog):
    for _ in range(2):
        assert levels_of(png(TWELVE), 10).max() == 255
        decode(png(TWELVE), "bright.png", Decoding(grey_bits=10))
    lines = [line for line in caplog.messages if line.startswith("bright.png: values up to 4095 need more than the 10")]
    assert len(lines) == 1


def grey_folder(root, bits: int = 12, *, plain: bool = False):
    """A folder of grey images, half of whose classes are brighter; 16-bit PNGs of `bits`, or the same in 8 bits."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 4), ("validation", 3)):
        for name, top in (("bright", 1.0), ("dark", 0.5)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                values = (generator.random((80, 80)) * top * (2**bits - 1)).astype(np.uint16)
                values[0, 0] = 2**bits - 1
                shown = np.minimum(values >> (bits - 8), 255).astype(np.uint8)
                Image.fromarray(shown if plain else values).save(folder / f"{i}.png")
    return root


def config_of(folder, **changes) -> ConfigDict:
    config = small.tiny_config(folder)
    config.epochs = 1
    config.update_from_flattened_dict({"bottleneck.views": 1, **changes})
    return config


@pytest.mark.slow
def test_a_run_keeps_the_scale_that_it_found(tmp_path, capsys, caplog, empty_cache):
    """A run on 12 bits sees what a run on the same images in 8 bits sees; so does what uses it later."""
    folder, same = grey_folder(tmp_path / "12"), grey_folder(tmp_path / "8", plain=True)
    run, other = tmp_path / "run", tmp_path / "other"
    assert train(config_of(folder), run) == 0
    out = capsys.readouterr().out
    assert "16-bit images: their values use 12 bits" in out
    assert "16-bit images as 12 bits" in out
    assert train(config_of(same), other) == 0
    assert "16-bit" not in capsys.readouterr().out
    meta, eight = read_meta(run, steps(run)[-1]), read_meta(other, steps(other)[-1])
    assert (meta.config.data.grey_bits, eight.config.data.grey_bits) == (12, 16)
    assert meta.digests == eight.digests
    classifier = jaxcat.load(run)
    values = np.asarray(Image.open(folder / "validation/dark/0.png"))
    shown = np.asarray(Image.open(same / "validation/dark/0.png"))
    found = classifier.predict([folder / "validation/dark/0.png", values, shown])
    assert np.abs(found - found[0]).max() == 0
    assert train(config_of(folder), run) == 0, "a request of 0 is what was found"
    assert train(config_of(folder, **{"epochs": 2}), run) == 0
    with pytest.raises(ConfigError, match="--config.data.grey_bits=12, not 16"):
        train(config_of(folder, **{"epochs": 3, "data.grey_bits": 16}), run)
    assert not [line for line in caplog.messages if "need more than" in line]


def test_the_key_of_bottlenecks_names_a_scale_only_where_there_is_one():
    config = small.tiny_config()
    keys = {}
    for bits in (0, 16, 12, 10):
        config.data.grey_bits = bits
        (keys[bits],) = keys_of(config, small.network(config), frozen_digests={})
    assert keys[0] == keys[16]
    assert "grey_bits" not in keys[16]
    assert keys[12] == keys[16] | {"grey_bits": 12}
    assert keys[10] != keys[12]


def test_older_runs_keep_the_high_byte_and_impossible_scales_are_refused():
    stored = small.tiny_config().to_dict()
    del stored["data"]["grey_bits"]
    assert completed(stored).data.grey_bits == 16
    assert deep.scale_of(9) == 10
    for bits in (1, 7, 17):
        config = small.tiny_config()
        config.data.grey_bits = bits
        with pytest.raises(ConfigError, match=f"--config.data.grey_bits={bits}"):
            validate(config)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_the_scale_of_images_in_an_archive_is_that_of_the_folder(kind, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "data" / name / f"{number}.png").write_bytes(png(TWELVE + number))
    archive = shutil.make_archive(str(tmp_path / "data"), kind, tmp_path / "data")
    config = completed({})
    found = {}
    for place in (str(tmp_path / "data"), archive):
        config.data.dir = place
        train = open_data(config).splits["train"]
        found[place] = find_bits(train), len(list(deep_files(train)))
    assert set(found.values()) == {(14, len(train))}  # 4,095 + 2 needs 13 bits


def test_a_pillow_image_gives_the_pixels_of_its_file():
    colours = np.repeat(TWELVE[..., None], 3, axis=-1)
    grey_where_zero_is_white = tiff(TWELVE, t262=0)
    for encoded in (png(TWELVE), png(colours), tiff(TWELVE), grey_where_zero_is_white):
        for bits in (12, 16):
            from_file = decode(encoded, "x", Decoding(bits))
            np.testing.assert_array_equal(decode(Image.open(io.BytesIO(encoded)), "x", Decoding(bits)), from_file)
    loaded = Image.open(io.BytesIO(grey_where_zero_is_white))
    loaded.load()
    np.testing.assert_array_equal(
        decode(loaded, "x", Decoding(12)), decode(grey_where_zero_is_white, "x", Decoding(12))
    )


def test_other_byte_orders_and_premultiplied_alpha():
    big = decode(TWELVE.astype(">u2"), "x", Decoding(12))
    np.testing.assert_array_equal(big, decode(TWELVE, "x", Decoding(12)))
    assert decode(Image.new("La", (3, 3)), "x").shape == (3, 3, 3)
    for bits in (12, 16):
        with pytest.raises(DataError, match="floating-point pixels have no known range"):
            decode(tiff(TWELVE.astype(np.float32)), "x", Decoding(bits))
