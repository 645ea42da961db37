"""Every image comes out as a person sees it in a browser, and what is no image is refused in one line."""

import io
import zlib

import numpy as np
import pytest
from make_hostile_images import STORED
from PIL import Image, ImageCms

from jaxcat.data.images import bands, decoding
from jaxcat.data.images.decoding import MAX_PIXELS, SUFFIXES, decode
from jaxcat.data.images.resizing import resize
from jaxcat.errors import DataError

RED, GREEN, BLUE, YELLOW, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255)


def encode(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def quarters(height: int = 32, width: int = 48) -> np.ndarray:
    """Red and green above blue and yellow: any turn or flip shows."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2], pixels[: height // 2, width // 2 :] = RED, GREEN
    pixels[height // 2 :, : width // 2], pixels[height // 2 :, width // 2 :] = BLUE, YELLOW
    return pixels


def close(actual: np.ndarray, expected: np.ndarray, tolerance: int = 0) -> None:
    """Equal shapes, uint8, and values that differ by the tolerance at most."""
    assert actual.shape == expected.shape
    assert actual.dtype == np.uint8
    assert np.abs(actual.astype(int) - expected.astype(int)).max() <= tolerance


@pytest.mark.parametrize(
    ("format", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("GIF", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 100, "subsampling": 0}, 3),
        ("JPEG", {"quality": 100, "subsampling": 0, "progressive": True}, 3),
    ],
)
def test_formats(format, options, tolerance):
    close(decode(encode(Image.fromarray(quarters()), format, **options), "x"), quarters(), tolerance)


# What the camera stored so that, shown with this orientation, the upright image appears (TIFF 6.0, tag 274).
ORIENTATIONS = STORED | {0: lambda upright: upright}  # 0 is no orientation of the standard: shown as stored


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(ORIENTATIONS[orientation](quarters())))
    options = {"quality": 100, "subsampling": 0} if format == "JPEG" else {"lossless": True}
    close(decode(encode(stored, format, exif=exif, **options), "x"), quarters(), 3)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_spoil_a_good_image(exif):
    close(
        decode(encode(Image.fromarray(quarters()), "JPEG", quality=100, subsampling=0, exif=exif), "x"), quarters(), 3
    )


def test_cmyk_jpeg():
    ink = Image.merge("CMYK", [Image.new("L", (16, 16), v) for v in (255, 0, 255, 0)])  # cyan + yellow
    close(decode(encode(ink, "JPEG", quality=100), "x"), np.full((16, 16, 3), GREEN, np.uint8), 3)


def test_grey():
    ramp = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    expected = np.stack([ramp] * 3, axis=-1)
    close(decode(encode(Image.fromarray(ramp), "PNG"), "x"), expected)
    close(decode(encode(Image.fromarray(ramp), "JPEG", quality=100), "x"), expected, 3)


def test_one_bit():
    bits = np.array([[0, 255], [255, 0]], np.uint8)
    close(decode(encode(Image.fromarray(bits).convert("1"), "PNG"), "x"), np.stack([bits] * 3, axis=-1))


def test_sixteen_bit_grey_is_scaled_not_clipped():
    ramp = np.arange(0, 65536, 256, dtype=np.uint16)[None]
    expected = np.stack([np.arange(256, dtype=np.uint8)[None]] * 3, axis=-1)
    close(decode(encode(Image.fromarray(ramp), "PNG"), "x"), expected)
    close(decode(ramp, "an array"), expected)


def test_alpha_over_white():
    pixels = np.array([[(255, 0, 0, 255), (255, 0, 0, 128), (255, 0, 0, 0)]], np.uint8)
    expected = np.array([[RED, (255, 127, 127), WHITE]], np.uint8)
    for format in ("PNG", "WEBP"):
        close(decode(encode(Image.fromarray(pixels), format, lossless=True), "x"), expected, 1)
    close(decode(pixels, "an array"), expected, 1)


def test_grey_and_alpha_over_white():
    image = Image.merge("LA", [Image.new("L", (2, 2), 100), Image.fromarray(np.array([[255, 0], [0, 255]], np.uint8))])
    close(decode(encode(image, "PNG"), "x"), np.array([[[100] * 3, WHITE], [WHITE, [100] * 3]], np.uint8))


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_transparent_palette_entry_over_white(format):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([*RED, *GREEN, *BLUE])
    expected = np.array([[RED, WHITE], [BLUE, WHITE]], np.uint8)
    close(decode(encode(image, format, transparency=1), "x"), expected)


def test_palette_with_partial_transparency():
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([*RED, *BLUE])
    encoded = encode(image, "PNG", transparency=bytes([255, 128]))
    close(decode(encoded, "x"), np.array([[RED, (127, 127, 255)]], np.uint8), 1)


@pytest.mark.parametrize(("mode", "clear", "kept"), [("RGB", RED, BLUE), ("L", 9, 200)])
def test_transparent_colour_over_white(mode, clear, kept):
    image = Image.new(mode, (2, 1), clear)
    image.putpixel((0, 0), kept)
    expected = np.array([[np.broadcast_to(kept, 3), WHITE]], np.uint8)
    close(decode(encode(image, "PNG", transparency=clear), "x"), expected)


@pytest.mark.parametrize(("format", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_animation_gives_its_first_frame(format, options):
    frames = [Image.new("RGB", (20, 10), colour) for colour in (RED, GREEN, BLUE)]
    encoded = encode(frames[0], format, save_all=True, append_images=frames[1:], duration=50, **options)
    close(decode(encoded, "x"), np.full((10, 20, 3), RED, np.uint8))


def test_jpeg_of_several_frames_gives_the_first():
    """Phones write such files (MPO) with the suffix .jpg."""
    first, second = Image.new("RGB", (16, 16), RED), Image.new("RGB", (16, 16), BLUE)
    encoded = encode(first, "MPO", save_all=True, append_images=[second], quality=100)
    close(decode(encoded, "x"), np.full((16, 16, 3), RED, np.uint8), 3)


def swapped_profile() -> bytes:
    """sRGB with the red and green primaries exchanged: an image decoded without it shows the wrong colours."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    for name in (b"s\0R\0G\0B", b"sRGB built-in"):  # the description: by it an sRGB profile is told and passed over
        profile = bytearray(bytes(profile).replace(name, b"x" * len(name)))
    return bytes(profile)


def test_embedded_colour_profile_is_applied():
    encoded = encode(Image.new("RGB", (8, 8), RED), "PNG", icc_profile=swapped_profile())
    close(decode(encoded, "x"), np.full((8, 8, 3), GREEN, np.uint8), 3)


@pytest.mark.parametrize("profile", [b"garbage", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()])
def test_unusable_colour_profile_is_ignored(profile):
    close(decode(encode(Image.fromarray(quarters()), "PNG", icc_profile=profile), "x"), quarters())


def test_paths_pillow_images_and_arrays_agree_with_bytes(tmp_path):
    image = Image.fromarray(quarters())
    path = tmp_path / "IMAGE.PNG"
    image.save(path)
    for source in (path, path.read_bytes(), image, quarters()):
        close(decode(source, "x"), quarters())
    close(decode(quarters()[..., 0], "x"), np.stack([quarters()[..., 0]] * 3, axis=-1))
    close(decode(quarters()[..., :1], "x"), np.stack([quarters()[..., 0]] * 3, axis=-1))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_image(array):
    with pytest.raises(DataError, match="an array"):
        decode(array, "x")


def test_content_decides_not_the_suffix(tmp_path):
    path = tmp_path / "really_a_png.jpg"
    path.write_bytes(encode(Image.fromarray(quarters()), "PNG"))
    close(decode(path, str(path)), quarters())
    assert {s.lower() for s in (".JPG", ".jpeg", ".PNG", ".gif", ".WebP", ".bmp")} <= SUFFIXES


def textured(format: str, **options) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    return encode(Image.fromarray(noise), format, **options)


def bomb() -> bytes:
    """A PNG of a few bytes that claims to be 60,000 pixels a side."""
    encoded = bytearray(textured("PNG"))
    header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + bytes(encoded[24:29])
    encoded[12:29] = header
    encoded[29:33] = zlib.crc32(header).to_bytes(4, "big")
    return bytes(encoded)


REFUSED = {
    "cut.jpg": (textured("JPEG")[:-2000], "truncated"),
    "cut.png": (textured("PNG")[:-2000], "truncated"),
    "cut.gif": (textured("GIF")[:-2000], "truncated"),
    "cut.bmp": (textured("BMP")[:-2000], "truncated"),
    "cut.webp": (textured("WEBP")[:-500], "damaged"),
    "header.jpg": (textured("JPEG")[:3], "JPEG"),
    "empty.jpg": (b"", "empty"),
    "page.jpg": (b"\n <!DOCTYPE html><html><title>404</title></html>", "HTML"),
    "text.png": (b"not an image", "JPEG, PNG, GIF, WebP, BMP, .*a text file"),
    "cut.tif": (textured("TIFF")[:-2000], "truncated|not enough|damaged"),
    "cut.avif": (textured("AVIF")[:-500], "damaged|AVIF"),
    "cut.jp2": (textured("JPEG2000")[:200], "damaged|truncated|broken"),
    "cut.pgm": (b"P5 100 100 4095\n" + bytes(50), "cut short"),
    "bomb.png": (bomb(), "pixels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_one_line_that_names_file_and_reason(name, tmp_path):
    encoded, reason = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(encoded)
    with pytest.raises(DataError, match=reason) as caught:
        decode(path, str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_just_over_the_pixel_limit():
    huge = Image.frombuffer("L", (MAX_PIXELS // 1000 + 1, 1000), bytes(MAX_PIXELS + 1000), "raw", "L", 0, 1)
    with pytest.raises(DataError, match="safe.*--config.data.max_pixels"):
        decode(huge, "x")


def test_missing_file_and_odd_names(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        decode(tmp_path / "none.jpg", "none.jpg")
    with pytest.raises(DataError) as caught:
        decode(b"", "line\nbreak\udcff.jpg")
    assert str(caught.value).isprintable()
    str(caught.value).encode()


def test_squash_ignores_the_aspect_ratio():
    out = resize(quarters(32, 96), 16, mode="squash")
    for row, column, colour in ((0, 0, RED), (0, 15, GREEN), (15, 0, BLUE), (15, 15, YELLOW)):
        assert tuple(out[row, column]) == colour


@pytest.mark.parametrize("tall", [False, True])
def test_center_crop_takes_the_largest_central_square(tall):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, :10], wide[:, 10:20], wide[:, 20:] = RED, GREEN, BLUE
    pixels = wide.transpose(1, 0, 2) if tall else wide
    close(resize(pixels, 10, mode="center_crop"), np.full((10, 10, 3), GREEN, np.uint8))
    close(resize(pixels, 5, mode="center_crop")[1:-1, 1:-1], np.full((3, 3, 3), GREEN, np.uint8))
    assert {tuple(pixel) for pixel in resize(pixels, 10, mode="squash").reshape(-1, 3)} > {RED, BLUE}


def test_center_crop_of_an_odd_difference_is_centred():
    """One column too many: half of it is cut on either side, so a symmetric image stays symmetric."""
    row = np.array([0, 80, 200, 80, 0], np.uint8)
    out = resize(np.tile(row[None, :, None], (4, 1, 3)), 4, mode="center_crop")
    close(out, out[:, ::-1], 1)


def test_reduction_is_antialiased_and_bilinear():
    lines = np.zeros((64, 64, 3), np.uint8)
    lines[:, ::2] = 255
    close(resize(lines, 8, mode="squash"), np.full((8, 8, 3), 128, np.uint8), 5)  # 0 or 255 without
    doubled = resize(np.tile(np.array([0, 100], np.uint8)[None, :, None], (2, 1, 3)), 4, mode="squash")
    close(doubled[0, :, 0], np.array([0, 25, 75, 100], np.uint8))


@pytest.mark.parametrize("size", [(61, 90), (90, 61), (7, 300)])
def test_bands_change_no_pixel(size, monkeypatch):
    """Large images are copied and resized in bands, here of few rows; what Pillow makes of the whole is the oracle."""
    for module in (bands, decoding):
        monkeypatch.setattr(module, "BAND", 4 * 61)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    encoded = encode(Image.fromarray(pixels), "JPEG", quality=90)
    with Image.open(io.BytesIO(encoded)) as image:
        whole = np.asarray(image)
    decoded = decode(encoded, "image")
    close(decoded, whole)
    assert not decoded.flags.writeable
    low = Image.fromarray(pixels).resize((20, size[0]), Image.Resampling.BILINEAR)
    close(resize(pixels, 20, mode="squash"), np.asarray(low.resize((20, 20), Image.Resampling.BILINEAR)))
