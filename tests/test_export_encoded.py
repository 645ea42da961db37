"""Encoded images in a SavedModel: the resize and the decoding in its graph give Pillow's levels, or an error."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageCms
from small_export import classifier_of

from jaxcat.data.images.decoding import decode
from jaxcat.data.images.resizing import RESIZES, resize
from jaxcat.export import export
from jaxcat.export.pixels.decoding import decoded
from jaxcat.export.pixels.resizing import resized

SIZE, MOST = 40, 10**5
SHAPES = [
    *((40, 40), (41, 40), (23, 31), (200, 130), (130, 200), (40, 120), (150, 40), (110, 41)),
    *((1, 1), (1, 300), (300, 1), (3, 500), (8, 170), (400, 11)),
]


@pytest.mark.slow
@pytest.mark.parametrize("mode", RESIZES)
def test_resizing_gives_every_level_of_pillow(mode):
    generator = np.random.default_rng(0)
    function = tf.function(lambda image: resized(image, SIZE, mode=mode), autograph=False)
    graph = function.get_concrete_function(tf.TensorSpec((None, None, 3), tf.uint8))
    for shape in SHAPES:
        noise = generator.integers(0, 256, (*shape, 3), np.uint8)
        for image in (noise, noise // 128 * 255):  # and what makes bicubic weights overshoot
            np.testing.assert_array_equal(graph(tf.constant(image)), resize(image, SIZE, mode=mode), str(shape))


def encode(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def photo() -> Image.Image:
    """Smooth colours of an odd size, as a photograph has them."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((61, 43), Image.Resampling.BICUBIC)


def orientation(value: int, *, big: bool = False, kind: int = 3) -> bytes:
    """The EXIF of an image, with this orientation, in either order of bytes."""
    order = "big" if big else "little"
    number = [each.to_bytes(size, order) for each, size in ((1, 2), (0x0112, 2), (kind, 2), (1, 4), (value, 2), (0, 6))]
    return b"Exif\0\0" + (b"MM\0*\0\0\0\x08" if big else b"II*\0\x08\0\0\0") + b"".join(number)


RGB = photo()
GREY = RGB.convert("L")
GRADIENT = np.arange(65536, dtype=np.uint16).reshape(256, 256)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PNG = encode(RGB, "PNG")


def with_chunk(kind: bytes, content: bytes) -> bytes:
    """The PNG with one chunk more after its header."""
    import zlib

    chunk = len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
    return PNG[:33] + chunk + PNG[33:]


GAMMA = {name: with_chunk(b"gAMA", value.to_bytes(4, "big")) for name, value in {"srgb": 45455, "1": 100000}.items()}

SAME = {
    **{
        f"jpeg {quality} {sampling} {progressive}": encode(
            RGB, "JPEG", quality=quality, subsampling=sampling, progressive=progressive
        )
        for quality, sampling, progressive in itertools.product((30, 95), (0, 1, 2), (False, True))
    },
    **{f"orientation {value}": encode(RGB, "JPEG", exif=orientation(value)) for value in range(10)},
    "orientation, big-endian": encode(RGB, "JPEG", exif=orientation(6, big=True)),
    "grey jpeg": encode(GREY, "JPEG"),
    "jpeg of RGB": encode(RGB, "JPEG", keep_rgb=True),
    "jpeg with restarts": encode(RGB, "JPEG", restart_marker_rows=1),
    "several pictures": encode(RGB, "MPO", save_all=True, append_images=[RGB]),
    "comment": encode(RGB, "JPEG", comment=b"ICC_PROFILE\0"),
    "png": PNG,
    "grey png": encode(GREY, "PNG"),
    "palette": encode(RGB.quantize(50), "PNG"),
    "small palette": encode(RGB.quantize(3), "PNG", bits=2),
    "usual gamma": GAMMA["srgb"],
    "text": with_chunk(b"tEXt", b"Comment\0made by a test"),
}

