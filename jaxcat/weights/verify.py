"""Compares a backbone's outputs at every block between jaxcat and the framework that a file comes from.

The frameworks are imported only by the functions that need them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcat.errors import WeightsError
from jaxcat.models.backbone import BACKBONES
from jaxcat.models.layers import Options
from jaxcat.models.modules import blocks_of
from jaxcat.system.compilation import jit
from jaxcat.weights.formats import safetensors_file
from jaxcat.weights.formats.detection import HDF5, KERAS_ARCHIVE, MEMBER, PYTORCH, file_format
from jaxcat.weights.formats.torch_file import unwrapped
from jaxcat.weights.keras_names import KERAS_NAMES
from jaxcat.weights.load import Pretrained, open_weights
from jaxcat.weights.registry import KERAS_3
from jaxcat.weights.torch_names import OUTPUTS as TORCH_OUTPUTS
from jaxcat.weights.torch_names import bare_name

Outputs = dict[str, np.ndarray]


class NotInstalled(WeightsError):
    """The framework that a file comes from, and that is to be compared with, is not installed."""


def sizes(backbone: str) -> tuple[tuple[int, int], ...]:
    """Heights and widths in pixels to compare at: the least, twice that, the published one, and an odd rectangle."""
    table = BACKBONES[backbone]
    sides = (table.least_image_size, 2 * table.least_image_size, table.image_size)
    return (*((side, side) for side in sides), (151, 203))


def random_images(height: int, width: int, *, batch: int = 1) -> np.ndarray:
    """Seeded network inputs, float32 (batch, height, width, 3) in [-1, 1)."""
    return np.random.default_rng(height).uniform(-1, 1, (batch, height, width, 3)).astype(np.float32)


def jaxcat_outputs(pretrained: Pretrained, images: np.ndarray, *, dtype: str = "float32") -> Outputs:
    """Every block's output (B, H, W, C) by name, `average` (B, C) of the last and, with a top, `logits` (B, 1000).

    There are no logits if the top needs another image size than that of `images`.
    """
    options = Options(pool_counts_padding=pretrained.conventions.pool_counts_padding, dtype=dtype)
    with_top = "logits" in pretrained.params and _top_fits(pretrained.backbone, images)
    params, stats = jax.tree.map(jnp.asarray, (pretrained.params, pretrained.stats))
    outputs = _forward(pretrained.backbone, options, with_top=with_top)(params, stats, images)
    return {name: np.asarray(value) for name, value in outputs.items()}


@functools.lru_cache(maxsize=4)  # the same network again, for another file, is not traced again
def _forward(backbone: str, options: Options, *, with_top: bool) -> Callable[..., dict[str, jax.Array]]:
    """The compiled program of `jaxcat_outputs`."""
    table = BACKBONES[backbone]
    blocks = blocks_of(backbone, table.stages[-1], options)

    @jit
    def forward(params, stats, x):
        outputs = {}
        for name, block in blocks.items():
            x = outputs[name] = nnx.merge(block.graph, params[name], stats[name])(x)
        outputs["average"] = x.astype(jnp.float32).mean(axis=(1, 2))
        if with_top:
            x = outputs["average"] if table.top.pool == "avg" else x.reshape(len(x), -1)
            for name in table.top.hidden:
                x = nnx.relu(x @ params[name]["kernel"] + params[name]["bias"])
            outputs["logits"] = x @ params["logits"]["kernel"] + params["logits"]["bias"]
        return outputs

    return forward


def keras_outputs(model: Any, images: np.ndarray, *, backbone: str = "inception_v3") -> Outputs:
    """The same from a model of Keras Applications, with or without top, whatever the image size it was made for."""
    import keras

    names = KERAS_NAMES[backbone]
    outputs = {ours: model.get_layer(theirs).output for ours, theirs in names.outputs.items()}
    last = list(outputs.values())[-1]
    outputs["average"] = keras.layers.GlobalAveragePooling2D()(last)
    if model.output is not last and _top_fits(backbone, images):
        outputs["logits"] = model.output
    blocks = keras.Model(model.inputs, list(outputs.values()))
    # `call` computes with images of any size; calling the model itself refuses all sizes but the one it was made for.
    values = blocks.call(keras.ops.convert_to_tensor(images), training=False)
    return {name: np.asarray(value) for name, value in zip(outputs, values, strict=True)}


def _top_fits(backbone: str, images: np.ndarray) -> bool:
    side = BACKBONES[backbone].top.image_size
    return side is None or images.shape[1:3] == (side, side)


def torch_outputs(model: Any, images: np.ndarray) -> Outputs:
    """The same from torchvision's or timm's Inception-v3, fed with `images` as they are (no `transform_input`)."""
    import torch

    outputs: dict[str, Any] = {}
    handles = [
        model.get_submodule(theirs).register_forward_hook(
            lambda _, __, output, ours=ours: outputs.__setitem__(ours, output.permute(0, 2, 3, 1))
        )
        for ours, theirs in TORCH_OUTPUTS.items()
    ]
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))))
    for handle in handles:
        handle.remove()
    last = outputs[list(TORCH_OUTPUTS)[-1]]
    outputs |= {"average": last.mean(dim=(1, 2)), "logits": logits}
    return {name: outputs[name].contiguous().numpy() for name in (*TORCH_OUTPUTS, "average", "logits")}


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
    """The framework that `path` comes from, by name, and its outputs as a function of images; it reads the file itself.

    Raises:
        NotInstalled: the framework is not installed.
        WeightsError: the file is canonical, which no framework reads, or has the network as a layer of another model.
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
    import zipfile

    import keras

    with open_weights(path) as contents:
        with_top, layout, backbone = "logits/kernel" in contents.tensors, contents.layout, contents.backbone
        if contents.left_out:
            raise WeightsError(
                f"{path} holds the network as a layer of another model, beside {contents.left_out[0]}. Keras does "
                f"not load that into {BACKBONES[backbone].title} alone: leave --verify out"
            )
    application = getattr(keras.applications, KERAS_NAMES[backbone].application)
    model = application(weights=None, include_top=with_top, classifier_activation=None)
    with tempfile.TemporaryDirectory() as folder:  # Keras detects the format from the name, jaxcat from the content
        if kind == KERAS_ARCHIVE:  # Keras takes six times as long to read them out of the archive
            with zipfile.ZipFile(path) as archive:
                named = Path(archive.extract(MEMBER, folder))
        else:
            named = Path(folder) / f"weights{'.weights.h5' if layout == KERAS_3 else '.h5'}"
            shutil.copyfile(path, named)
        model.load_weights(named)
    return lambda images: keras_outputs(model, images, backbone=backbone)


def _torch_reference(path: Path, kind: str) -> tuple[str, Callable[[np.ndarray], Outputs]]:
    import torch

    if kind == PYTORCH:
        import torchvision

        state = bare_state(torch.load(path, map_location="cpu", weights_only=True))
        auxiliary = any(name.startswith("AuxLogits.") for name in state)
        options = {"weights": None, "init_weights": False, "transform_input": False}
        name, model = "torchvision", torchvision.models.inception_v3(aux_logits=auxiliary, **options)
    else:
        if safetensors_file.read(path)[1]:
            raise WeightsError(f"{path} is a canonical file: to compare, give the file that it was made from")
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
    """The tensors that the loader takes from the result of `torch.load`, by the names that the model gives them."""
    return {bare_name(name): value for name, value in unwrapped(saved).items() if hasattr(value, "shape")}
