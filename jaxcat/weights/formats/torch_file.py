"""Reads PyTorch files, `.pth`. A pickle is a program, so every name in it is checked before torch unpickles it."""

from __future__ import annotations

import contextlib
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from jaxcat.errors import WeightsError, one_line
from jaxcat.extras import install
from jaxcat.weights.formats.contents import MAX_TENSORS, Tensor

# The names that a state dict of tensors needs. Only pickles with no other name reach torch's restricted unpickler.
_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int")),
}
_MAX_PICKLE = 2**24  # bytes of a state dict's structure; a checkpoint with its optimizer has about 0.3 MB


def read_pth(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth`, torch ≥ 1.6's zip format or the older one; nothing in it is executed.

    Raises:
        WeightsError: torch is not installed, or the file holds anything but tensors.
    """
    is_zip = zipfile.is_zipfile(path)
    with _readable(path):
        _check_archive(path) if is_zip else _check_pickles(path)
        try:
            import torch
        except ImportError as error:
            raise WeightsError(
                f"{path} is a PyTorch file, which needs PyTorch to be read: {install('torch')}. "
                "Without it, set --config.model.weights=timm/inception_v3.tv_in1k, the same network in a safetensors "
                "file"
            ) from error
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True if is_zip else None)
        state = unwrapped(state)
        if not isinstance(state, dict):
            raise WeightsError(f"{path} holds a {type(state).__name__}, not a dictionary of tensors")
        if len(state) > MAX_TENSORS:
            raise WeightsError(f"{path} holds more than {MAX_TENSORS:,} entries: more than any weights file")
        return {str(name): _tensor(value) for name, value in state.items() if isinstance(value, torch.Tensor)}


def unwrapped(saved: Any) -> Any:
    """The state dict inside a training script's checkpoint; anything else is returned unchanged."""
    if not isinstance(saved, dict):
        return saved
    return next((saved[key] for key in ("state_dict", "model") if key in saved), saved)


def _tensor(value: Any) -> Tensor:
    import torch

    dense = value.layout == torch.strided and not value.is_quantized and value.device.type == "cpu"
    return Tensor(
        tuple(value.shape),
        str(value.dtype).removeprefix("torch.") if dense else str(value.layout),
        lambda: value.detach().to(torch.float32).numpy(),
    )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:  # torch, pickle and zipfile raise nearly every kind on damaged files
        raise WeightsError(
            f"{path} cannot be read as PyTorch weights; it may be incomplete: {one_line(error)}"
        ) from error


def _check_archive(path: Path) -> None:
    """Refuses compressed and overlapping members: torch.save writes none, so they may be an attack."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members):
            raise WeightsError(f"{path} is a compressed archive; torch.save writes none")
        if len(members) > MAX_TENSORS or sum(member.file_size for member in members) > path.stat().st_size:
            raise WeightsError(f"{path} declares more than it holds")
        _check_places(archive, path=path)
        for member in members:
            if member.filename.endswith(".pkl"):
                if member.file_size > _MAX_PICKLE:
                    raise WeightsError(f"{path}: {member.filename} is larger than the structure of any state dict")
                with archive.open(member) as file:
                    _check_pickle(file, path=path)


def _check_places(archive: zipfile.ZipFile, *, path: Path) -> None:
    """Refuses a member that overlaps another: torch maps members as they are declared."""
    free = 0
    with open(path, "rb") as file:
        for member in sorted(archive.infolist(), key=lambda member: member.header_offset):
            file.seek(member.header_offset)
            header = file.read(30)  # of fixed length; name and extra field follow, and then the content
            if member.header_offset < free or header[:4] != b"PK\3\4":
                raise WeightsError(f"{path} is damaged: {member.filename[:80]!r} lies where another member does")
            free = file.tell() + sum(struct.unpack("<HH", header[26:])) + member.file_size
    if free > archive.start_dir:
        raise WeightsError(f"{path} is damaged: its members reach into the list of them")


def _check_pickles(path: Path) -> None:
    """Checks the five pickles of the older format: magic number, version, machine, object, keys. Values follow."""
    with open(path, "rb") as file:
        for _ in range(5):
            _check_pickle(file, path=path)


def _check_pickle(file: IO[bytes], *, path: Path) -> None:
    """Refuses all but tensors and containers: every name that the pickle would import must be in `_GLOBALS`."""
    start = file.tell()
    for operation, argument, _ in pickletools.genops(file):
        if file.tell() - start > _MAX_PICKLE:
            raise WeightsError(f"{path}: its pickle is larger than the structure of any state dict")
        if operation.name in ("GLOBAL", "INST") and argument not in _GLOBALS:
            raise WeightsError(
                f"{path} is a pickle that would import {str(argument)[:80]!r}, and loading it could run code: save "
                "model.state_dict() on its own"
            )
        if operation.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "OBJ", "NEWOBJ", "NEWOBJ_EX"):
            raise WeightsError(
                f"{path} is a pickle that builds objects, and loading it could run code: save model.state_dict() on "
                "its own"
            )
