"""Images are kept in memory only where there is memory, whatever `data.cache_gb` allows."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxcat.data import store
from jaxcat.data.records import Split
from jaxcat.system import memory

GIB = 2**30


def machine(root: Path, files: dict[str, str]) -> Path:
    """A root with these files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = "MemTotal:       32000000 kB\nMemFree:  1000 kB\nMemAvailable:    8388608 kB\n"  # 8 GiB


@pytest.mark.parametrize(
    ("files", "gib"),
    [
        ({}, math.inf),
        ({"proc/meminfo": MEMINFO}, 8),
        (  # version 2, in a container that sees its own group as the root; 1 of 3 GiB used is files
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": f"{4 * GIB}\n",
                "sys/fs/cgroup/memory.current": f"{3 * GIB}\n",
                "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {GIB}\n",
            },
            2,
        ),
        (  # version 2 of a batch system: the job's group has the limit, the step's below it none
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/job_7/step_0\n",
                "sys/fs/cgroup/job_7/step_0/memory.max": "max\n",
                "sys/fs/cgroup/job_7/step_0/memory.current": f"{GIB}\n",
                "sys/fs/cgroup/job_7/memory.max": f"{2 * GIB}\n",
                "sys/fs/cgroup/job_7/memory.current": f"{GIB}\n",
            },
            1,
        ),
        (  # version 1
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "11:cpu:/x\n5:memory:/docker/abc\n",
                "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": f"{3 * GIB}\n",
                "sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes": f"{GIB}\n",
            },
            2,
        ),
        (  # more is used than allowed, for a moment
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "1000\n",
                "sys/fs/cgroup/memory.current": "2000\n",
            },
            0,
        ),
        ({"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/gone\n"}, 8),
    ],
)
def test_the_least_of_all_limits_counts(tmp_path, files, gib):
    assert memory.available(machine(tmp_path, files)) == gib * GIB


def test_this_machine_has_some():
    assert memory.available() > 2**20


def test_the_limit_of_the_process_counts():
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n"
    code += "from jaxcat.system import memory; assert 0 < memory.available() < 2**31"
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def split(name: str, count: int) -> Split:
    images = np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)
    files = tuple(f"{i}" for i in range(count))
    return Split(name, files, np.zeros(count, np.int32), lambda index: images[index])


def test_a_split_that_does_not_fit_is_decoded_on_demand_and_gives_the_same_images(monkeypatch, caplog):
    splits, sizes = {"train": split("train", 8), "validation": split("validation", 2)}, {"train": 64, "validation": 64}
    needed = store.memory_needed(splits["train"], 64)
    kept = store.open_stores(splits, sizes=sizes, mode="squash", cache_gb=4.0)
    monkeypatch.setattr(memory, "available", lambda: (needed - 1) / store.SHARE_OF_MEMORY)
    stores = store.open_stores(splits, sizes=sizes, mode="squash", cache_gb=4.0)
    assert [stores[name].in_memory for name in splits] == [False, True]
    assert caplog.text.count("decoded on demand") == 1
    assert "--config.data.cache_gb=4" in caplog.text
    every = np.arange(8)
    np.testing.assert_array_equal(stores["train"].gather(every), kept["train"].gather(every))
    caplog.clear()
    store.open_stores(splits, sizes=sizes, mode="squash", cache_gb=0.0)  # as asked for: nothing to say
    assert not caplog.text


def test_memory_that_the_system_refuses_is_not_needed(monkeypatch, caplog):
    def refused(*_: object) -> None:
        raise MemoryError

    (opened,) = store.make_stores(
        {"train": split("train", 4)}, sizes={"train": 64}, mode="squash", cache_gb=4.0
    ).values()
    with monkeypatch.context() as patched:
        patched.setattr(store.np, "empty", refused)
        assert opened.prepare() == 0
    assert not opened.in_memory
    assert "decoded on demand" in caplog.text
    assert opened.gather(np.arange(4)).shape == (4, 64, 64, 3)
