"""ONNX: a graph that takes uint8 images (N, S, S, 3), of opset 17, which runtimes since 2022 know."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jaxcat.export.formats import FLOAT16, FLOAT32, INT8
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
    Plan,
    Statistic,
)
from jaxcat.models.pooling import cells
from jaxcat.system.versions import installed_versions

OPSET, IR_VERSION = 17, 8
NAME, BATCH = "jaxcat", "N"


class Graph:
    """Nodes and initialisers of a graph that is being made; maps are (N, channels, height, width)."""

    def __init__(self, weights: str):
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._weights = weights

    def constant(self, name: str, values: Any) -> str:
        """The name of an array that is stored as it is."""
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """The name of the output of a new node."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def kernel(self, name: str, values: np.ndarray, *, of_head: bool) -> str:
        """The name of a float32 array that is stored as the weights are; its first axis are output channels."""
        if self._weights == FLOAT32 or (self._weights == INT8 and of_head):
            return self.constant(name, values)
        if self._weights == FLOAT16:
            return self.add("Cast", [self.constant(f"{name}/stored", values.astype(np.float16))], name, to=1)
        integers, scale = quantized(values)
        cast = self.add("Cast", [self.constant(f"{name}/stored", integers)], f"{name}/cast", to=TensorProto.FLOAT)
        return self.add("Mul", [cast, self.constant(f"{name}/scale", scale)], name)


def write(path: Path, network: ExportedNetwork, *, weights: str) -> None:
    graph = Graph(weights)
    for layer in network.plan.layers:
        _OPERATIONS[type(layer)](graph, layer, network)
    _probabilities(graph, network)
    side, outputs, classes = network.image_size, network.outputs, len(network.classes)
    made = helper.make_graph(
        graph.nodes,
        NAME,
        [helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [BATCH, side, side, 3])],
        [
            helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [BATCH, classes]),
            helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [BATCH, outputs]),
        ],
        graph.initializers,
    )
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name=NAME
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def describe(path: Path, text: str, *, classes: Sequence[str]) -> None:
    model = onnx.load(path)
    helper.set_model_props(model, {NAME: text})
    onnx.save(model, path)


def opened(path: Path, network: ExportedNetwork) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None:
    if not installed_versions("onnxruntime"):
        return None
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it would report to Microsoft what is run; read at its import
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # else threads that wait keep cores busy
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: tuple(session.run([LOGITS, PROBABILITIES], {IMAGE: images}))


# layers ---------------------------------------------------------------------------------------------------------------


def _normalize(graph: Graph, layer: Normalize, network: ExportedNetwork) -> None:
    name = layer.name
    # Channels first, then arithmetic: ONNX Runtime is slow where it repeats a vector along the last axis.
    x = graph.add("Transpose", [IMAGE], f"{name}/channels_first", perm=[0, 3, 1, 2])
    if layer.channels == "BGR":
        order = graph.constant(f"{name}/order", np.array([2, 1, 0], np.int64))
        x = graph.add("Gather", [x, order], f"{name}/bgr", axis=1)
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (layer.mean, layer.std))
    x = graph.add("Cast", [x], f"{name}/float", to=TensorProto.FLOAT)
    x = graph.add("Div", [x, graph.constant(f"{name}/levels", np.float32(255))], f"{name}/share")
    x = graph.add("Sub", [x, graph.constant(f"{name}/mean", mean)], f"{name}/centred")
    graph.add("Div", [x, graph.constant(f"{name}/std", std)], name)


