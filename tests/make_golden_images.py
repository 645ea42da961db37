"""Writes the encoded images of tests/golden/images: one of each form that decoding treats in a way of its own.

    python tests/make_golden_images.py

Run it only to add a form: other versions of the encoders write other bytes, and files that are there are kept.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from image_bytes import chromaticity, gamma, on_larger_canvas, with_chunks
from make_hostile_images import ALPHA, COLOUR, GREY, encode, png
from make_image_corpus import ADOBE_RGB
from test_decoding import swapped_profile
from test_deep import colour_tiff, pgm
from test_golden import FOLDER, pattern

from jaxcat.data.images.profiles import PRIMARIES


def forms() -> Iterator[tuple[str, bytes]]:
    """File name and content of every form."""
    colour = Image.fromarray(pattern(17, 24).astype(np.uint8))
    grey = Image.fromarray(pattern(17, 24, 1)[:, :, 0].astype(np.uint8))
    layered = Image.fromarray(pattern(17, 24, 4).astype(np.uint8))
    palette = colour.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    yield "full.jpg", encode(colour, "JPEG", quality=90, subsampling=0)
    yield "subsampled.jpg", encode(colour, "JPEG", quality=80, subsampling=2)
    yield "progressive.jpg", encode(colour, "JPEG", quality=85, progressive=True)
    yield "grey.jpg", encode(grey, "JPEG", quality=90)
    yield "cmyk.jpg", encode(colour.convert("CMYK"), "JPEG", quality=90)
    yield "frames.jpg", encode(colour, "MPO", save_all=True, append_images=[grey.convert("RGB")])
    for name, image in (("colour", colour), ("grey", grey), ("layered", layered), ("palette", palette)):
        yield f"{name}.png", encode(image, "PNG")
    yield "one_bit.png", encode(grey.convert("1"), "PNG")
    yield "grey_layered.png", encode(layered.convert("LA"), "PNG")
    yield "palette_layered.png", encode(palette, "PNG", transparency=bytes(range(0, 256, 16)))
    yield "clear_grey.png", encode(grey, "PNG", transparency=int(np.asarray(grey)[0, 0]))
    yield "profile.png", encode(colour, "PNG", icc_profile=swapped_profile())
    for bits in (2, 4):
        values = pattern(9, 8, 1, most=2**bits - 1)
        yield f"{bits}_bit_grey.png", png(values.astype(np.uint16), GREY, bits=bits, clear=[1])
    for name, channels, kind in (("grey", 1, GREY), ("colour", 3, COLOUR), ("layered", 4, COLOUR + ALPHA)):
        yield f"16_bit_{name}.png", png(pattern(9, 12, channels, most=65535).astype(np.uint16), kind)
    deep = pattern(9, 12, 1, most=65535).astype(np.uint16)
    yield "16_bit_clear_grey.png", png(deep, GREY, clear=[int(deep[2, 3, 0])])
    deep = pattern(9, 12, 3, most=65535).astype(np.uint16)
    yield "16_bit_clear_colour.png", png(deep, COLOUR, clear=deep[2, 3].tolist())
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        form = "PNG" if orientation % 2 else "JPEG"
        yield f"orientation_{orientation}.{form.lower()}", encode(colour, form, exif=exif)
    yield "still.gif", encode(palette, "GIF")
    yield "animated.gif", encode(palette, "GIF", save_all=True, append_images=[palette.rotate(180)], transparency=3)
    yield "lossy.webp", encode(colour, "WEBP", quality=80)
    yield "layered.webp", encode(layered, "WEBP", lossless=True)
    yield "colour.bmp", encode(colour, "BMP")
    yield "lzw.tiff", encode(colour, "TIFF", compression="tiff_lzw")
    yield "16_bit_grey.tiff", encode(Image.fromarray(deep[..., 0].astype(">u2")), "TIFF")
    yield "16_bit_colour.tiff", colour_tiff(deep, order="<")
    yield "16_bit_grey.pgm", pgm(deep[..., 0] >> 4, 4095)
    yield "reversible.jp2", encode(colour, "JPEG2000", irreversible=False)
    yield "colour.ppm", encode(colour, "PPM")
    yield "layered.ico", encode(layered, "ICO", sizes=[(24, 17)])
    yield "layered.avif", encode(layered, "AVIF", quality=100, subsampling="4:4:4")
    plain = encode(colour, "PNG")
    yield "gamma.png", with_chunks(plain, gamma(1 / 1.8))
    yield "primaries.png", with_chunks(plain, gamma(0.45455), (b"cHRM", chromaticity(PRIMARIES[12])))
    yield "code_points.png", with_chunks(plain, (b"cICP", bytes([12, 13, 0, 1])))
    yield "grey_of_rgb.png", encode(grey, "PNG", icc_profile=ADOBE_RGB)
    yield "small_frame.gif", on_larger_canvas(encode(palette, "GIF", interlace=0))


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, content in forms():
        if not (FOLDER / name).exists():
            (FOLDER / name).write_bytes(content)
