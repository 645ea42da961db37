"""What is measured against what; each module is imported in a worker process of its own.

A module has `TASKS`, name → `prepare(**case) -> run`, where `run(calls)` does the work that often and returns once the
device is done; `describe() -> {"version": …, "device": …}`, which raises ImportError where the peer is absent; and,
where it knows, `device_memory() -> int | None`, the peak in bytes.

All networks are Inception-v3 to mixed10, global average, one logit, on He-normal kernels and BatchNorm's first
statistics, which never move: the same arithmetic everywhere, and no activation that fades into denormal numbers.
"""
