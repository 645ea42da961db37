"""Computes a Core ML package with NumPy: reads the finished files, as Apple's documentation of MIL defines each layer.

Only macOS can run such a package. This reads the program and its weights back from the disk and computes in float64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from coremltools.converters.mil.frontend.milproto.load import load
from coremltools.proto import Model_pb2
from numpy.lib.stride_tricks import sliding_window_view


def spec_of(package: Path) -> Any:
    (file,) = package.rglob("*.mlmodel")
    return Model_pb2.Model.FromString(file.read_bytes())


def program_of(package: Path) -> Any:
    (weights,) = package.rglob("weights")
    return load(spec_of(package), specification_version=7, file_weights_dir=str(weights)).functions["main"]


def computed(package: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs for images, uint8 (N, S, S, 3) RGB, one by one."""
    function = program_of(package)
    found = [_outputs(function, image) for image in images]
    return {name: np.concatenate([each[name] for each in found]) for name in ("logits", "probabilities")}


def _outputs(function: Any, image: np.ndarray) -> dict[str, Any]:
    values: dict[str, Any] = {"image": np.float64(image).transpose(2, 0, 1)[None]}

    def value(of: Any) -> Any:
        if isinstance(of, (list, tuple)):
            return [value(each) for each in of]
        return values.get(of.name, of.val)

    for op in function.operations:
        if op.op_type == "const" or op.op_type == "classify":
            continue
        inputs = {name: value(of) for name, of in op.inputs.items() if of is not None}
        values[op.outputs[0].name] = OPERATIONS[op.op_type](**inputs)
    return values


def _windows(x: np.ndarray, sides: Any, strides: Any) -> np.ndarray:
    return sliding_window_view(x, tuple(sides), axis=(2, 3))[:, :, :: strides[0], :: strides[1]]


def _padded(x: np.ndarray, pad_type: str, pad: Any) -> np.ndarray:
    top, bottom, left, right = pad if pad_type == "custom" else (0, 0, 0, 0)
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))


def _conv(*, x, weight, bias, strides, pad_type, pad=None, dilations=None, groups=1):
    assert groups == 1
    windows = _windows(_padded(x, pad_type, pad), weight.shape[2:], strides)
    out = np.tensordot(windows, np.float64(weight), axes=((1, 4, 5), (1, 2, 3)))
    return out.transpose(0, 3, 1, 2) + np.float64(bias).reshape(1, -1, 1, 1)


def _avg_pool(*, x, kernel_sizes, strides, pad_type, pad, exclude_padding_from_average, ceil_mode=False):
    sums = _windows(_padded(x, pad_type, pad), kernel_sizes, strides).sum(axis=(4, 5))
    counts = _windows(_padded(np.ones_like(x), pad_type, pad), kernel_sizes, strides).sum(axis=(4, 5))
    return sums / (counts if exclude_padding_from_average else np.prod(kernel_sizes))


def _max_pool(*, x, kernel_sizes, strides, pad_type, pad=None, ceil_mode=False):
    return _windows(_padded(x, pad_type, pad), kernel_sizes, strides).max(axis=(4, 5))


def _pad(*, x, pad, mode, constant_val):
    sides = np.reshape(pad, (-1, 2))
    return np.pad(x, [(0, 0)] * (x.ndim - len(sides)) + [tuple(each) for each in sides])


def _softmax(*, x, axis):
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def _slice(*, x, begin, end, stride=None, begin_mask=None, end_mask=None, squeeze_mask=None):
    for mask in (begin_mask, end_mask, squeeze_mask):
        assert mask is None or not np.any(mask)
    return x[tuple(slice(a, b) for a, b in zip(begin, end, strict=True))]


def _integers(*, quantized_data, zero_point, scale, axis):
    assert quantized_data.dtype == np.int8
    shape = [-1 if i == axis else 1 for i in range(quantized_data.ndim)]
    return (np.float64(quantized_data) - zero_point) * np.float64(scale).reshape(shape)


OPERATIONS = {
    "cast": lambda *, x, dtype: x,
    "identity": lambda *, x: x,
    "mul": lambda *, x, y: x * np.float64(y),
    "sub": lambda *, x, y: x - np.float64(y),
    "add": lambda *, x, y: x + np.float64(y),
    "real_div": lambda *, x, y: x / np.float64(y),
    "reverse": lambda *, x, axes: np.flip(x, tuple(axes)),
    "conv": _conv,
    "relu": lambda *, x: np.maximum(x, 0),
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "concat": lambda *, values, axis, interleave=False: np.concatenate(values, axis),
    "reduce_mean": lambda *, x, axes, keep_dims: x.mean(axis=tuple(axes), keepdims=bool(keep_dims)),
    "reduce_max": lambda *, x, axes, keep_dims: x.max(axis=tuple(axes), keepdims=bool(keep_dims)),
    "square": lambda *, x: x**2,
    "sqrt": lambda *, x: np.sqrt(x),
    "transpose": lambda *, x, perm: x.transpose(perm),
    "reshape": lambda *, x, shape: x.reshape(shape),
    "slice_by_index": _slice,
    "linear": lambda *, x, weight, bias: x @ np.float64(weight).T + np.float64(bias),
    "pad": _pad,
    "softmax": _softmax,
    "constexpr_affine_dequantize": _integers,
}
