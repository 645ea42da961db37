"""Writes one small image of every kind that browsers show: bit depths, alpha, colours, orientation, frames, sizes.

    python scripts/make_image_corpus.py DIR

scripts/compare_browser.py shows them to a browser and compares; tests/test_browser.py has what the browser showed.
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from image_bytes import (
    bmp_of,
    chromaticity,
    chunk,
    gamma,
    grey_profile,
    icc_chunk,
    ink_profile,
    on_larger_canvas,
    png_of,
    with_chunks,
)
from make_hostile_images import STORED, encode
from PIL import Image, ImageCms

from jaxcat.data.images.profiles import D65, PRIMARIES, TRANSFERS, matrix_profile
from jaxcat.system import cli

EXACT = {"quality": 100, "subsampling": 0}
Files = Iterator[tuple[str, bytes]]
DISPLAY_P3 = matrix_profile(PRIMARIES[12], TRANSFERS[13])
ADOBE_RGB = matrix_profile((0.64, 0.33, 0.21, 0.71, 0.15, 0.06, *D65), (0, 563 / 256))
LINEAR_SRGB = matrix_profile(PRIMARIES[1], (0, 1.0))
TRUE_SRGB = matrix_profile(PRIMARIES[1], TRANSFERS[13])


def chart() -> np.ndarray:
    """12 × 8 patches of 4 × 4 pixels: greys, primaries and mixtures, no two rows alike; uint8 (32, 48, 3)."""
    greys = np.linspace(0, 255, 24).round()
    colours = [[g, g, g] for g in greys]
    for level in (255, 180, 100, 40):
        colours += [[level * r, level * g, level * b] for r in (0, 1) for g in (0, 1) for b in (0, 1)][1:7]
    colours += np.random.default_rng(0).integers(0, 256, (96 - len(colours), 3)).tolist()
    return np.kron(np.array(colours, np.uint8).reshape(8, 12, 3), np.ones((4, 4, 1), np.uint8))


def grey_chart() -> np.ndarray:
    return (np.arange(32 * 48) // 6).astype(np.uint8).reshape(32, 48)


def alpha_chart() -> np.ndarray:
    """Alpha from 0 to 255 in steps, uint8 (32, 48)."""
    return np.tile((np.arange(48) // 3 * 17).astype(np.uint8), (32, 1))


def depths() -> Files:
    """PNGs of every depth and colour type, and with every way to be transparent."""
    colour, grey, alpha = chart().astype(np.uint16), grey_chart().astype(np.uint16)[..., None], alpha_chart()[..., None]
    for bits in (1, 2, 4, 8):
        yield f"grey_{bits}.png", png_of(grey >> (8 - bits), 0, bits)
        index = (np.arange(32 * 48).reshape(32, 48, 1) // 8) % 2**bits
        palette = np.random.default_rng(bits).integers(0, 256, 3 * 2**bits, np.uint8).tobytes()
        yield f"palette_{bits}.png", png_of(index, 3, bits, (b"PLTE", palette))
        clear = bytes(range(0, 256, max(1, 256 // 2**bits)))[: 2**bits]
        yield f"palette_{bits}_alpha.png", png_of(index, 3, bits, (b"PLTE", palette), (b"tRNS", clear))
        some = int(grey[5, 5, 0]) >> (8 - bits)
        yield f"grey_{bits}_clear.png", png_of(grey >> (8 - bits), 0, bits, (b"tRNS", struct.pack(">H", some)))
    yield "colour_8.png", png_of(colour, 2, 8)
    yield "colour_8_clear.png", png_of(colour, 2, 8, (b"tRNS", struct.pack(">3H", *colour[0, 8].tolist())))
    yield "grey_8_alpha.png", png_of(np.dstack([grey, alpha]), 4, 8)
    yield "colour_8_alpha.png", png_of(np.dstack([colour, alpha]), 6, 8)
    yield "colour_8_interlaced.png", png_of(colour, 2, 8, interlaced=True)
    yield "grey_16_interlaced.png", png_of(grey * 257, 0, 16, interlaced=True)
    yield "grey_16.png", png_of(grey * 257, 0, 16)
    yield "grey_16_clear.png", png_of(grey * 257, 0, 16, (b"tRNS", struct.pack(">H", int(grey[5, 5, 0]) * 257)))
    yield "grey_16_alpha.png", png_of(np.dstack([grey, alpha]) * 257, 4, 16)
    yield "colour_16.png", png_of(colour * 257, 2, 16)
    yield "colour_16_alpha.png", png_of(np.dstack([colour, alpha]) * 257, 6, 16)
    near = colour * 257
    near[8:16, 8:16] = near[0, 0] + 1  # differs from the transparent colour in the low byte only
    clear = (b"tRNS", struct.pack(">3H", *near[0, 0].tolist()))
    yield "colour_16_clear.png", png_of(near, 2, 16, clear)


def png_colours() -> Files:
    """What a PNG can say about its colours."""
    colour, grey = chart().astype(np.uint16), grey_chart().astype(np.uint16)[..., None]
    plain, flat = png_of(colour, 2, 8), png_of(grey, 0, 8)
    srgb, p3 = (b"cHRM", chromaticity(PRIMARIES[1])), (b"cHRM", chromaticity(PRIMARIES[12]))
    for name, chunks in {
        "gamma_1.0": [gamma(1.0)],
        "gamma_0.45455": [gamma(0.45455)],
        "gamma_0.4545": [gamma(0.4545)],
        "gamma_0.45": [gamma(0.45)],
        "gamma_1.8": [gamma(1 / 1.8)],
        "gamma_and_srgb_primaries": [gamma(0.45455), srgb],
        "srgb_primaries": [srgb],
        "gamma_and_p3_primaries": [gamma(0.45455), p3],
        "linear_p3_primaries": [gamma(1.0), p3],
        "srgb_chunk_before_gamma": [(b"sRGB", b"\0"), gamma(1.0)],
        "cicp_srgb": [(b"cICP", bytes([1, 13, 0, 1]))],
        "cicp_p3": [(b"cICP", bytes([12, 13, 0, 1]))],
        "cicp_p3_before_icc": [(b"cICP", bytes([12, 13, 0, 1])), icc_chunk(TRUE_SRGB)],
        "cicp_bt709": [(b"cICP", bytes([1, 1, 0, 1]))],
        "cicp_bt2020": [(b"cICP", bytes([9, 14, 0, 1]))],
        "cicp_linear": [(b"cICP", bytes([1, 8, 0, 1]))],
        "cicp_bt470m": [(b"cICP", bytes([4, 4, 0, 1]))],
        "cicp_240m": [(b"cICP", bytes([7, 7, 0, 1]))],
        "cicp_film": [(b"cICP", bytes([8, 11, 0, 1]))],
        "cicp_cinema_p3": [(b"cICP", bytes([11, 17, 0, 1]))],
        "cicp_ebu": [(b"cICP", bytes([22, 13, 0, 1]))],
        "cicp_pq": [(b"cICP", bytes([9, 16, 0, 1]))],
        "cicp_hlg": [(b"cICP", bytes([9, 18, 0, 1]))],
        "icc_p3": [icc_chunk(DISPLAY_P3)],
        "icc_adobe_rgb": [icc_chunk(ADOBE_RGB)],
        "icc_linear_called_srgb": [icc_chunk(LINEAR_SRGB)],
        "icc_srgb": [icc_chunk(TRUE_SRGB)],
        "icc_before_gamma": [icc_chunk(TRUE_SRGB), gamma(1.0)],
        "icc_damaged": [icc_chunk(b"no profile at all")],
    }.items():
        yield f"{name}.png", with_chunks(plain, *chunks)
    yield "grey_gamma_1.0.png", with_chunks(flat, gamma(1.0))
    yield "grey_with_icc_of_rgb.png", with_chunks(flat, icc_chunk(ADOBE_RGB))
    yield "grey_16_gamma_1.0.png", with_chunks(png_of(grey * 257, 0, 16), gamma(1.0))
    for exponent in (1.0, 1.8):
        yield f"grey_icc_{exponent}.png", with_chunks(flat, icc_chunk(grey_profile(exponent)))
    yield "colour_with_icc_of_grey.png", with_chunks(plain, icc_chunk(grey_profile(1.8)))
    both = np.dstack([grey, alpha_chart()[..., None]])
    yield "grey_alpha_icc.png", png_of(both, 4, 8, icc_chunk(grey_profile(1.8)))
    yield "grey_alpha_gamma.png", png_of(both, 4, 8, gamma(1.0))
    palette = encode(Image.fromarray(chart()).quantize(20), "PNG")
    yield "palette_icc_p3.png", with_chunks(palette, icc_chunk(DISPLAY_P3))
    yield "palette_gamma.png", with_chunks(palette, gamma(1.0))
    alpha = png_of(np.dstack([colour, alpha_chart()[..., None]]), 6, 8)
    yield "icc_p3_alpha.png", with_chunks(alpha, icc_chunk(DISPLAY_P3))


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def turned() -> Files:
    """Orientation by EXIF in every format that can have it, and by other metadata."""
    for orientation, stored in STORED.items():
        image = Image.fromarray(np.ascontiguousarray(stored(chart())))
        yield f"orientation_{orientation}.jpg", encode(image, "JPEG", exif=exif_of(orientation), **EXACT)
    image = Image.fromarray(np.ascontiguousarray(STORED[6](chart())))
    yield "orientation_6.png", encode(image, "PNG", exif=exif_of(6))
    yield "orientation_6.webp", encode(image, "WEBP", exif=exif_of(6), lossless=True)
    for orientation in (3, 5, 6, 7):
        image = Image.fromarray(np.ascontiguousarray(STORED[orientation](chart())))
        options = {"quality": 100, "subsampling": "4:4:4", "exif": exif_of(orientation)}
        yield f"orientation_{orientation}.avif", encode(image, "AVIF", **options)
    image = Image.fromarray(chart())
    whole = encode(image, "PNG")
    exif = chunk(b"eXIf", exif_of(6).removeprefix(b"Exif\0\0"))
    yield "late_orientation.png", whole[:-12] + exif + whole[-12:]
    tags = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0), struct.pack(">HHII", 0x0112, 4, 1, 6)
    long = exif_of(6).replace(*tags)
    yield "orientation_of_another_type.jpg", encode(image, "JPEG", exif=long, **EXACT)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    yield "xmp_orientation.jpg", encode(image, "JPEG", xmp=xmp, **EXACT)
    yield "xmp_orientation.webp", encode(image, "WEBP", xmp=xmp, lossless=True)
    texts = (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    yield "xmp_orientation.png", with_chunks(encode(image, "PNG"), texts)
    raw = exif_of(6).hex()
    text = f"Raw profile type exif\0\nexif\n{len(raw) // 2}\n{raw}\n".encode("latin-1")
    yield "text_orientation.png", with_chunks(encode(image, "PNG"), (b"tEXt", text))


def jpegs() -> Files:
    """Subsampling, coding, ink, and colour profiles."""
    image, grey = Image.fromarray(chart()), Image.fromarray(grey_chart())
    for name in ("4:4:4", "4:2:2", "4:2:0", "4:1:1"):
        yield f"subsampled_{name.replace(':', '')}.jpg", encode(image, "JPEG", quality=95, subsampling=name)
    yield "progressive.jpg", encode(image, "JPEG", progressive=True, **EXACT)
    yield "quality_50.jpg", encode(image, "JPEG", quality=50)
    yield "rgb_not_ycc.jpg", encode(image, "JPEG", keep_rgb=True, **EXACT)
    yield "grey.jpg", encode(grey, "JPEG", quality=100)
    ink = encode(image.convert("CMYK"), "JPEG", **EXACT)
    yield "ink_of_adobe.jpg", ink
    marker = ink.index(b"\xff\xeeB") if b"\xff\xeeB" in ink else ink.index(b"\xff\xee")
    yield "ink_without_marker.jpg", ink[:marker] + ink[marker + 2 + struct.unpack_from(">H", ink, marker + 2)[0] :]
    for name, profile in (("p3", DISPLAY_P3), ("adobe_rgb", ADOBE_RGB), ("srgb", TRUE_SRGB)):
        yield f"icc_{name}.jpg", encode(image, "JPEG", icc_profile=profile, **EXACT)
    yield (
        "icc_of_littlecms.jpg",
        encode(image, "JPEG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), **EXACT),
    )
    yield "grey_icc.jpg", encode(grey, "JPEG", quality=100, icc_profile=grey_profile(1.8))
    yield "ink_with_icc_of_rgb.jpg", encode(image.convert("CMYK"), "JPEG", icc_profile=DISPLAY_P3, **EXACT)
    yield "grey_with_icc_of_rgb.jpg", encode(grey, "JPEG", quality=100, icc_profile=ADOBE_RGB)
    yield "ink_with_icc.jpg", encode(image.convert("CMYK"), "JPEG", icc_profile=ink_profile(), **EXACT)
    other = Image.fromarray(255 - chart())
    yield "frames.jpg", encode(image, "MPO", save_all=True, append_images=[other], **EXACT)


def animated() -> Files:
    """Frames, also first ones that are smaller than the image."""
    image, other = Image.fromarray(chart()), Image.fromarray(255 - chart())
    more = {"save_all": True, "append_images": [other], "duration": 60_000}
    palette = image.quantize(64)
    clear = palette.copy()
    yield "still.gif", encode(palette, "GIF")
    yield "clear.gif", encode(clear, "GIF", transparency=int(np.asarray(palette)[0, 0]))
    yield "animated.gif", encode(palette, "GIF", save_all=True, append_images=[other.quantize(64)], duration=60_000)
    still = encode(palette, "GIF", interlace=0)
    yield "small_frame.gif", on_larger_canvas(still)
    yield "small_frame_clear.gif", on_larger_canvas(encode(clear, "GIF", interlace=0, transparency=0))
    yield "animated.webp", encode(image, "WEBP", lossless=True, **more)
    yield "animated.png", encode(image, "PNG", **more)
    yield "animated_hidden_first.png", encode(image, "PNG", default_image=True, **more)
    yield "animated.avif", encode(image, "AVIF", quality=100, subsampling="4:4:4", **more)


def modern() -> Files:
    """WebP and AVIF."""
    image, layered = Image.fromarray(chart()), Image.fromarray(np.dstack([chart(), alpha_chart()]))
    yield "lossy.webp", encode(image, "WEBP", quality=90)
    yield "lossless.webp", encode(image, "WEBP", lossless=True)
    yield "alpha.webp", encode(layered, "WEBP", lossless=True, exact=True)
    yield "lossy_alpha.webp", encode(layered, "WEBP", quality=95)
    yield "icc_p3.webp", encode(image, "WEBP", lossless=True, icc_profile=DISPLAY_P3)
    full = {"quality": 100, "subsampling": "4:4:4"}
    plain = encode(image, "AVIF", **full)
    yield "plain.avif", plain
    yield "subsampled.avif", encode(image, "AVIF", quality=90)
    yield "alpha.avif", encode(layered, "AVIF", **full)
    yield "grey.avif", encode(Image.fromarray(grey_chart()), "AVIF", quality=100)
    yield "icc_p3.avif", encode(image, "AVIF", icc_profile=DISPLAY_P3, **full)
    for name, (primaries, transfer) in {
        "p3": (12, 13),
        "bt709": (1, 1),
        "bt2020": (9, 14),
        "unspecified": (2, 2),
        "linear": (1, 8),
        "pq": (9, 16),
    }.items():
        place = plain.index(b"colrnclx") + 8
        yield f"code_points_{name}.avif", plain[:place] + struct.pack(">HH", primaries, transfer) + plain[place + 4 :]


def bitmaps() -> Files:
    """BMPs of every depth and coding, icons and cursors."""
    colour, alpha = chart(), alpha_chart()
    blue_first = np.dstack([colour[::-1, :, ::-1], alpha[::-1]])
    index = (np.arange(32 * 48).reshape(32, 48) // 8 % 16).astype(np.uint8)
    palette = np.random.default_rng(9).integers(0, 256, (16, 4), np.uint8)
    palette[:, 3] = 0
    yield "24.bmp", encode(Image.fromarray(colour), "BMP")
    yield "24_downwards.bmp", bmp_of(np.ascontiguousarray(colour[:, :, ::-1]).tobytes(), bits=24, up=False)
    yield "8.bmp", bmp_of(index[::-1].tobytes(), bits=8, palette=palette.tobytes())
    yield "4.bmp", bmp_of((index[::-1, ::2] << 4 | index[::-1, 1::2]).tobytes(), bits=4, palette=palette.tobytes())
    bits = np.packbits(index[::-1] % 2, axis=1)
    yield "1.bmp", bmp_of(np.pad(bits, ((0, 0), (0, 2))).tobytes(), bits=1, palette=palette[:2].tobytes())
    runs = b"".join(b"".join(bytes([8, v]) for v in row[::8]) + b"\0\0" for row in index[::-1]) + b"\0\1"
    yield "8_runs.bmp", bmp_of(runs, bits=8, palette=palette.tobytes(), coding=1)
    five = blue_first[..., :3].astype(np.uint16) >> 3
    yield "16_555.bmp", bmp_of((five[..., 2] << 10 | five[..., 1] << 5 | five[..., 0]).astype("<u2").tobytes(), bits=16)
    six = five[..., 2] << 11 | (blue_first[..., 1].astype(np.uint16) >> 2) << 5 | five[..., 0]
    yield (
        "16_565.bmp",
        bmp_of(six.astype("<u2").tobytes(), bits=16, coding=3, masks=struct.pack("<3I", 0xF800, 0x7E0, 0x1F)),
    )
    yield "32.bmp", bmp_of(blue_first.tobytes(), bits=32)
    masks = struct.pack("<3I", 0xFF0000, 0xFF00, 0xFF)
    yield "32_masks.bmp", bmp_of(blue_first.tobytes(), bits=32, coding=3, masks=masks)
    yield "32_alpha.bmp", bmp_of(blue_first.tobytes(), bits=32, coding=3, masks=masks + struct.pack("<I", 0xFF000000))
    layered = Image.fromarray(np.dstack([np.kron(colour[::2, ::3], np.ones((2, 2, 1), np.uint8)), alpha[:, :32]]))
    yield "sizes.ico", encode(layered, "ICO", sizes=[(16, 16), (32, 32)])
    yield "bitmap.ico", encode(layered, "ICO", sizes=[(16, 16), (32, 32)], bitmap_format="bmp")


def files() -> Files:
    """File name and content of the whole corpus."""
    for family in (depths, png_colours, turned, jpegs, animated, modern, bitmaps):
        yield from family()


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the folder to create; must not exist yet")
    arguments = parser.parse_args(argv)
    if arguments.directory.exists():
        parser.error(f"{arguments.directory}: is there already")
    arguments.directory.mkdir(parents=True)
    for name, content in files():
        (arguments.directory / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    cli.run(main)
