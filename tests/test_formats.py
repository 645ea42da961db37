"""Formats are told by content: what is read, whatever its suffix; what is not, by name; large metadata; huge images."""

from __future__ import annotations

import io
import re
import struct
import zlib

import make_hostile_images as hostile
import make_image_corpus as corpus
import numpy as np
import pytest
import small
from image_bytes import with_chunks
from PIL import Image

from jaxcat.config import completed
from jaxcat.data.images import formats, heif
from jaxcat.data.images.decoding import Decoding, decode, decoding_of
from jaxcat.data.sources import open_data
from jaxcat.errors import DataError

UPRIGHT = hostile.example()


def encoded(form: str, image: np.ndarray = UPRIGHT, **options) -> bytes:
    return hostile.encode(Image.fromarray(image), form, **options)


def tiff(**tags) -> bytes:
    return encoded("TIFF", tiffinfo={int(name[1:]): value for name, value in tags.items()})


def compressed(number: int, **tags) -> bytes:
    """A TIFF that says it has another compression: tag 259 is a SHORT beside its number."""
    return tiff(**tags).replace(struct.pack("<HHII", 259, 3, 1, 1), struct.pack("<HHII", 259, 3, 1, number))


READ = {
    "a.tif": encoded("TIFF"),
    "lzw.tif": encoded("TIFF", compression="tiff_lzw"),
    "deflated.tif": encoded("TIFF", compression="tiff_adobe_deflate"),
    "packed.tif": encoded("TIFF", compression="packbits"),
    "big.tif": encoded("TIFF", big_tiff=True),
    "pages.tif": hostile.encode(
        Image.fromarray(UPRIGHT), "TIFF", save_all=True, append_images=[Image.fromarray(255 - UPRIGHT)]
    ),
    "layered.tif": encoded("TIFF", np.dstack([UPRIGHT, np.full((32, 48), 255, np.uint8)])),
    "turned.tif": encoded("TIFF", np.ascontiguousarray(hostile.STORED[6](UPRIGHT)), tiffinfo={274: 6}),
    "reversible.jp2": encoded("JPEG2000", irreversible=False),
    "codestream.j2k": encoded("JPEG2000", irreversible=False, no_jp2=True),
    "a.ppm": encoded("PPM"),
    "text.ppm": b"P3 # a comment\n2 1\n255\n255 0 0  0 0 255\n",
    "a.pgm": encoded("PPM", UPRIGHT[..., 0]),
    "a.ico": encoded("ICO", sizes=[(48, 32)]),
    "a.webp": encoded("WEBP", lossless=True),
}


@pytest.mark.parametrize("name", READ)
def test_a_format_is_told_by_its_content_whatever_the_suffix(name, tmp_path):
    expected = {"text.ppm": np.array([[hostile.RED, hostile.BLUE]], np.uint8)}.get(name, UPRIGHT)
    expected = np.stack([UPRIGHT[..., 0]] * 3, axis=-1) if name == "a.pgm" else expected
    path = tmp_path / f"{name}.jpg"
    path.write_bytes(READ[name])
    assert np.array_equal(decode(path, name), expected)


def box(brand: bytes, *more: bytes) -> bytes:
    content = b"ftyp" + brand + bytes(4) + b"".join(more)
    return struct.pack(">I", 4 + len(content)) + content + bytes(200)


