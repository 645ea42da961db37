"""Reads everything in an HDF5 file, and nothing more: run as a script, for its exit status.

libhdf5 can loop for ever or crash on damaged files. In a process of its own, with limits, that is a refusal:

    python hdf5_probe.py PATH        (or - for standard input)
"""

import contextlib
import io
import math
import sys

import h5py

CPU_SECONDS = 5  # Inception-v3 takes less than one, gzip included
MEMORY = 2**29  # bytes beyond what the imports take; the largest sound array and the largest .keras member need 384 MiB


def limit() -> None:
    """Where the system has such limits; elsewhere the caller's timeout has to do."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


def visit(name: str, item: object) -> None:
    if isinstance(item, h5py.Dataset) and item.shape is not None and not item.external and not item.is_virtual:
        if item.chunks is not None:
            item.id.get_num_chunks()
        if math.prod(item.shape) <= 2**24:
            with contextlib.suppress(OSError, ValueError, TypeError):  # the strict load says it better
                item[()]


if __name__ == "__main__":
    limit()
    try:
        source = io.BytesIO(sys.stdin.buffer.read()) if sys.argv[1] == "-" else sys.argv[1]
        with h5py.File(source, "r") as opened:
            opened.visititems(visit)
    except Exception as error:  # h5py passes on nearly every kind; here also what a limit of memory makes of a loop
        sys.exit(" ".join(str(error).split()) or type(error).__name__)
