"""Core ML: a package that takes an image of S × S pixels and gives a label and probabilities, for iOS 16 and macOS 13.

Only macOS has a runtime; elsewhere the package is written and not compared.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxcat.errors import ConfigError
from jaxcat.export.appended import DESCRIPTION
from jaxcat.export.formats import FLOAT32, INT8
from jaxcat.export.network import LOGITS, PROBABILITIES, ExportedNetwork
from jaxcat.export.quantized import quantized
from jaxcat.models.plan import (
    IMAGE,
    AveragePooling,
    Concatenation,
    Convolution,
    Dense,
    Features,
    Layer,
    MaxPooling,
    Normalize,
    Statistic,
)
from jaxcat.models.pooling import cells
from jaxcat.system.console import without_lines
from jaxcat.wording import printable

LABEL = "label"
LABEL_PROBABILITIES = "label_probs"  # the name that Core ML Tools give the dictionary, whatever one asks for


def write(path: Path, network: ExportedNetwork, *, weights: str) -> None:
    for name in network.classes:
        if any("\ud800" <= letter <= "\udfff" for letter in name):  # a file name that is not UTF-8
            raise ConfigError(f"--format coreml cannot hold the class {printable(name)}, whose name is not UTF-8")
    with without_lines(""):
        _model(network, weights).save(str(path))


def describe(path: Path, text: str, *, classes: Sequence[str]) -> None:
    from coremltools.proto import Model_pb2

    (file,) = path.rglob("*.mlmodel")
    model = Model_pb2.Model.FromString(file.read_bytes())
    model.description.metadata.userDefined[DESCRIPTION] = text
    file.write_bytes(model.SerializeToString())


def opened(path: Path, network: ExportedNetwork) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None:
    if sys.platform != "darwin":
        return None
    import coremltools as ct

    model = ct.models.MLModel(str(path))

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [model.predict({IMAGE: Image.fromarray(image)}) for image in images]
        logits = np.stack([each[LOGITS].reshape(-1) for each in found])
        return logits, np.array([[each[LABEL_PROBABILITIES][name] for name in network.classes] for each in found])

    return run


def program_of(network: ExportedNetwork, *, weights: str) -> Any:
    """The network as a program of Core ML Tools: levels (1, 3, S, S) → logits and probabilities."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    side = network.image_size

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, side, side))], opset_version=ct.target.iOS16)
    def program(image: Any) -> Any:
        outputs = {IMAGE: image}
        for layer in network.plan.layers:
            inputs: list[Any] = [outputs[name] for name in layer.inputs]
            arrays: Any = network.arrays.get(layer.name)
            if isinstance(layer, Convolution) and arrays is not None:
                kernel = np.ascontiguousarray(arrays.kernel.transpose(3, 2, 0, 1))
                arrays = (_in_8_bits(mb, kernel) if weights == INT8 else kernel, arrays.bias)
            outputs[layer.name] = _OPERATIONS[type(layer)](mb, layer, inputs, arrays)
        logits = mb.identity(x=outputs[LOGITS], name=LOGITS)
        both = mb.pad(x=logits, pad=[0, 0, 1, 0], mode="constant", constant_val=0.0) if network.outputs == 1 else logits
        return mb.softmax(x=both, axis=1, name=PROBABILITIES), logits

    return program


def _model(network: ExportedNetwork, weights: str) -> Any:
    import coremltools as ct

    side = network.image_size
    model = ct.convert(
        program_of(network, weights=weights),
        source="milinternal",
        convert_to="mlprogram",
        inputs=[ct.ImageType(name=IMAGE, shape=(1, 3, side, side), color_layout=ct.colorlayout.RGB)],
        classifier_config=ct.ClassifierConfig(
            list(network.classes), predicted_feature_name=LABEL, predicted_probabilities_output=PROBABILITIES
        ),
        compute_precision=ct.precision.FLOAT32 if weights == FLOAT32 else ct.precision.FLOAT16,
        minimum_deployment_target=ct.target.iOS16,
        skip_model_load=True,
    )
    model.short_description = f"Image classifier of {len(network.classes)} classes, made by jaxcat"
    return model