# File → what its error says.
NOT_READ = {
    "IMG_1.HEIC": (box(b"heic", b"mif1", b"heic"), "HEIC" if heif.installed() else "HEIC.*JPEG.*most compatible"),
    "a.heif": (box(b"mif1", b"mif1", b"heic"), "HEIC"),
    "a_renamed.jpg": (box(b"heix", b"mif1"), "HEIC"),
    "a.cr3": (box(b"crx "), "raw file"),
    "a.cr2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(100), "raw file"),
    "a.dng": (tiff(t50706=b"\1\4\0\0", t271="Maker"), "raw file"),
    "a.nef": (tiff(t254=1, t271="Maker"), "raw file"),
    "a.raf": (b"FUJIFILMCCD-RAW " + bytes(100), "raw file"),
    "a.mp4": (box(b"isom"), "video"),
    "a.mov": (box(b"qt  "), "video"),
    "a.webm": (b"\x1aE\xdf\xa3" + bytes(50), "video"),
    "a.avi": (b"RIFF\0\0\0\0AVI LIST" + bytes(50), "video"),
    "a.psd": (b"8BPS\0\1" + bytes(50), "Photoshop"),
    "a.svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "a.pdf": (b"%PDF-1.7\n" + bytes(50), "PDF"),
    "a.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
    "a.dcm": (bytes(128) + b"DICM" + bytes(50), "DICOM"),
    "a.nii": (b"\x5c\1\0\0" + bytes(340) + b"n+1\0", "NIfTI"),
    "a.fits": (b"SIMPLE  =                    T" + b" " * 50, "FITS"),
    "a.exr": (b"\x76\x2f\x31\1" + bytes(50), "dynamic range"),
    "a.hdr": (b"#?RADIANCE\n", "dynamic range"),
    "a.jxl": (b"\xff\x0a" + bytes(50), "JPEG XL"),
    "b.jxl": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "JPEG XL"),
    "a.npy": (b"\x93NUMPY\1\0" + bytes(50), "numbers"),
    "a.h5": (b"\x89HDF\r\n\x1a\n" + bytes(50), "numbers"),
    "a.zip": (b"PK\3\4" + bytes(50), "archive"),
    "a.tar": (bytes(257) + b"ustar\0" + bytes(50), "archive"),
    "a.nii.gz": (b"\x1f\x8b\x08" + bytes(50), "archive"),
    "page.jpg": (b"<!DOCTYPE html><html>404</html>", "HTML"),
    "lfs.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "zeros.jpg": (bytes(5000), "zeros"),
    "notes.png": (b"hello, world\n", "text file"),
    "._a.jpg": (b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(50), "AppleDouble"),
    "cut.jpg": (encoded("JPEG")[:10], "JPEG file, damaged or cut short"),
    "cut.png": (encoded("PNG")[:12], "PNG file, damaged or cut short"),
    "cut.tif": (encoded("TIFF")[:6], "TIFF file"),
    "cut.avif": (encoded("AVIF")[:60], "AVIF"),
    "strange.tif": (
        tiff(t262=99),
        "a TIFF file, of a kind that is not read .3 channels of 8 bits, compression none.: save it as PNG, in grey or",
    ),
    "its channels are a fraction.tif": (
        tiff(t262=99).replace(struct.pack("<HHII", 277, 3, 1, 3), struct.pack("<HHII", 277, 5, 1, 8)),
        r"TIFF file, of a kind that is not read \((?!\d)",
    ),
    **{
        f"compression {number}.tif": (
            compressed(number),
            re.escape(f"(3 channels of 8 bits, compression {name}): save it as PNG, or as TIFF without compression"),
        )
        for number, name in {
            **{34712: "JPEG 2000", 33003: "JPEG 2000 (Aperio)", 34887: "LERC", 50001: "WebP", 50002: "JPEG XL"},
            **{34926: "Zstandard", 34933: "PNG", 34661: "JBIG", 60000: "number 60000"},
        }.items()
    },
    "random.jpg": (bytes(range(128, 256)), "damaged file or another format"),
}


@pytest.mark.parametrize("name", NOT_READ)
def test_what_is_not_read_is_named_with_the_advice_that_helps(name):
    content, says = NOT_READ[name]
    with pytest.raises(DataError, match=says) as caught:
        decode(content, name)
    assert str(caught.value).startswith(f"{name}: ")
    assert "\n" not in str(caught.value)


LARGE = 5 * 2**20  # bytes of metadata; Pillow refuses more than 1 MiB in one chunk of a PNG, and 64 MiB in all
NOISE = np.random.default_rng(0).bytes(2**16)


