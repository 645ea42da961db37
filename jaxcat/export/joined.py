"""Two LiteRT files as one: the outputs of the first become the inputs of the second; all weights keep their bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def joined(first: bytes, second: bytes, pairs: Sequence[tuple[str, str]]) -> bytes:
    """A file with the inputs of the first and the outputs of the second.

    Args:
        first, second: files of one subgraph each.
        pairs: name of an output of the first, name of the input of the second that takes its values.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    before, after = (flatbuffer_utils.read_model_from_bytearray(bytearray(each)) for each in (first, second))
    (graph,), (added,) = before.subgraphs, after.subgraphs
    tensors, buffers, codes = len(graph.tensors), len(before.buffers), len(before.operatorCodes)
    outputs, inputs = ({_name(of, i): i for i in ends} for of, ends in ((graph, graph.outputs), (added, added.inputs)))
    place = {i: tensors + i for i in range(len(added.tensors))} | {-1: -1}  # -1: an operator lacks this input
    place |= {inputs[later]: outputs[earlier] for earlier, later in pairs}
    for tensor in added.tensors:
        tensor.buffer += buffers
    for operator in added.operators:
        operator.opcodeIndex += codes
        operator.inputs = [place[int(i)] for i in operator.inputs]
        operator.outputs = [place[int(i)] for i in operator.outputs]
    graph.tensors += added.tensors
    graph.operators += added.operators
    graph.outputs = [place[int(i)] for i in added.outputs]
    before.buffers += after.buffers
    before.operatorCodes += after.operatorCodes
    # They describe the outputs that the first file had.
    before.signatureDefs, before.metadata, before.metadataBuffer = None, None, None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(before))


def _name(graph: Any, index: int) -> str:
    return graph.tensors[index].name.decode()
