"""Inception-v3 of torchvision, or of timm where that is not there, in channels_last."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
torch.backends.cudnn.benchmark = True
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # JAX's default on the same devices

FIRST_TRAINED = {"head": "fc", "mixed8": "Mixed_7a", "stem": "Conv2d_1a_3x3"}


def describe() -> dict[str, str]:
    _, source = _architecture()
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    return {"version": f"torch {torch.__version__}, {source}", "device": device}


def device_memory() -> int | None:
    return torch.cuda.max_memory_allocated() if DEVICE == "cuda" else None


def matmul(*, side: int, dtype: str) -> Callable[[int], None]:
    x = torch.full((side, side), 1 / side, dtype=getattr(torch, dtype), device=DEVICE)
    return _repeat(lambda: x @ x)


def forward(*, size: int, batch: int, dtype: str) -> Callable[[int], None]:
    model = _model("head").to(getattr(torch, dtype))
    x, _ = _batch(size, batch)
    x = x.to(getattr(torch, dtype))

    def call() -> None:
        with torch.inference_mode():
            model(x)

    return _repeat(call)


def step(*, size: int, batch: int, dtype: str, train_from: str) -> Callable[[int], None]:
    model = _model(train_from)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.RMSprop(trained, lr=1e-6, alpha=0.9, eps=1e-7)
    x, y = _batch(size, batch)

    def call() -> None:
        mixed = torch.autocast(DEVICE, torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()
        with mixed:
            logits = model(x)[:, 0].float()
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.binary_cross_entropy_with_logits(logits, y).backward()
        optimizer.step()

    return _repeat(call)


TASKS = {"matmul": matmul, "forward": forward, "step": step}


def _architecture() -> tuple[Callable[[], Any], str]:
    try:
        import torchvision
    except (ImportError, RuntimeError):  # a torchvision built for another torch raises RuntimeError
        import timm

        return lambda: timm.create_model("inception_v3", num_classes=1), f"timm {timm.__version__}"
    make = torchvision.models.inception_v3
    return (
        lambda: make(weights=None, num_classes=1, aux_logits=False, transform_input=False, init_weights=False),
        f"torchvision {torchvision.__version__}",
    )


def _model(train_from: str) -> Any:
    torch.manual_seed(0)
    model = _architecture()[0]()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    trained = False
    for name, child in model.named_children():
        trained = trained or name == FIRST_TRAINED[train_from]
        child.requires_grad_(trained)
    return model.eval().to(DEVICE, memory_format=torch.channels_last)  # eval: BatchNorm on stored statistics


def _batch(size: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    x = (torch.rand(batch, 3, size, size) * 2 - 1).to(DEVICE, memory_format=torch.channels_last)
    return x, torch.randint(0, 2, (batch,)).float().to(DEVICE)


def _repeat(call: Callable[[], Any]) -> Callable[[int], None]:
    def run(calls: int) -> None:
        for _ in range(calls):
            call()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return run
