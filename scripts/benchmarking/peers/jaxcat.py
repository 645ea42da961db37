"""jaxcat's own network and train step, as train.py uses them; needs no TensorFlow and no network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcat.config import default
from jaxcat.models.completion import complete
from jaxcat.models.network import Network
from jaxcat.models.preprocessing import Conventions
from jaxcat.system.compilation import enable_compilation_cache, jit
from jaxcat.system.devices import make_mesh, padded_batch_size, place_replicated, replicated, to_global
from jaxcat.training.optim import make_optimizer
from jaxcat.training.steps import make_train_step, new_state

enable_compilation_cache()


def describe() -> dict[str, str]:
    device = jax.devices()[0]
    kind = device.device_kind if device.platform != "cpu" else "cpu"
    return {"version": f"jax {jax.__version__}", "device": f"{jax.device_count()} × {kind}"}


def device_memory() -> int | None:
    stats = jax.devices()[0].memory_stats()
    return stats.get("peak_bytes_in_use") if stats else None


def matmul(*, side: int, dtype: str) -> Callable[[int], None]:
    x = jnp.full((side, side), 1 / side, jnp.dtype(dtype))
    product = jit(lambda a, b: a @ b)
    return _repeat(lambda: product(x, x))


def forward(*, size: int, batch: int, dtype: str) -> Callable[[int], None]:
    """uint8 images → logits."""
    logits, *arguments = _forward(size, batch, dtype)
    compiled = jit(logits)
    return _repeat(lambda: compiled(*arguments))


def step(*, size: int, batch: int, dtype: str, train_from: str) -> Callable[[int], None]:
    """RMSprop on what `train_from` says; the state is donated."""
    function, state, frozen, rows = _step(size, batch, dtype, train_from)
    compiled = jit(function, donate_argnums=0, out_shardings=replicated(make_mesh()))

    def run(calls: int) -> None:
        nonlocal state
        for _ in range(calls):
            state = compiled(state, frozen, rows)
        jax.block_until_ready(state)

    return run


TASKS = {"matmul": matmul, "forward": forward, "step": step}


def flops(task: str, **case: Any) -> float:
    """Floating-point operations that XLA counts in one call, before it optimises.

    Counted for one image and for two, and extended to the batch: XLA counts the body of the loop over chunks once.
    """
    one, two = (_flops(task, {**case, "batch": count}) for count in (1, 2))
    return one + (case["batch"] - 1) * (two - one)


def _flops(task: str, case: dict[str, Any]) -> float:
    function, *arguments = _step(**case) if task == "step" else _forward(**case)
    with jax.default_device(jax.devices("cpu")[0]):  # GPUs count nothing before they compile
        return jax.jit(function).lower(*jax.device_get(arguments)).cost_analysis()["flops"]


def difference(*, size: int, batch: int, dtype: str) -> float:
    """Largest difference of mixed10's output here from float32 on the CPU, over the largest value there."""
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)

    def output(dtype: str) -> Any:
        network, _ = _network(size, dtype, "head")
        frozen, _ = network.split(*network.initialize(0))
        # not `jit`: its options are those of the default device
        return np.asarray(jax.jit(network.prefix)(frozen, images), np.float64)

    here = output(dtype)
    with jax.default_device(jax.devices("cpu")[0]), jax.default_matmul_precision("highest"):
        there = output("float32")
    return float(np.abs(here - there).max() / np.abs(there).max())


def results(*, size: int, batch: int, dtype: str, train_from: str, runs: int, steps: int) -> int:
    """How many different states `runs` times the same steps from the same state end in."""
    from jaxcat.runs.meta import digests

    function, state, frozen, rows = _step(size, batch, dtype, train_from)
    compiled = jit(function, out_shardings=replicated(make_mesh()))
    ends = set()
    for _ in range(runs):
        end = state
        for _ in range(steps):
            end = compiled(end, frozen, rows)
        ends.add(tuple(digests(jax.device_get(end)).values()))
    return len(ends)


def _network(size: int, dtype: str, train_from: str) -> tuple[Network, Any]:
    config = default()
    config.model.dtype, config.model.train_from = dtype, train_from
    config.optim.learning_rate = 1e-6  # random numbers on random labels should not diverge
    complete(config)
    network = Network(config.model, classes=2, image_size=size, conventions=Conventions())
    return network, make_optimizer(config.optim, network.labels, steps=1000, steps_per_epoch=100)


def _batch(size: int, batch: int) -> dict[str, jax.Array]:
    mesh = make_mesh()
    padded = padded_batch_size(batch, mesh)
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (padded, size, size, 3), np.uint8)
    label = generator.integers(0, 2, padded).astype(np.int32)
    return to_global(mesh, {"image": image, "label": label, "mask": np.arange(padded) < batch})


def _forward(size: int, batch: int, dtype: str) -> tuple[Any, ...]:
    network, _ = _network(size, dtype, "head")
    frozen, trained = network.split(*network.initialize(0))
    values = place_replicated(make_mesh(), (trained["params"], trained["stats"], frozen))

    def logits(trained: Any, stats: Any, frozen: Any, image: Any) -> Any:
        return network.suffix(trained, stats, network.prefix(frozen, image))[0]

    return logits, *values, _batch(size, batch)["image"]


def _step(size: int, batch: int, dtype: str, train_from: str) -> tuple[Callable, Any, Any, Any]:
    network, tx = _network(size, dtype, train_from)
    frozen, trained = network.split(*network.initialize(0))
    placed = place_replicated(make_mesh(), (new_state(trained["params"], trained["stats"], tx), frozen))
    return make_train_step(network, tx, seed=0), *placed, _batch(size, batch)


def _repeat(call: Callable[[], Any]) -> Callable[[int], None]:
    def run(calls: int) -> None:
        for _ in range(calls):
            result = call()
        jax.block_until_ready(result)

    return run
