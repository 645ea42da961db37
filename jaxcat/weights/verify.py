"""The network's outputs at every block, ours and those of the framework that a file comes from, to be compared.

The frameworks are imported only by the functions that need them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcat import inception
from jaxcat.compilation import jit
from jaxcat.errors import WeightsError
from jaxcat.weights import safetensors
from jaxcat.weights.formats import HDF5, KERAS_ARCHIVE, PYTORCH, file_format, open_weights
from jaxcat.weights.load import Pretrained
from jaxcat.weights.registry import KERAS_3
from jaxcat.weights.torch import STAGES as TORCH_STAGES
from jaxcat.weights.torch import bare_name, unwrapped

SIZES = ((75, 75), (150, 150), (299, 299), (151, 203))  # height and width in pixels; 75 is the least there is
BLOCKS = tuple(name for name in inception.STAGES if name != "stem")

Outputs = dict[str, np.ndarray]


class NotInstalled(WeightsError):
    """The framework that a file comes from is not there to compare with."""


def random_images(height: int, width: int, *, batch: int = 1) -> np.ndarray:
    """Seeded network inputs, float32 (batch, height, width, 3) in [-1, 1)."""
    return np.random.default_rng(height).uniform(-1, 1, (batch, height, width, 3)).astype(np.float32)


def jaxcat_outputs(pretrained: Pretrained, images: np.ndarray, *, dtype: str = "float32") -> Outputs:
    """mixed0 … mixed10 (B, H, W, C), `average` (B, 2048) and, with a top, `logits` (B, 1000)."""
    options = inception.Options(pool_counts_padding=pretrained.pool_counts_padding, dtype=dtype)
    stages = nnx.eval_shape(lambda: inception.build("mixed10", options))
    graphs = {name: nnx.split(stages[name], nnx.Param, nnx.BatchStat)[0] for name in inception.STAGES}

    @jit
    def forward(params, stats, x):
        outputs = {}
        for name, graph in graphs.items():
            x = outputs[name] = nnx.merge(graph, params[name], stats[name])(x)
        outputs["average"] = x.astype(jnp.float32).mean(axis=(1, 2))
        if "logits" in params:
            outputs["logits"] = outputs["average"] @ params["logits"]["kernel"] + params["logits"]["bias"]
        return outputs

    params, stats = jax.tree.map(jnp.asarray, (pretrained.params, pretrained.stats))
    return {name: np.asarray(value) for name, value in forward(params, stats, images).items()}


def keras_outputs(model: Any, images: np.ndarray) -> Outputs:
    """The same from a Keras `InceptionV3`, with or without top, by its layers applied to any image size."""
    import keras

    inputs = keras.Input((*images.shape[1:3], 3))
    copy = keras.applications.InceptionV3(include_top=False, weights=None, input_tensor=inputs)
    body = [layer for layer in model.layers if layer.name not in ("avg_pool", "predictions")]
    for ours, theirs in zip(copy.layers, body, strict=True):
        ours.set_weights(theirs.get_weights())
    average = keras.layers.GlobalAveragePooling2D()(copy.output)
    outputs = {name: copy.get_layer(name).output for name in BLOCKS} | {"average": average}
    if len(body) < len(model.layers):
        outputs["logits"] = model.get_layer("predictions")(average)
    values = keras.Model(inputs, list(outputs.values()))(images, training=False)
    return {name: np.asarray(value) for name, value in zip(outputs, values, strict=True)}


def torch_outputs(model: Any, images: np.ndarray) -> Outputs:
    """The same from torchvision's or timm's Inception-v3, fed with `images` as they are (no `transform_input`)."""
    import torch

    outputs: dict[str, Any] = {}
    handles = [
        model.get_submodule(theirs).register_forward_hook(
            lambda _, __, output, ours=ours: outputs.__setitem__(ours, output.permute(0, 2, 3, 1))
        )
        for ours, theirs in TORCH_STAGES.items()
    ]
    with torch.no_grad():
        outputs["logits"] = model.eval()(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))))
    for handle in handles:
        handle.remove()
    outputs["average"] = outputs["mixed10"].mean(dim=(1, 2))
    return {name: outputs[name].contiguous().numpy() for name in (*BLOCKS, "average", "logits")}


def differences(found: Outputs, reference: Outputs) -> dict[str, float]:
    """max |found - reference| / max |reference| of every tensor of the reference."""
    ratios = {}
    for name, expected in reference.items():
        got = found[name].astype(np.float32)
        if got.shape != expected.shape:
            raise ValueError(f"{name}: shape {got.shape}, the reference has {expected.shape}")
        ratios[name] = float(np.abs(got - expected).max() / np.abs(expected).max())
    return ratios


def reference(path: Path) -> tuple[str, Callable[[np.ndarray], Outputs]]:
    """The framework that `path` comes from, by name, and its outputs with that file's numbers, read by itself.

    Raises:
        NotInstalled: the framework is not there to compare with.
        WeightsError: the file is of ours, which no other reads, or holds the network as a layer of another model.
    """
    kind = file_format(path)
    try:
        if kind in (HDF5, KERAS_ARCHIVE):
            return "keras", _keras_reference(path, kind)
        return _torch_reference(path, kind)
    except ImportError as error:
        raise NotInstalled(f"{error.name or 'its framework'} is not installed ({error})") from error


def _keras_reference(path: Path, kind: str) -> Callable[[np.ndarray], Outputs]:
    import shutil
    import tempfile

    import keras

    with open_weights(path) as contents:
        with_top, layout = "logits/kernel" in contents.tensors, contents.layout
        if contents.left_out:
            raise WeightsError(
                f"{path} holds the network as a layer of another model, beside {contents.left_out[0]}, and Keras does "
                "not load that into Inception-v3 alone: leave --verify out"
            )
    suffix = ".keras" if kind == KERAS_ARCHIVE else ".weights.h5" if layout == KERAS_3 else ".h5"
    model = keras.applications.InceptionV3(weights=None, include_top=with_top, classifier_activation=None)
    with tempfile.TemporaryDirectory() as folder:  # Keras goes by the name, jaxcat by the content
        named = Path(folder) / f"weights{suffix}"
        shutil.copyfile(path, named)
        model.load_weights(named)
    return lambda images: keras_outputs(model, images)


def _torch_reference(path: Path, kind: str) -> tuple[str, Callable[[np.ndarray], Outputs]]:
    import torch

    if kind == PYTORCH:
        import torchvision

        state = bare_state(torch.load(path, map_location="cpu", weights_only=True))
        auxiliary = any(name.startswith("AuxLogits.") for name in state)
        options = {"weights": None, "init_weights": False, "transform_input": False}
        name, model = "torchvision", torchvision.models.inception_v3(aux_logits=auxiliary, **options)
    else:
        if safetensors.read(path)[1]:
            raise WeightsError(f"{path} is a canonical file: name the file it was made from to compare with")
        import timm
        from safetensors.torch import load_file

        state = {
            name: value for name, value in bare_state(load_file(path)).items() if not name.startswith("AuxLogits.")
        }
        name, model = "timm", timm.create_model("inception_v3", pretrained=False)
    if "fc.weight" not in state:
        model.fc = torch.nn.Identity()
    model.load_state_dict(state)
    return name, lambda images: torch_outputs(model, images)


def bare_state(saved: Any) -> dict[str, Any]:
    """The tensors that the loader takes from what `torch.load` gave, by the names that the model has for them."""
    return {bare_name(name): value for name, value in unwrapped(saved).items() if hasattr(value, "shape")}
