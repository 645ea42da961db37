"""A script that only reads everything in an HDF5 file, to show by its exit status whether that is possible.

libhdf5 can loop for ever or crash on damaged files. In a process of its own, with limits, this only ends that process:

    python hdf5_probe.py PATH VALUES MEMORY SECONDS

PATH may be - for standard input. Arrays of more than VALUES numbers are not read. MEMORY is in bytes, beyond what the
imports take; SECONDS are of processor time.
"""

import contextlib
import io
import math
import sys

import h5py


def limit(memory: int, seconds: int) -> None:
    """Sets limits if the system supports them; if not, only the caller's timeout ends the process."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))


def visit(item: object, values: int) -> None:
    if isinstance(item, h5py.Dataset) and item.shape is not None and not item.external and not item.is_virtual:
        if item.chunks is not None:
            item.id.get_num_chunks()
        if math.prod(item.shape) <= values:
            with contextlib.suppress(OSError, ValueError, TypeError):  # the strict load reports it better
                item[()]


if __name__ == "__main__":
    most_values, *limits = map(int, sys.argv[2:])
    limit(*limits)
    try:
        file = io.BytesIO(sys.stdin.buffer.read()) if sys.argv[1] == "-" else sys.argv[1]
        with h5py.File(file, "r") as opened:
            opened.visititems(lambda _, item: visit(item, most_values))
    except Exception as error:  # h5py passes on nearly every kind; also a loop that meets the memory limit
        sys.exit(" ".join(str(error).split()) or type(error).__name__)
