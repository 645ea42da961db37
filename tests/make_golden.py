"""Writes tests/golden_torch.json: a few outputs of torchvision's and timm's network with seeded random numbers.

    python tests/make_golden.py        (needs torch, torchvision and timm)

The plain tests, which have no torch, compare with it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from weights_files import golden_state

from jaxcat.weights.verify import Outputs, random_images, torch_outputs

PATH = Path(__file__).with_name("golden_torch.json")
SIZES = ((75, 75), (96, 107), (150, 150), (299, 299))
VALUES = 8  # of each tensor


def sample(outputs: Outputs) -> dict[str, list[float]]:
    """`VALUES` numbers of each tensor at seeded places."""
    places = {name: np.random.default_rng(0).integers(0, array.size, VALUES) for name, array in outputs.items()}
    return {name: [float(f"{v:.6g}") for v in outputs[name].ravel()[places[name]]] for name in outputs}


def main() -> None:
    import timm
    import torch
    import torchvision

    models = {
        "torchvision": torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=False),
        "timm": timm.create_model("inception_v3", pretrained=False, aux_logits=False),
    }
    golden: dict = {"versions": {module.__name__: module.__version__ for module in (torch, torchvision, timm)}}
    for framework, model in models.items():
        model.load_state_dict({name: torch.from_numpy(array) for name, array in golden_state().items()}, strict=False)
        for height, width in SIZES:
            outputs = torch_outputs(model, random_images(height, width))
            largest = {name: float(f"{np.abs(array).max():.6g}") for name, array in outputs.items()}
            golden.setdefault(framework, {})[f"{height}x{width}"] = {"largest": largest, "values": sample(outputs)}
    PATH.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
