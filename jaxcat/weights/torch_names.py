"""Translates torchvision's names, which timm shares, into jaxcat's, for Inception-v3 only. No values are read."""

from __future__ import annotations

import numpy as np

from jaxcat.weights.formats.contents import Contents, Tensor
from jaxcat.weights.keras_names import UNITS
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
# In the last two blocks some branches have other names (a is 1×3, b is 3×1). All others have jaxcat's names.
_BRANCHES = {
    "branch3x3": "branch3x3_1",
    "branch3x3_1x3": "branch3x3_2a",
    "branch3x3_3x1": "branch3x3_2b",
    "branch3x3dbl_1x3": "branch3x3dbl_3a",
    "branch3x3dbl_3x1": "branch3x3dbl_3b",
}
_TENSORS = {
    "conv.weight": "conv/kernel",  # OIHW
    "conv.bias": "conv/bias",  # not in Inception-v3; it has a name so that the strict load can refuse it
    "bn.weight": "bn/scale",
    "bn.bias": "bn/bias",
    "bn.running_mean": "bn/mean",
    "bn.running_var": "bn/var",
}
_TOP = {"fc.weight": "logits/kernel", "fc.bias": "logits/bias"}


def _unit(unit: str) -> str:
    """`mixed9/branch3x3_1x3` → `Mixed_7b.branch3x3_2a`."""
    if unit in _BLOCKS:
        return _BLOCKS[unit]
    stage, branch = unit.split("/")
    renamed = _BRANCHES.get(branch, branch) if stage in ("mixed9", "mixed10") else branch
    return f"{_BLOCKS[stage]}.{renamed}"


OUTPUTS = {ours: theirs for ours, theirs in _BLOCKS.items() if "/" not in ours}  # jaxcat's block → torch's module
TORCH_UNITS = {_unit(unit): unit for unit in UNITS}  # torchvision's name of a unit → jaxcat's
BACKBONE = "inception_v3"  # the backbone whose names these are


def from_torch(found: dict[str, Tensor], backbone: str, *, label_offset: int = 0) -> Contents:
    """The contents of a file of `torch.save(model.state_dict(), …)` or timm, without the auxiliary classifier if any.

    BatchNorm's scale comes as `bn/scale`, which jaxcat's network does not have: the strict load folds it.

    Args:
        found: tensors by name in the file, in torch's order of axes.
        backbone: the backbone whose names these are; only the names of Inception-v3 are known.
        label_offset: leading outputs of `fc` to drop.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in found.items():
        bare = bare_name(name)
        if bare.startswith("AuxLogits.") or bare.endswith(".num_batches_tracked"):
            continue
        unit, below = ".".join(bare.split(".")[:-2]), ".".join(bare.split(".")[-2:])
        if backbone == BACKBONE and bare in _TOP:
            tensors[_TOP[bare]] = _ours(tensor, skip=label_offset)
        elif backbone == BACKBONE and unit in TORCH_UNITS and below in _TENSORS:
            tensors[f"{TORCH_UNITS[unit]}/{_TENSORS[below]}"] = _ours(tensor)
        else:
            tensors[f"[{name}]"] = tensor
    return Contents(TORCH, backbone, tensors)


def bare_name(name: str) -> str:
    """The name without the prefix that torch.nn.DataParallel adds."""
    return name.removeprefix("module.")


def _ours(tensor: Tensor, *, skip: int = 0) -> Tensor:
    """Converts OIHW to HWIO, or (outputs, inputs) to (inputs, outputs) without the first `skip` outputs."""

    def read() -> np.ndarray:
        array = tensor.read()
        return np.ascontiguousarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array[skip:].T)

    shape = tensor.shape
    if len(shape) == 4:
        return Tensor((shape[2], shape[3], shape[1], shape[0]), tensor.dtype, read)
    return Tensor((*shape[:0:-1], *(max(0, size - skip) for size in shape[:1])), tensor.dtype, read)
