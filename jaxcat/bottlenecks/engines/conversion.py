"""python -m jaxcat.bottlenecks.engines.conversion REQUEST FILE < ARRAYS: converts a prefix for LiteRT.

A program of its own, so that a run imports no TensorFlow for it, shows none of the converter's notices, and does other
work at the same time. REQUEST is JSON: see `request_of`. ARRAYS are kernels and biases by layer, in the format of
safetensors. FILE is written. If that fails, the last line of standard output is the reason and the exit status is 1.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from ml_collections import ConfigDict

from jaxcat.bottlenecks.engines.litert import IMAGE
from jaxcat.bottlenecks.engines.names import engine_of
from jaxcat.errors import EngineError, one_line
from jaxcat.models.plan import Arrays, Plan, plan_of
from jaxcat.models.preprocessing import Conventions
from jaxcat.system.tensorflow_import import import_tensorflow

# The least share of what the parameters take in a file that has all of them: an 8-bit weight has one byte.
LEAST_SHARE = 0.9
BYTES = {True: 1, False: 4}  # of a weight, in a file that is quantized and one that is not


def plan_of_run(config: ConfigDict, conventions: Conventions) -> Plan:
    """What is converted for a run: the layers up to the statistics that the head sees."""
    return plan_of(config.model, image_size=config.data.image_size, conventions=conventions, classes=2).prefix()


def request_of(config: ConfigDict, conventions: Conventions) -> str:
    """What is to be converted, as JSON: the settings that `plan_of_run` reads, the conventions and the engine."""
    read = {
        "model": config.model.to_dict(),
        "data": {"image_size": config.data.image_size},
        "bottleneck": {"engine": config.bottleneck.engine},
    }
    return json.dumps({"config": read, "conventions": conventions.to_dict()})


def packed(arrays: Mapping[str, Arrays]) -> bytes:
    """The arrays that `models.plan.folded` gives, as the program reads them."""
    tensors = {}
    for name, each in arrays.items():
        tensors[f"{name}/kernel"] = np.ascontiguousarray(each.kernel)
        tensors[f"{name}/bias"] = np.ascontiguousarray(each.bias)
    return safetensors.numpy.save(tensors)


def unpacked(content: bytes) -> dict[str, Arrays]:
    """The inverse of `packed`."""
    tensors = safetensors.numpy.load(content)
    names = dict.fromkeys(name.rpartition("/")[0] for name in tensors)
    return {name: Arrays(tensors[f"{name}/kernel"], tensors[f"{name}/bias"]) for name in names}


def convert(plan: Plan, arrays: Mapping[str, Arrays], *, quantized: bool) -> bytes:
    """The content of a file that computes the statistics of one image, under the names of `plan.outputs`.

    Args:
        plan: from the pixels to the statistics.
        arrays: the result of `models.plan.folded`.
        quantized: 8-bit weights; a layer then rounds its input to 8 bits too, by the range that it has in each image.

    Raises:
        EngineError: the converter has left weights out.
    """
    tf = import_tensorflow()

    from jaxcat.bottlenecks.engines.tensorflow_graph import outputs_of

    def prefix(image: Any) -> dict[str, Any]:
        return outputs_of(plan.layers, arrays, {IMAGE: image})

    size = plan.layers[0].shape[0]
    inputs = [tf.TensorSpec([1, size, size, 3], tf.uint8, name=IMAGE)]
    content = file_of(prefix, inputs, plan.outputs, optimized=quantized)
    check_size(len(content), arrays, quantized=quantized)
    return content


def file_of(
    function: Callable[..., Mapping[str, Any]],
    inputs: Sequence[Any],
    outputs: Sequence[str],
    *,
    optimized: bool = False,
    half: bool = False,
) -> bytes:
    """The content of a file that computes a function of TensorFlow operations.

    Args:
        function: takes the inputs, gives values by name. Its arrays become constants: nothing is left to freeze.
        inputs: a `tf.TensorSpec` with a name for each input.
        outputs: names of the values that the file gives.
        optimized: 8-bit weights.
        half: float16 weights.
    """
    tf = import_tensorflow()

    def named(*arguments: Any) -> None:
        values = function(*arguments)
        for name in outputs:
            tf.identity(values[name], name=name)

    graph = tf.compat.v1.wrap_function(named, list(inputs))
    # Only the outputs of a pruned function have their own names in the file.
    pruned = graph.prune(graph.inputs, [graph.graph.get_tensor_by_name(f"{name}:0") for name in outputs])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([pruned])
    converter.optimizations = [tf.lite.Optimize.DEFAULT] if optimized or half else []
    if half:
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def check_size(size: int, arrays: Mapping[str, Arrays], *, quantized: bool) -> None:
    """Raises EngineError if `size` bytes cannot hold all weights; a converter may leave some out without an error."""
    least = LEAST_SHARE * BYTES[quantized] * sum(each.kernel.size for each in arrays.values())
    if size < least:
        raise EngineError(f"the converter made {size:,} bytes, and the weights alone take {least:,.0f}")


def main(arguments: list[str]) -> int:
    request, file = json.loads(arguments[0]), Path(arguments[1])
    arrays = unpacked(sys.stdin.buffer.read())
    try:
        config = ConfigDict(request["config"])
        plan = plan_of_run(config, Conventions.from_dict(request["conventions"]))
        file.write_bytes(convert(plan, arrays, quantized=engine_of(config.bottleneck.engine).quantized))
    except Exception as error:  # TensorFlow raises any kind; the run that started this program prints the reason
        print(f"\n{type(error).__name__}: {one_line(error)}" if not isinstance(error, EngineError) else f"\n{error}")
        return 1
    return 0


if __name__ == "__main__":
    os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    sys.exit(main(sys.argv[1:]))