REFUSED = {
    "CMYK": encode(RGB.convert("CMYK"), "JPEG"),
    "colour profile": encode(RGB, "JPEG", icc_profile=PROFILE),
    "EXIF": encode(RGB, "JPEG", exif=b"Exif\0\0XX*\0\x08\0\0\0"),
    "EXIF data that": encode(RGB, "JPEG", exif=orientation(6, kind=4)),
    "EXIF data in": encode(RGB, "PNG", exif=orientation(6)),
    "damaged PNG": PNG[:-30],
    "16 bits": encode(Image.fromarray(GRADIENT), "PNG"),
    "fewer than 8": encode(RGB.convert("1"), "PNG"),
    "transparency": encode(RGB.convert("RGBA"), "PNG"),
    "transparency: lay": encode(GREY.convert("LA"), "PNG"),
    "transparency: ": encode(RGB, "PNG", transparency=(1, 2, 3)),
    "profile: export": encode(RGB, "PNG", icc_profile=PROFILE),
    "colours that": GAMMA["1"],
    "colours that are": with_chunk(b"cHRM", bytes(32)),
    "colours that are not": with_chunk(b"cICP", bytes((9, 16, 0, 1))),
    "animation": encode(RGB, "PNG", save_all=True, append_images=[RGB.rotate(90)]),
    "more than": encode(Image.new("RGB", (400, 400)), "PNG"),
    "or of more than": encode(Image.new("RGB", (400, 400)), "JPEG"),
    "neither JPEG": encode(RGB, "GIF"),
    "neither JPEG nor": encode(RGB, "WEBP"),
    "neither JPEG nor PNG": b"no image",
    "neither": b"",
    "damaged JPEG": b"\xff\xd8\xff\xe0",
}


@pytest.fixture(scope="module")
def graph():
    function = tf.function(lambda encoded: decoded(encoded, max_pixels=MOST), autograph=False)
    return function.get_concrete_function(tf.TensorSpec((), tf.string))


@pytest.mark.parametrize("name", SAME)
def test_these_give_jaxcats_levels(graph, name):
    np.testing.assert_array_equal(graph(tf.constant(SAME[name])), decode(SAME[name], name))


@pytest.mark.parametrize("name", REFUSED)
def test_these_are_errors_that_say_why(graph, name):
    with pytest.raises(tf.errors.InvalidArgumentError, match=name):
        graph(tf.constant(REFUSED[name]))


def test_a_jpeg_that_ends_early_is_an_error(graph):
    with pytest.raises(tf.errors.InvalidArgumentError):
        graph(tf.constant(encode(RGB, "JPEG")[:-100]))


def test_no_start_of_a_file_is_answered(graph):
    """Every beginning of a file is an error, however it ends; so is a file of zeros after a good beginning."""
    for whole in (SAME["orientation 6"], PNG):
        for length in range(0, len(whole) - 40, 37):
            with pytest.raises(tf.errors.InvalidArgumentError):
                graph(tf.constant(whole[:length]))


def test_photographs(shared):
    function = tf.function(lambda encoded: decoded(encoded, max_pixels=10**8), autograph=False)
    graph = function.get_concrete_function(tf.TensorSpec((), tf.string))
    paths = sorted((shared / "data" / "cats_vs_dogs" / "validation").rglob("*.jpg"))[::50]
    assert len(paths) > 10
    for path in paths:
        content = path.read_bytes()
        np.testing.assert_array_equal(graph(tf.constant(content)), decode(content, path.name), path.name)


@pytest.mark.slow
def test_the_signature_gives_the_answers_of_the_classifier(tmp_path):
    classifier = classifier_of(data__resize="center_crop")
    export(classifier, tmp_path / "model", format="savedmodel")
    loaded = tf.saved_model.load(str(tmp_path / "model" / "1"))
    images = [SAME["orientation 6"], PNG, SAME["grey jpeg"]]
    found = loaded.signatures["encoded"](encoded=tf.constant(images))["probabilities"]
    np.testing.assert_allclose(found, classifier.predict(images), atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="jaxcat cannot answer for CMYK"):
        loaded.signatures["encoded"](encoded=tf.constant([PNG, REFUSED["CMYK"]]))
