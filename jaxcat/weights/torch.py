"""torchvision's names, which timm shares, made ours. Pure: names in, names out; only `read_pth` needs torch itself."""

from __future__ import annotations

import contextlib
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxcat.errors import WeightsError
from jaxcat.weights.contents import MAX_TENSORS, Contents, Tensor
from jaxcat.weights.keras import UNITS
from jaxcat.weights.registry import TORCH

# torchvision/models/inception.py: the names of the stem's units and of the blocks, in the order the data flows.
_BLOCKS = {
    "stem/conv1": "Conv2d_1a_3x3",
    "stem/conv2": "Conv2d_2a_3x3",
    "stem/conv3": "Conv2d_2b_3x3",
    "stem/conv4": "Conv2d_3b_1x1",
    "stem/conv5": "Conv2d_4a_3x3",
    "mixed0": "Mixed_5b",
    "mixed1": "Mixed_5c",
    "mixed2": "Mixed_5d",
    "mixed3": "Mixed_6a",
    "mixed4": "Mixed_6b",
    "mixed5": "Mixed_6c",
    "mixed6": "Mixed_6d",
    "mixed7": "Mixed_6e",
    "mixed8": "Mixed_7a",
    "mixed9": "Mixed_7b",
    "mixed10": "Mixed_7c",
}
# In the last two blocks some branches are called otherwise; a is 1×3, b is 3×1. All other branches have our names.
_BRANCHES = {
    "branch3x3": "branch3x3_1",
    "branch3x3_1x3": "branch3x3_2a",
    "branch3x3_3x1": "branch3x3_2b",
    "branch3x3dbl_1x3": "branch3x3dbl_3a",
    "branch3x3dbl_3x1": "branch3x3dbl_3b",
}
_TENSORS = {
    "conv.weight": "conv/kernel",  # OIHW
    "conv.bias": "conv/bias",  # Inception-v3 has none: named so that the strict load can refuse it
    "bn.weight": "bn/scale",
    "bn.bias": "bn/bias",
    "bn.running_mean": "bn/mean",
    "bn.running_var": "bn/var",
}
_TOP = {"fc.weight": "logits/kernel", "fc.bias": "logits/bias"}
# What a state dict of tensors needs, and all that is let through to torch's own restricted unpickler.
_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int")),
}
_MAX_PICKLE = 2**24  # bytes of a state dict's structure; a checkpoint with its optimizer has about 0.3 MB


def _unit(unit: str) -> str:
    """`mixed9/branch3x3_1x3` → `Mixed_7b.branch3x3_2a`."""
    if unit in _BLOCKS:
        return _BLOCKS[unit]
    stage, branch = unit.split("/")
    renamed = _BRANCHES.get(branch, branch) if stage in ("mixed9", "mixed10") else branch
    return f"{_BLOCKS[stage]}.{renamed}"


STAGES = {ours: theirs for ours, theirs in _BLOCKS.items() if "/" not in ours}  # mixed0 … mixed10 → Mixed_5b … Mixed_7c
TORCH_UNITS = {_unit(unit): unit for unit in UNITS}  # torchvision's name of a unit → ours


def from_torch(found: dict[str, Tensor], *, label_offset: int = 0) -> Contents:
    """What `torch.save(model.state_dict(), …)` and timm's safetensors files hold, with or without auxiliary classifier.

    BatchNorm's scale comes as `bn/scale`, which jaxcat's network does not have: the strict load folds it.

    Args:
        found: by name in the file, in torch's order of axes.
        label_offset: leading outputs of `fc` to drop.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in found.items():
        bare = bare_name(name)
        if bare.startswith("AuxLogits.") or bare.endswith(".num_batches_tracked"):
            continue
        unit, below = ".".join(bare.split(".")[:-2]), ".".join(bare.split(".")[-2:])
        if bare in _TOP:
            tensors[_TOP[bare]] = _ours(tensor, skip=label_offset)
        elif unit in TORCH_UNITS and below in _TENSORS:
            tensors[f"{TORCH_UNITS[unit]}/{_TENSORS[below]}"] = _ours(tensor)
        else:
            tensors[f"[{name}]"] = tensor
    return Contents(TORCH, tensors)


def bare_name(name: str) -> str:
    """Without what torch.nn.DataParallel puts before it."""
    return name.removeprefix("module.")


def unwrapped(saved: Any) -> Any:
    """The state dict inside a training script's checkpoint; anything else as it is."""
    if not isinstance(saved, dict):
        return saved
    return next((saved[key] for key in ("state_dict", "model") if key in saved), saved)


def _ours(tensor: Tensor, *, skip: int = 0) -> Tensor:
    """OIHW → HWIO, (outputs, inputs) → (inputs, outputs) without the first `skip` outputs."""

    def read() -> np.ndarray:
        array = tensor.read()
        return np.ascontiguousarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array[skip:].T)

    shape = tensor.shape
    if len(shape) == 4:
        return Tensor((shape[2], shape[3], shape[1], shape[0]), tensor.dtype, read)
    return Tensor((*shape[:0:-1], *(max(0, size - skip) for size in shape[:1])), tensor.dtype, read)


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
                f"{path} is a PyTorch file, which needs PyTorch to be read: install jaxcat with its torch extra. "
                "Without it, set --config.model.weights=timm/inception_v3.tv_in1k, the same network as safetensors"
            ) from error
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True if is_zip else None)
        state = unwrapped(state)
        if not isinstance(state, dict):
            raise WeightsError(f"{path} holds a {type(state).__name__}, not a dictionary of tensors")
        if len(state) > MAX_TENSORS:
            raise WeightsError(f"{path} holds more than {MAX_TENSORS:,} entries: it is no Inception-v3 weights file")
        return {str(name): _tensor(value) for name, value in state.items() if isinstance(value, torch.Tensor)}


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
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise WeightsError(f"{path} cannot be read as PyTorch weights, it may be incomplete: {reason}") from error


def _check_archive(path: Path) -> None:
    """torch.save packs nothing, so a compressed or overlapping member is somebody's trap."""
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
    """Every member lies behind the one before it; torch maps them as they are declared."""
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
    """The older format: magic number, version, machine, object, keys; the values follow the fifth pickle."""
    with open(path, "rb") as file:
        for _ in range(5):
            _check_pickle(file, path=path)


def _check_pickle(file: IO[bytes], *, path: Path) -> None:
    """Only tensors and containers: every name that the pickle would import must be one of `_GLOBALS`."""
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
