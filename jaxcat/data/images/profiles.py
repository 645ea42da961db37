"""Colours of any profile → sRGB: embedded ICC profiles, a PNG's gamma and primaries, code points of cICP and AVIF."""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageCms

_SPACE = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # Pillow mode → the ICC signature that fits it
D65, D50 = (0.3127, 0.3290), (0.9642, 1.0, 0.8249)  # x and y; X, Y and Z
# Primaries of ITU-T H.273: x and y of red, green, blue and white.
PRIMARIES = {
    1: (0.640, 0.330, 0.300, 0.600, 0.150, 0.060, *D65),  # sRGB, BT.709
    4: (0.670, 0.330, 0.210, 0.710, 0.140, 0.080, 0.310, 0.316),
    5: (0.640, 0.330, 0.290, 0.600, 0.150, 0.060, *D65),
    6: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *D65),
    7: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *D65),
    8: (0.681, 0.319, 0.243, 0.692, 0.145, 0.049, 0.310, 0.316),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *D65),  # BT.2020
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),  # DCI P3
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *D65),  # Display P3
    22: (0.630, 0.340, 0.295, 0.605, 0.155, 0.077, *D65),
}
_SRGB_CURVE = (3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # ICC's type 3
_SRGB_GAMMA = 0.45455  # in a PNG without primaries it stands for sRGB, as does what differs by less than 5 %
# Transfer of ITU-T H.273 → ICC's parametric curve: its type and numbers.
TRANSFERS = {
    **dict.fromkeys((1, 6, 11, 14, 15), (0, 2.4)),  # video; screens show it so, and so do browsers for PNG
    4: (0, 2.2),
    5: (0, 2.8),
    7: (3, 1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0913),
    8: (0, 1.0),
    13: _SRGB_CURVE,
    17: (4, 2.6, (52.37 / 48) ** (1 / 2.6), 0, 0, 0, 0, 0),  # cinema
}
_HDR = {16: "PQ", 18: "HLG"}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def to_srgb(image: Image.Image, info: Mapping[Any, Any]) -> Image.Image:
    """Converts an image to sRGB by what its file says of colours; `image` has no alpha.

    The first of these counts, as in browsers: cICP, an ICC profile, sRGB, gamma and primaries. A profile that is
    damaged or of another colour space is ignored.

    Args:
        image: "RGB", "L" or "CMYK".
        info: of the opened file; see `formats.open_image`.

    Raises:
        ValueError: the colours have a high dynamic range.
    """
    profile = info.get("icc_profile")
    if cicp := info.get("cicp"):
        profile = of_code_points(*cicp) or profile
    elif not profile and "srgb" not in info:
        profile = of_gamma(info.get("gamma"), info.get("chromaticity"))
    if not profile:
        return image
    try:
        if image.mode == "L" and profile[16:20] == b"RGB ":
            image = image.convert("RGB")
        if image.mode != "CMYK" and is_srgb(profile, image.mode):
            return image
        return _converted(image, profile)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image


def of_code_points(primaries: int, transfer: int) -> bytes:
    """The ICC profile of code points of ITU-T H.273; b"" if they are sRGB or not known. Raises ValueError if HDR."""
    if transfer in _HDR:
        raise ValueError(f"its colours have a high dynamic range ({_HDR[transfer]}): export it in SDR, as JPEG or PNG")
    if primaries not in PRIMARIES or transfer not in TRANSFERS or (primaries, transfer) == (1, 13):
        return b""
    return matrix_profile(PRIMARIES[primaries], TRANSFERS[transfer])


def of_gamma(gamma: float | None, chromaticity: Sequence[float] | None) -> bytes:
    """The ICC profile of a PNG's gAMA (encoding, such as 0.45455) and cHRM (white, red, green, blue); b"" if neither.

    Raises ValueError if the primaries are impossible.
    """
    if not chromaticity and (not gamma or abs(gamma / _SRGB_GAMMA - 1) < 0.05):
        return b""
    primaries = (*chromaticity[2:], *chromaticity[:2]) if chromaticity else PRIMARIES[1]
    return matrix_profile(primaries, (0, 1 / gamma) if gamma else _SRGB_CURVE)


@functools.lru_cache(maxsize=64)
def matrix_profile(primaries: Sequence[float], curve: Sequence[float]) -> bytes:
    """An ICC profile of RGB.

    Args:
        primaries: x and y of red, green, blue and white.
        curve: type and numbers of an ICC parametric curve from stored values to light.

    Raises:
        ValueError: the primaries span no colours.
    """
    corners = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in zip(primaries[::2], primaries[1::2], strict=True)])
    if not np.isfinite(corners).all():
        raise ValueError("a primary has y = 0")
    try:
        colours = corners[:3].T * np.linalg.solve(corners[:3].T, corners[3])
    except np.linalg.LinAlgError as error:
        raise ValueError("the primaries lie on one line") from error
    adapted = np.diag((_BRADFORD @ D50) / (_BRADFORD @ corners[3]))
    colours = np.linalg.inv(_BRADFORD) @ adapted @ _BRADFORD @ colours

    def numbers(kind: bytes, values: Sequence[float]) -> bytes:
        return kind + bytes(4) + struct.pack(f">{len(values)}i", *(round(float(value) * 65536) for value in values))

    light = numbers(b"para", curve[1:])
    light = light[:4] + bytes(4) + struct.pack(">HH", int(curve[0]), 0) + light[8:]
    text = "jaxcat".encode("utf-16-be")
    named = b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    tags = {b"desc": named, b"cprt": named, b"wtpt": numbers(b"XYZ ", D50)}
    tags |= {
        name: numbers(b"XYZ ", column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colours.T, strict=True)
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), light)
    table, content, begin = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += struct.pack(">4sII", name, begin + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    header = struct.pack(">IIIII", begin + len(content), 0, 0x04300000, 0x6D6E7472, 0x52474220) + b"XYZ "
    header += bytes(12) + b"acsp" + bytes(28) + numbers(b"", D50)[4:]
    return header.ljust(128, b"\0") + table + content


@functools.lru_cache(maxsize=64)
def is_srgb(profile: bytes, mode: str) -> bool:
    """Whether converting 8-bit colours of this profile to sRGB changes none by more than a level; "RGB" or "L"."""
    steps = np.linspace(0, 255, 18).round().astype(np.uint8)
    if mode == "L":
        colours = np.arange(256, dtype=np.uint8)[None]
    else:
        colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    converted = np.asarray(_converted(Image.fromarray(colours), profile)).astype(int)
    return bool(np.abs(converted - colours.reshape(1, len(converted[0]), -1)).max() <= 1)


@functools.cache
def _srgb_2() -> bytes:
    """The profile of sRGB as one of ICC's version 2, for profiles with tables, such as a printer's.

    If the target is a profile of version 4, LittleCMS maps the darkest colour of such a profile to black; browsers do
    not. Dark colours were up to 10 levels off.
    """
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:8] + b"\x02\x10\0\0" + profile[12:]


def _converted(image: Image.Image, icc_profile: bytes) -> Image.Image:
    """Converts from the profile to sRGB, or raises one of many errors."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
    if profile.profile.xcolor_space != _SPACE[image.mode]:
        return image
    if not profile.profile.is_matrix_shaper:  # paper of another colour than white stays so, as in browsers
        as_printed, flags = ImageCms.ImageCmsProfile(io.BytesIO(_srgb_2())), ImageCms.Flags.NOWHITEONWHITEFIXUP
        return ImageCms.profileToProfile(image, profile, as_printed, outputMode="RGB", flags=flags) or image
    target = ImageCms.createProfile("sRGB")
    if image.mode != "L":
        return ImageCms.profileToProfile(image, profile, target, outputMode="RGB") or image
    # Exact, and by a table: the optimized transform of grey is wrong by up to 10 levels where light is linear.
    ramp, exact = Image.fromarray(np.arange(256, dtype=np.uint8)[None]), ImageCms.Flags.NOOPTIMIZE
    table = np.asarray(ImageCms.profileToProfile(ramp, profile, target, outputMode="RGB", flags=exact))[0]
    return Image.merge("RGB", [image.point(channel.tolist()) for channel in table.T])