def _convolution(graph: Graph, layer: Convolution, network: ExportedNetwork) -> None:
    kernel, bias = network.arrays[layer.name]
    inputs = [
        *layer.inputs,
        graph.kernel(f"{layer.name}/kernel", kernel.transpose(3, 2, 0, 1), of_head=False),
        graph.constant(f"{layer.name}/bias", bias),
    ]
    rows, columns = (side // 2 if layer.padding == "SAME" else 0 for side in layer.kernel)
    sides = {"kernel_shape": layer.kernel, "pads": [rows, columns] * 2, "strides": [layer.stride] * 2}
    output = graph.add("Conv", inputs, f"{layer.name}/sum" if layer.relu else layer.name, **sides)
    if layer.relu:
        graph.add("Relu", [output], layer.name)


def _max_pooling(graph: Graph, layer: MaxPooling, network: ExportedNetwork) -> None:
    sides = {"kernel_shape": [layer.window] * 2, "strides": [layer.stride] * 2}
    graph.add("MaxPool", list(layer.inputs), layer.name, **sides)


def _average_pooling(graph: Graph, layer: AveragePooling, network: ExportedNetwork) -> None:
    sides = {"kernel_shape": [layer.window] * 2, "pads": [layer.window // 2] * 4, "strides": [1, 1]}
    counted = int(layer.counts_padding)
    graph.add("AveragePool", list(layer.inputs), layer.name, count_include_pad=counted, **sides)


def _concatenation(graph: Graph, layer: Concatenation | Features, network: ExportedNetwork) -> None:
    graph.add("Concat", list(layer.inputs), layer.name, axis=1)


def _statistic(graph: Graph, layer: Statistic, network: ExportedNetwork) -> None:
    (x,), name = layer.inputs, layer.name
    if layer.kind == "flatten":
        x = graph.add("Transpose", [x], f"{name}/rows", perm=[0, 2, 3, 1])
        shape = graph.constant(f"{name}/shape", np.array([-1, layer.shape[0]], np.int64))
        graph.add("Reshape", [x, shape], name)
        return
    height, width = _sides(network.plan, x)
    found = []
    for top, bottom, left, right in cells(height, width, layer.grid):
        cell = f"{name}/{top}-{left}" if layer.grid > 1 else f"{name}/all"
        part = x
        if layer.grid > 1:
            bounds = [[top, left], [bottom, right], [2, 3]]
            ends = [graph.constant(f"{cell}/{i}", np.array(each, np.int64)) for i, each in enumerate(bounds)]
            part = graph.add("Slice", [x, *ends], f"{cell}/map")
        found.append(_reduced(graph, layer.kind, part, cell))
    graph.add("Concat", found, name, axis=1)


def _reduced(graph: Graph, kind: str, x: str, name: str) -> str:
    """The average, maximum or standard deviation of a map, (N, channels)."""
    axes = [2, 3]
    if kind != "std":
        return graph.add({"avg": "ReduceMean", "max": "ReduceMax"}[kind], [x], name, axes=axes, keepdims=0)
    mean = graph.add("ReduceMean", [x], f"{name}/mean", axes=axes, keepdims=1)
    deviation = graph.add("Sub", [x, mean], f"{name}/deviation")
    squares = graph.add("Mul", [deviation, deviation], f"{name}/squares")
    return graph.add("Sqrt", [graph.add("ReduceMean", [squares], f"{name}/variance", axes=axes, keepdims=0)], name)


def _dense(graph: Graph, layer: Dense, network: ExportedNetwork) -> None:
    kernel, bias = network.arrays[layer.name]
    stored = graph.kernel(f"{layer.name}/kernel", kernel, of_head=True)
    inputs = [*layer.inputs, stored, graph.constant(f"{layer.name}/bias", bias)]
    output = graph.add("Gemm", inputs, f"{layer.name}/sum" if layer.relu else layer.name)
    if layer.relu:
        graph.add("Relu", [output], layer.name)


def _probabilities(graph: Graph, network: ExportedNetwork) -> None:
    both = LOGITS
    if network.outputs == 1:
        zero = graph.add("Sub", [LOGITS, LOGITS], "probabilities/zero")
        both = graph.add("Concat", [zero, LOGITS], "probabilities/logits", axis=1)
    graph.add("Softmax", [both], PROBABILITIES, axis=1)


def _sides(plan: Plan, name: str) -> tuple[int, ...]:
    """Height and width of the output of a layer."""
    return next(layer.shape[:2] for layer in plan.layers if layer.name == name)


_OPERATIONS: dict[type[Layer], Callable[..., None]] = {
    Normalize: _normalize,
    Convolution: _convolution,
    MaxPooling: _max_pooling,
    AveragePooling: _average_pooling,
    Concatenation: _concatenation,
    Statistic: _statistic,
    Features: _concatenation,
    Dense: _dense,
}
