"""Writes a folder of difficult image files: some that a browser shows and some that it does not.

    python scripts/make_hostile_images.py DIR

DIR/readable/ holds unusual images, DIR/refused/ files that cannot be read as an image, DIR/passed_over/ what jaxcat
ignores. `readable()` also gives the pixels that a browser shows; tests/test_hostile.py compares with them.
"""

from __future__ import annotations

import argparse
import io
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxcat.system import cli

RED, GREEN, BLUE, YELLOW, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255)
JPEG_ERROR = 4  # of a value, at quality 100 and without subsampling
GREY, COLOUR, ALPHA = 0, 2, 4  # PNG's colour types, added up
# What a camera stored for each EXIF orientation (TIFF 6.0, tag 274) of an upright image.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


class Shown(NamedTuple):
    """An image file, and what a browser shows of it on a white page.

    Attributes:
        pixels: uint8 (H, W, 3).
        tolerance: by how much a value may differ.
    """

    content: bytes
    pixels: np.ndarray
    tolerance: int = 0


def example(height: int = 32, width: int = 48) -> np.ndarray:
    """Red and green above blue and yellow, so that any turn or flip shows; uint8 (height, width, 3)."""
    return np.array([RED, GREEN, BLUE, YELLOW], np.uint8)[quarters(height, width)]


def quarters(height: int = 32, width: int = 48) -> np.ndarray:
    """0 and 1 above 2 and 3, uint8 (height, width)."""
    lower, right = np.arange(height) >= height / 2, np.arange(width) >= width / 2
    return (2 * lower[:, None] + right).astype(np.uint8)


