"""Writes a folder of everything that turns up among pictures: what a browser shows, and what it does not.

    python scripts/make_hostile_pictures.py DIR

DIR/readable/ holds pictures in odd forms, DIR/refused/ what is no picture, DIR/passed_over/ what is not looked at.
Every readable one shows the same: red left of blue. tests/test_hostile.py reads them back.
"""

from __future__ import annotations

import argparse
import io
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jaxcat import cli

RED, BLUE = (255, 0, 0), (0, 0, 255)
# What a camera stored for each EXIF orientation (TIFF 6.0, tag 274) of an upright picture.
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


def picture(height: int = 32, width: int = 48) -> np.ndarray:
    """Red left of blue, uint8 (height, width, 3)."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = RED, BLUE
    return pixels


def encode(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def readable() -> dict[bytes, bytes]:
    """Name below DIR/readable → content: a browser shows each as red left of blue."""
    image = Image.fromarray(picture())
    other = Image.fromarray(picture()[:, ::-1])
    exact = {"quality": 100, "subsampling": 0}
    palette = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    files = {
        b"plain.jpg": encode(image, "JPEG", **exact),
        b"progressive.jpeg": encode(image, "JPEG", progressive=True, **exact),
        b"CAPITALS.JPG": encode(image, "JPEG", **exact),
        b"cmyk.jpg": encode(image.convert("CMYK"), "JPEG", quality=100),
        b"palette.png": encode(palette, "PNG"),
        b"palette_alpha.png": encode(palette, "PNG", transparency=bytes([255, 255, 0, 0])),
        b"alpha.png": encode(image.convert("RGBA"), "PNG"),
        b"plain.bmp": encode(image, "BMP"),
        b"lossless.webp": encode(image, "WEBP", lossless=True),
        b"still.gif": encode(image, "GIF"),
        b"animated.gif": encode(image, "GIF", save_all=True, append_images=[other, other], duration=40),
        b"animated.webp": encode(image, "WEBP", save_all=True, append_images=[other], duration=40, lossless=True),
        b"animated.png": encode(image, "PNG", save_all=True, append_images=[other], duration=40),
        b"a_png_in_fact.jpg": encode(image, "PNG"),
        b"a_jpeg_in_fact.png": encode(image, "JPEG", **exact),
        b"two_wide.png": encode(Image.fromarray(picture(1, 2)), "PNG"),
        b"20000_wide.png": encode(Image.fromarray(picture(1, 20_000)), "PNG"),
        b"with spaces and 'quotes\".png": encode(image, "PNG"),
        b"with\nnewline.png": encode(image, "PNG"),
        b"not_utf8_\xe9.png": encode(image, "PNG"),
        "emoji_🐈.png".encode(): encode(image, "PNG"),
        b"-leading-dash.png": encode(image, "PNG"),
        b"nested/deeply/in/folders.png": encode(image, "PNG"),
    }
    for orientation, stored in STORED.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = Image.fromarray(np.ascontiguousarray(stored(picture())))
        files[b"orientation_%d.jpg" % orientation] = encode(turned, "JPEG", exif=exif, **exact)
    return files


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
        b"bomb.png": bomb(noise),
    }


def bomb(image: Image.Image) -> bytes:
    """A PNG of a few kilobytes whose header asks for 60,000 × 60,000 pixels."""
    encoded = bytearray(encode(image, "PNG"))
    header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + bytes(encoded[24:29])
    encoded[12:29], encoded[29:33] = header, zlib.crc32(header).to_bytes(4, "big")
    return bytes(encoded)


def make(root: Path) -> None:
    """Write all of it below `root`."""
    passed_over = {b".hidden.png": b"x", b"Thumbs.db": b"x", b".DS_Store": b"x", b"notes.txt": b"x"}
    for folder, files in (("readable", readable()), ("refused", refused()), ("passed_over", passed_over)):
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
    (root / "refused" / "forbidden.png").write_bytes(encode(Image.fromarray(picture()), "PNG"))
    (root / "refused" / "forbidden.png").chmod(0)
    with open(root / "refused" / "huge.jpg", "wb") as file:
        file.truncate(3 * 2**30)  # takes no room on the disk


def main(argv: Sequence[str]) -> int:
    parser = cli.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIR", help="made; must not hold anything yet")
    arguments = parser.parse_args(argv)
    if arguments.directory.exists():
        parser.error(f"{arguments.directory}: is there already")
    make(arguments.directory.absolute())
    return 0


if __name__ == "__main__":
    cli.run(main)