def _in_8_bits(mb: Any, kernel: np.ndarray) -> Any:
    """A kernel (outputs, …) that is stored as integers and one scale for each output channel."""
    integers, scale = quantized(kernel)
    return mb.constexpr_affine_dequantize(
        quantized_data=integers, zero_point=np.int8(0), scale=scale.reshape(-1), axis=np.int32(0)
    )


# layers ---------------------------------------------------------------------------------------------------------------


def _normalize(mb: Any, layer: Normalize, inputs: list[Any], arrays: Any) -> Any:
    (x,) = inputs
    if layer.channels == "BGR":
        x = mb.reverse(x=x, axes=[1])
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (layer.mean, layer.std))
    shifted = mb.sub(x=mb.mul(x=x, y=np.float32(1 / 255)), y=mean)
    return mb.real_div(x=shifted, y=std)


def _convolution(mb: Any, layer: Convolution, inputs: list[Any], arrays: Any) -> Any:
    kernel, bias = arrays
    rows, columns = (side // 2 if layer.padding == "SAME" else 0 for side in layer.kernel)
    x = mb.conv(
        x=inputs[0],
        weight=kernel,
        bias=bias,
        strides=[layer.stride] * 2,
        pad_type="custom",
        pad=[rows, rows, columns, columns],
    )
    return mb.relu(x=x) if layer.relu else x


def _max_pooling(mb: Any, layer: MaxPooling, inputs: list[Any], arrays: Any) -> Any:
    sides = {"kernel_sizes": [layer.window] * 2, "strides": [layer.stride] * 2}
    return mb.max_pool(x=inputs[0], pad_type="valid", **sides)


def _average_pooling(mb: Any, layer: AveragePooling, inputs: list[Any], arrays: Any) -> Any:
    return mb.avg_pool(
        x=inputs[0],
        kernel_sizes=[layer.window] * 2,
        strides=[1, 1],
        pad_type="custom",
        pad=[layer.window // 2] * 4,
        exclude_padding_from_average=not layer.counts_padding,
    )


def _concatenation(mb: Any, layer: Concatenation | Features, inputs: list[Any], arrays: Any) -> Any:
    return mb.concat(values=inputs, axis=1) if len(inputs) > 1 else inputs[0]


def _statistic(mb: Any, layer: Statistic, inputs: list[Any], arrays: Any) -> Any:
    (x,) = inputs
    if layer.kind == "flatten":
        return mb.reshape(x=mb.transpose(x=x, perm=[0, 2, 3, 1]), shape=[1, layer.shape[0]])
    channels, height, width = x.shape[1:]
    found = []
    for top, bottom, left, right in cells(height, width, layer.grid):
        part = x
        if layer.grid > 1:
            part = mb.slice_by_index(x=x, begin=[0, 0, top, left], end=[1, channels, bottom, right])
        found.append(_reduced(mb, layer.kind, part))
    return mb.concat(values=found, axis=1) if len(found) > 1 else found[0]


def _reduced(mb: Any, kind: str, x: Any) -> Any:
    axes = [2, 3]
    if kind != "std":
        return {"avg": mb.reduce_mean, "max": mb.reduce_max}[kind](x=x, axes=axes, keep_dims=False)
    deviation = mb.sub(x=x, y=mb.reduce_mean(x=x, axes=axes, keep_dims=True))
    return mb.sqrt(x=mb.reduce_mean(x=mb.square(x=deviation), axes=axes, keep_dims=False))


def _dense(mb: Any, layer: Dense, inputs: list[Any], arrays: Any) -> Any:
    kernel, bias = arrays
    x = mb.linear(x=inputs[0], weight=np.ascontiguousarray(kernel.T), bias=bias)
    return mb.relu(x=x) if layer.relu else x


_OPERATIONS: dict[type[Layer], Callable[..., Any]] = {
    Normalize: _normalize,
    Convolution: _convolution,
    MaxPooling: _max_pooling,
    AveragePooling: _average_pooling,
    Concatenation: _concatenation,
    Statistic: _statistic,
    Features: _concatenation,
    Dense: _dense,
}