def encode(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    for each in (image, *options.get("append_images", ())):
        each.encoderconfig = ()  # Pillow keeps the settings of one encoder and hands them to the next
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png(values: np.ndarray, colour_type: int, *, bits: int = 16, clear: Sequence[int] = ()) -> bytes:
    """A PNG of (H, W, channels) with `bits` a channel, most of which Pillow cannot write; `clear` is transparent."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape[:2]
    of_bits = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(height, -1, 2), axis=2)[:, :, 16 - bits :]
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in of_bits)  # 0: no filter
    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))]
    chunks += [chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear))] if clear else []
    return b"\x89PNG\r\n\x1a\n" + b"".join([*chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


def readable() -> dict[bytes, Shown]:
    """Name below DIR/readable → an image that a browser shows."""
    return plain() | transparent() | deep() | turned() | named()


def plain() -> dict[bytes, Shown]:
    """Every format, still and animated, under the right name and a wrong one; tiny, long and tall ones."""
    upright = example()
    image, other = Image.fromarray(upright), Image.fromarray(upright[:, ::-1])
    exact = {"quality": 100, "subsampling": 0}
    more = {"save_all": True, "append_images": [other, other], "duration": 40}
    jpeg = encode(image, "JPEG", **exact)
    palette = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    files = {
        b"plain.jpg": Shown(jpeg, upright, JPEG_ERROR),
        b"progressive.jpeg": Shown(encode(image, "JPEG", progressive=True, **exact), upright, JPEG_ERROR),
        b"CAPITALS.JPG": Shown(jpeg, upright, JPEG_ERROR),
        b"cmyk.jpg": Shown(encode(image.convert("CMYK"), "JPEG", **exact), upright, JPEG_ERROR),
        b"two_frames.jpg": Shown(
            encode(image, "MPO", save_all=True, append_images=[other], **exact), upright, JPEG_ERROR
        ),
        b"palette.png": Shown(encode(palette, "PNG"), upright),
        b"plain.bmp": Shown(encode(image, "BMP"), upright),
        b"lossless.webp": Shown(encode(image, "WEBP", lossless=True), upright),
        b"still.gif": Shown(encode(image, "GIF"), upright),
        b"animated.gif": Shown(encode(image, "GIF", **more), upright),
        b"animated.webp": Shown(encode(image, "WEBP", lossless=True, **more), upright),
        b"animated.png": Shown(encode(image, "PNG", **more), upright),
        b"a_png_in_fact.jpg": Shown(encode(image, "PNG"), upright),
        b"a_jpeg_in_fact.png": Shown(jpeg, upright, JPEG_ERROR),
        b"a_tiff_in_fact.jpg": Shown(encode(image, "TIFF"), upright),
        b"lzw.tiff": Shown(encode(image, "TIFF", compression="tiff_lzw"), upright),
        b"pages.TIF": Shown(encode(image, "TIFF", save_all=True, append_images=[other]), upright),
        b"ink.tif": Shown(encode(image.convert("CMYK"), "TIFF"), upright),
        b"plain.jp2": Shown(encode(image, "JPEG2000", irreversible=False), upright),
        b"plain.ppm": Shown(encode(image, "PPM"), upright),
        b"plain.ico": Shown(encode(image, "ICO", sizes=[(48, 32)]), upright),
        b"plain.avif": Shown(encode(image, "AVIF", quality=100, subsampling="4:4:4"), upright, JPEG_ERROR),
    }
    for name, pixels in (
        (b"two_wide.png", example(1, 2)),
        (b"20000_wide.png", example(1, 20_000)),
        (b"20000_high.png", example(20_000, 1)),
    ):
        files[name] = Shown(encode(Image.fromarray(pixels), "PNG"), pixels)
    dot = np.array([[RED]], np.uint8)
    for form, options, tolerance in (
        ("JPEG", exact, JPEG_ERROR),
        ("PNG", {}, 0),
        ("GIF", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("BMP", {}, 0),
    ):
        content = encode(Image.fromarray(dot), form, **options)
        files[b"1x1." + form.lower().encode()] = Shown(content, dot, tolerance)
    return files


def transparent() -> dict[bytes, Shown]:
    """Over a white page: the green quarter is transparent, the blue one half transparent."""
    upright = example()
    alpha = np.array([255, 0, 128, 255], np.uint8)[quarters()]
    layered = Image.fromarray(np.dstack([upright, alpha]))
    palette = Image.fromarray(quarters()).convert("P")
    palette.putpalette([*RED, *GREEN, *BLUE, *YELLOW])
    hole = np.array([RED, WHITE, BLUE, YELLOW], np.uint8)[quarters()]
    over_white = np.array([RED, WHITE, (127, 127, 255), YELLOW], np.uint8)[quarters()]
    return {
        b"alpha.png": Shown(encode(layered, "PNG"), over_white),
        b"alpha.webp": Shown(encode(layered, "WEBP", lossless=True), over_white),
        b"palette_alpha.png": Shown(encode(palette, "PNG", transparency=bytes([255, 0, 128, 255])), over_white),
        b"palette_alpha.gif": Shown(encode(palette, "GIF", transparency=1), hole),
    }


def deep() -> dict[bytes, Shown]:
    """More and fewer than 8 bits a channel. In 16-bit images both bytes of a value are equal, so browsers that truncate
    and browsers that round agree. The transparent colour is an exception, because nobody sees it.
    """
    upright = example()
    grey = np.array([0, 64, 128, 255], np.uint8)[quarters()][:, :, None]
    alpha = np.array([255, 0, 255, 255], np.uint8)[quarters()][:, :, None]
    clear = 64 * 257  # the second quarter of grey
    hole, colour_hole = np.where(alpha, grey, 255), np.where(alpha, upright, 255)
    marked = np.where(alpha, upright.astype(np.uint16) * 257, np.array([0x4001, 0x0A02, 0xC803], np.uint16))
    files = {
        b"16_bit_grey.png": (png(grey.astype(np.uint16) * 257, GREY), grey),
        b"16_bit_grey_hole.png": (png(grey.astype(np.uint16) * 257, GREY, clear=[clear]), hole),
        b"16_bit_grey_alpha.png": (png(np.dstack([grey, alpha]).astype(np.uint16) * 257, GREY + ALPHA), hole),
        b"16_bit_colour_hole.png": (png(marked, COLOUR, clear=[0x4001, 0x0A02, 0xC803]), colour_hole),
        b"4_bit_grey_hole.png": (
            png(grey // 17, GREY, bits=4, clear=[64 // 17]),
            np.where(alpha, grey // 17 * 17, 255),
        ),
        b"2_bit_grey_hole.png": (
            png(grey // 85, GREY, bits=2, clear=[128 // 85]),
            np.where(grey == 128, 255, grey // 85 * 85),
        ),
        b"16_bit_colour.png": (png(upright.astype(np.uint16) * 257, COLOUR), upright),
        b"16_bit_colour_alpha.png": (
            png(np.dstack([upright, alpha]).astype(np.uint16) * 257, COLOUR + ALPHA),
            colour_hole,
        ),
    }
    for name, byte_order in ((b"16_bit_grey.tif", "<u2"), (b"16_bit_grey_motorola.tif", ">u2")):
        values = Image.fromarray((grey[:, :, 0].astype(np.uint16) * 257).astype(byte_order))
        files[name] = (encode(values, "TIFF"), grey)
    return {
        name: Shown(content, np.broadcast_to(pixels, upright.shape).astype(np.uint8))
        for name, (content, pixels) in files.items()
    }


def turned() -> dict[bytes, Shown]:
    """Every EXIF orientation of the same upright image."""
    files = {}
    for orientation, stored in STORED.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(np.ascontiguousarray(stored(example())))
        content = encode(image, "JPEG", exif=exif, quality=100, subsampling=0)
        files[b"orientation_%d.jpg" % orientation] = Shown(content, example(), JPEG_ERROR)
    return files


def named() -> dict[bytes, Shown]:
    """Names that break shells, text files and terminals."""
    names = (
        b"with spaces and 'quotes\".png",
        b"with\nnewline.png",
        b"not_utf8_\xe9.png",
        "emoji_🐈.png".encode(),
        b"-leading-dash.png",
        b"nested/deeply/in/folders.png",
    )
    return dict.fromkeys(names, Shown(encode(Image.fromarray(example()), "PNG"), example()))


def refused() -> dict[bytes, bytes]:
    """Name below DIR/refused → content: no browser shows these, or half of them only."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    files = {f"cut.{form.lower()}".encode(): encode(noise, form)[:-700] for form in ("PNG", "GIF", "WEBP", "BMP")}
    return files | {
        b"cut.jpg": encode(noise, "JPEG")[:-700],
        b"empty.jpg": b"",
        b"page.jpg": b"<!DOCTYPE html><html><title>404 Not Found</title></html>",
        b"document.png": b"%PDF-1.7\n",
        b"program.gif": b"\x7fELF" + bytes(64),
        b"pickle.jpg": b"\x80\x04cos\nsystem\n(S'false'\ntR.",
        b"cut.tiff": encode(noise, "TIFF")[:-700],
        b"a_heic_in_fact.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
        b"a_photoshop_document.png": b"8BPS\0\1" + bytes(64),
        b"bomb.png": bomb(noise),
    }


def bomb(image: Image.Image) -> bytes:
    """A PNG of a few kilobytes whose header asks for 60,000 × 60,000 pixels."""
    encoded = bytearray(encode(image, "PNG"))
    header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + bytes(encoded[24:29])
    encoded[12:29], encoded[29:33] = header, zlib.crc32(header).to_bytes(4, "big")
    return bytes(encoded)


def passed_over() -> dict[bytes, bytes]:
    """Name below DIR/passed_over → content: hidden, left by systems, or without the suffix of an image."""
    png = encode(Image.fromarray(example()), "PNG")
    return {
        b".hidden.png": png,
        b".hidden_folder/image.png": png,
        b"Thumbs.db": b"x",
        b".DS_Store": b"x",
        b"notes.txt": b"x",
    }


def make(root: Path) -> None:
    """Write all of it below `root`."""
    shown = {name: shown.content for name, shown in readable().items()}
    for folder, files in (("readable", shown), ("refused", refused()), ("passed_over", passed_over())):
        for name, content in files.items():
            path = os.path.join(os.fsencode(root / folder), name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
    os.symlink(root / "refused" / "nowhere.png", root / "refused" / "dead_link.png")
    os.symlink("self.png", root / "refused" / "self.png")
    os.mkfifo(root / "passed_over" / "fifo.png")
    os.symlink("fifo.png", root / "passed_over" / "link_to_fifo.png")
    os.symlink("/dev/zero", root / "passed_over" / "endless.png")
    os.symlink(root / "passed_over", root / "passed_over" / "loop")
    os.symlink(root, root / "passed_over" / "up")
    (root / "refused" / "forbidden.png").write_bytes(encode(Image.fromarray(example()), "PNG"))
    (root / "refused" / "forbidden.png").chmod(0)
    with open(root / "refused" / "huge.jpg", "wb") as file:
        file.truncate(3 * 2**30)  # takes no space on the disk


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=cli.path, metavar="DIR", help="the folder to create; must not exist yet")
    arguments = parser.parse_args(argv)
    if arguments.directory.exists():
        parser.error(f"{arguments.directory}: is there already")
    make(arguments.directory.absolute())
    return 0


if __name__ == "__main__":
    cli.run(main)