def with_metadata(form: str) -> bytes:
    if form == "JPEG":
        segments = b"".join(b"\xff\xe1" + struct.pack(">H", 65000) + NOISE[:64998] for _ in range(LARGE // 65000))
        jpeg = encoded("JPEG", quality=100, subsampling=0)
        return jpeg[:2] + segments + jpeg[2:]
    if form in ("TIFF", "WEBP"):
        options = {"tiffinfo": {700: NOISE * 80}} if form == "TIFF" else {"xmp": NOISE * 80, "lossless": True}
        return encoded(form, **options)
    kind, before, unpacked = {
        "zTXt": (b"zTXt", b"Comment\0\0", bytes(LARGE)),
        "iTXt": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0", bytes(LARGE)),
        "many": (b"zTXt", b"Comment\0\0", bytes(900_000)),
        "iCCP": (b"iCCP", b"large\0\0", corpus.TRUE_SRGB + bytes(LARGE)),
        "bomb": (b"zTXt", b"Comment\0\0", bytes(2**26)),
        "bomb of a profile": (b"iCCP", b"large\0\0", bytes(2**26)),
    }[form]
    return with_chunks(encoded("PNG"), *[(kind, before + zlib.compress(unpacked, 1))] * (100 if form == "many" else 1))


@pytest.mark.parametrize(
    "form",
    ["zTXt", "iTXt", "many", "iCCP", "bomb", "bomb of a profile", "JPEG", "TIFF", "WEBP"],
)
def test_images_with_large_metadata_are_read(form):
    shown = decode(with_metadata(form), "x")
    assert np.abs(shown.astype(int) - UPRIGHT).max() <= (hostile.JPEG_ERROR if form == "JPEG" else 0)


def test_a_large_colour_profile_is_applied():
    """A profile of 2 MB is no bomb: printing presses have such."""
    profile = bytearray(corpus.LINEAR_SRGB + bytes(2 * 2**20))
    profile[:4] = struct.pack(">I", len(profile))
    chart = corpus.chart()
    large, small_one = (
        decode(with_chunks(encoded("PNG", chart), (b"iCCP", b"icc\0\0" + zlib.compress(each))), "x")
        for each in (bytes(profile), corpus.LINEAR_SRGB)
    )
    assert np.array_equal(large, small_one)
    assert not np.array_equal(large, chart)


def test_the_limit_of_pixels_is_a_setting(tmp_path):
    folder = small.image_folder(tmp_path / "data", train=3, validation=2)
    config = small.tiny_config(folder)
    assert config.data.max_pixels == completed({}).data.max_pixels == formats.MAX_PIXELS == 178_956_970
    config.data.max_pixels = 90 * 90
    assert open_data(config).splits["train"].fetch(0).shape == (90, 90, 3)
    config.data.max_pixels -= 1
    with pytest.raises(DataError, match=r"90×90 pixels are more than the 8,099 .*--config.data.max_pixels"):
        open_data(config).splits["train"].take(np.array([0])).fetch(0)
    for stored in (UPRIGHT, Image.fromarray(UPRIGHT), encoded("JPEG")):
        with pytest.raises(DataError, match="--config.data.max_pixels"):
            decode(stored, "x", Decoding(max_pixels=32 * 48 - 1))
    assert decoding_of(config) == Decoding(grey_bits=16, max_pixels=8099)


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_more_pixels_than_pillow_allows_are_read_if_the_user_allows_them(form, monkeypatch):
    """Pillow's own limit is twice MAX_IMAGE_PIXELS; here it is made small."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(formats, "MAX_PIXELS", 200)
    content = encoded(form, **({"lossless": True} if form == "WEBP" else {}))
    with pytest.raises(DataError, match="pixels"):
        decode(content, "x", Decoding(max_pixels=200))
    assert decode(content, "x", Decoding(max_pixels=2000)).shape == UPRIGHT.shape


def test_suffixes():
    assert {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp"} == formats.SUFFIXES_1
    assert formats.SUFFIXES_1 | {".avif", ".tif", ".tiff", ".jp2", ".ppm", ".pgm", ".ico"} < formats.SUFFIXES
    assert not formats.SUFFIXES & formats.UNREAD_SUFFIXES
    assert (".heic" in formats.SUFFIXES) == heif.installed()
    assert (".heic" in formats.UNREAD_SUFFIXES) != heif.installed()


def test_icons_give_their_largest_size_and_animations_of_any_kind_their_first_frame():
    sizes = encoded("ICO", np.tile(UPRIGHT, (2, 2, 1)), sizes=[(16, 16), (64, 64), (32, 32)])
    assert decode(sizes, "x").shape[0] == max(size[1] for size in Image.open(io.BytesIO(sizes)).info["sizes"])
    frames = {"save_all": True, "append_images": [Image.fromarray(255 - UPRIGHT)], "duration": 50}
    for form in ("GIF", "PNG", "TIFF"):
        assert np.array_equal(decode(encoded(form, **frames), "x"), UPRIGHT)


def test_signed_tiffs_and_bigtiffs_with_high_bytes_first_are_refused_by_name():
    file = io.BytesIO()
    Image.new("L", (4, 4), 200).save(file, "TIFF", tiffinfo={339: 2})
    with pytest.raises(DataError, match="x: its grey values go from -56 to -56, and nothing says which is black"):
        decode(file.getvalue(), "x")
    file = io.BytesIO()
    Image.new("L", (4, 4), 100).save(file, "TIFF", tiffinfo={339: 2})
    assert decode(file.getvalue(), "x").max() == 100
    with pytest.raises(DataError, match=r"not read \(BigTIFF, high bytes first\): save it as PNG, or as TIFF without"):
        decode(b"MM\0+\0\x08\0\0" + bytes(7) + b"\x10" + bytes(40), "x")


def test_a_bmp_of_unusual_masks_is_not_called_damaged():
    masks = struct.pack("<3I", 0xF00, 0xF0, 0xF)
    head = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 3, 8, 0, 0, 0, 0) + masks
    with pytest.raises(DataError, match="a BMP file, of a kind that is not read .*: save it as PNG"):
        decode(b"BM" + struct.pack("<IHHI", 74, 0, 0, 66) + head + bytes(8), "x")


def test_an_image_is_turned_if_pillow_does_not_say_the_type_of_its_orientation(monkeypatch):
    """What says it is no part of Pillow's public interface, and may go."""
    upright = decode(encoded("JPEG"), "x")
    monkeypatch.setattr(Image.Image, "getexif", lambda image: {0x0112: 6})
    assert np.array_equal(decode(encoded("JPEG"), "x"), np.rot90(upright, -1))
