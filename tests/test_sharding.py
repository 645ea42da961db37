"""Placements on eight devices, and two real processes that see one batch as one process does."""

import jax
import numpy as np
import pytest
from processes import Processes

from jaxcat.errors import ConfigError
from jaxcat.system import devices, processes


def test_batches_are_split_and_trees_are_whole():
    mesh = devices.make_mesh()
    batch = devices.to_global(mesh, {"x": np.arange(32).reshape(16, 2), "mask": np.ones(16, bool)})
    assert batch["x"].sharding.is_equivalent_to(devices.by_batch(mesh), 2)
    assert {shard.data.shape for shard in batch["x"].addressable_shards} == {(2, 2)}
    np.testing.assert_array_equal(batch["x"], np.arange(32).reshape(16, 2))
    tree = devices.place_replicated(mesh, {"a": np.ones((3, 2)), "b": [np.zeros(1)]})
    assert {shard.data.shape for shard in tree["a"].addressable_shards} == {(3, 2)}
    assert len(tree["b"][0].addressable_shards) == 8


@pytest.mark.parametrize("shape", [(), (0, 3), (7, 5, 3)])
def test_an_aligned_array_is_taken_by_a_cpu_device_as_it_is(shape):
    array = devices.aligned(shape, np.dtype(np.float16))
    assert array.shape == shape
    assert array.dtype == np.float16
    array[...] = 1
    placed = jax.device_put(array, jax.devices("cpu")[0])
    assert not array.size or placed.unsafe_buffer_pointer() == array.ctypes.data


@pytest.mark.parametrize(("batch_size", "padded"), [(1, 8), (8, 8), (20, 24), (64, 64), (65, 72)])
def test_padded_batch_size(batch_size, padded):
    assert devices.padded_batch_size(batch_size, devices.make_mesh()) == padded


def test_one_process_joins_nobody(monkeypatch):
    def refuse(*_):
        raise AssertionError("joined")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # a shell inside an allocation, not a process that srun started
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    processes.initialize_distributed()
    processes.initialize_distributed("localhost:1", num_processes=1, process_id=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("SLURM_STEP_NUM_TASKS", "2"), ("OMPI_COMM_WORLD_SIZE", "4"), ("TPU_WORKER_HOSTNAMES", "a,b")],
)
def test_a_launcher_of_several_is_left_to_jax(monkeypatch, name, value):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given, **more: calls.append(given))
    monkeypatch.setenv(name, value)
    processes.initialize_distributed()
    assert calls == [()]


@pytest.mark.parametrize(
    "given",
    [
        {"coordinator": "localhost:1"},
        {"coordinator": "localhost:1", "num_processes": 2},
        {"num_processes": 2, "process_id": 0},
        {"coordinator": "auto", "process_id": 1},
        {"coordinator": "localhost:1", "num_processes": 2, "process_id": 2},
    ],
)
def test_half_a_request_is_refused(given):
    with pytest.raises(ConfigError, match=f"--process-id={given.get('process_id')}"):
        processes.initialize_distributed(**given)


PROCESS = """
import argparse
import jax, numpy as np
from jaxcat.data import batches
from jaxcat.data.augmentation.table import Views
from jaxcat.system import cli, devices, processes

parser = argparse.ArgumentParser()
parser.add_argument("result")
cli.add_process_flags(parser)
given = parser.parse_args()

class Store:
    def gather(self, indices):
        return np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), np.uint8)[indices]

processes.initialize_distributed(
    given.coordinator, num_processes=given.num_processes, process_id=given.process_id
)
mesh = devices.make_mesh()
weights = devices.place_replicated(mesh, np.arange(16 * 16 * 3, dtype=np.float32).reshape(16, 16, 3))

@jax.jit
def total(weights, batch):
    sums = (weights * batch["image"]).sum((1, 2, 3)) * batch["mask"] * (1 + batch["label"])
    return sums.sum(), batch["mask"].sum()

results = []
order = np.random.default_rng(1).permutation(50)
options = {"batch_size": 20, "size": 16, "mesh": mesh, "augment": Views("article")}
for batch in batches.batches(Store(), np.arange(50) % 5, order, **options):
    results.append([float(x) for x in total(weights, batch)])
np.save(given.result, results)
"""


@pytest.mark.slow
def test_two_processes_see_the_batches_of_one(tmp_path):
    for count in (2, 1):
        own = lambda process, count=count: (str(tmp_path / f"{count}-{process}.npy"),)  # noqa: E731
        logs = tmp_path / f"{count}.logs"
        with Processes(count, ("-c", PROCESS), (), logs=logs, devices=8 // count, each=own) as run:
            assert run.statuses() == [0] * count, run.output()
    alone, first, second = (np.load(tmp_path / name) for name in ("1-0.npy", "2-0.npy", "2-1.npy"))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(alone[:, 1], [20, 20, 10])
    np.testing.assert_allclose(first, alone, rtol=1e-6)
