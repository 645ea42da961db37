"""Compilation: options for fast convolutions on CPU, and the cache of compiled programs."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections.abc import Callable
from typing import Any

import jax

from jaxcat.system.files import NoHomeError, cache_dir

logger = logging.getLogger(__name__)

# XLA:CPU of jaxlib ≥ 0.10 sends convolutions to YNNPACK, which takes twice as long as Eigen on Inception-v3. Limiting
# YNNPACK to dot products brings Eigen back; results change by at most 1e-6.
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}

# XLA:CPU removes the barriers of a program before it looks for values that are computed twice, so that a value which is
# to be computed again is kept in memory after all.
KEEP_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}


# How many networks, train steps and so on a process keeps, so that it need not trace and compile them again: a second
# run with the same settings on other images, such as the next fold, uses those of the first.
PROGRAMS_KEPT = 8


@functools.cache
def compiler_options() -> dict[str, str]:
    """The options for this backend: `CPU_OPTIONS` on CPU if this jaxlib knows them, else none."""
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x + 1, compiler_options=CPU_OPTIONS).lower(1.0).compile()
    except Exception as error:  # jaxlib has no error class for unknown options
        logger.warning("this jaxlib does not take %s; convolutions may be slow: %s", CPU_OPTIONS, error)
        return {}
    return CPU_OPTIONS


def jit(function: Callable, *, keep_barriers: bool = False, **arguments: Any) -> Callable:
    """`jax.jit` with `compiler_options()`; for outermost functions only, because JAX refuses options on inner ones.

    Args:
        function: the function to compile.
        keep_barriers: whether what `jax.checkpoint` and `jax.lax.optimization_barrier` keep apart stays apart on a CPU.
        arguments: of `jax.jit`.
    """
    options = compiler_options()
    if keep_barriers and jax.default_backend() == "cpu":
        options = options | KEEP_BARRIERS
    return jax.jit(function, compiler_options=options or None, **arguments)


def xla_flags() -> list[str]:
    """The flags in XLA_FLAGS, sorted, without the number of CPU devices, which does not change a program."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    return sorted(flag for flag in flags if not flag.startswith("--xla_force_host_platform_device_count"))


def enable_compilation_cache() -> None:
    """Keeps compiled programs under the cache directory, so that the next run does not compile them again.

    Each set of XLA_FLAGS has its own folder. JAX keeps the programs of different flags apart, but XLA also stores there
    which kernels were fastest, whatever the flags. Thus a deterministic run on a GPU could get another run's kernels.
    """
    try:
        root = cache_dir()
    except NoHomeError:
        return  # programs are compiled anew
    if not _is_text(str(root)):
        logger.warning("%s: XLA takes no path with undecodable bytes: compiled programs are not kept", ascii(str(root)))
        return
    flags = " ".join(xla_flags())
    name = f"xla-{hashlib.sha256(flags.encode()).hexdigest()[:8]}" if flags else "xla"
    jax.config.update("jax_compilation_cache_dir", str(root / name))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
