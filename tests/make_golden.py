"""Writes tests/golden_torchvision.json: a few of torchvision's outputs for a network of seeded random numbers.

    python tests/make_golden.py        (needs torch and torchvision)

The plain tests, which have no torch, compare with it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from weights_files import golden_state

from jaxcat.weights.verify import Outputs, random_images, torch_outputs

PATH = Path(__file__).with_name("golden_torchvision.json")
SIZES = ((75, 75), (96, 107))
VALUES = 16  # of each tensor


def sample(outputs: Outputs) -> dict[str, list[float]]:
    """`VALUES` numbers of each tensor at seeded places."""
    places = {name: np.random.default_rng(0).integers(0, array.size, VALUES) for name, array in outputs.items()}
    return {name: [float(f"{v:.6g}") for v in outputs[name].ravel()[places[name]]] for name in outputs}


def main() -> None:
    import torch
    import torchvision

    model = torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=False)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in golden_state().items()}, strict=False)
    golden: dict = {"torchvision": torchvision.__version__, "torch": torch.__version__}
    for height, width in SIZES:
        outputs = torch_outputs(model, random_images(height, width))
        largest = {name: float(f"{np.abs(array).max():.6g}") for name, array in outputs.items()}
        golden[f"{height}x{width}"] = {"largest": largest, "values": sample(outputs)}
    PATH.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
