"""glibc's allocator, told to keep the memory that a training step frees for the next step.

By default it gives blocks of 32 MiB and more back to the system at once. The system clears them
again for every step, page by page: some 40 % of the time of a step on windows of 256 pixels
(`python -m benchmarks.training.step default --side 256 --allocator`). Small blocks it keeps, which
a job that goes on to something else can have given back. Where there is no glibc, nothing is
changed.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

LIMIT = 2**31 - 1
"""Bytes; the largest that mallopt takes."""

SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": (-3, LIMIT),  # smaller blocks come from the heap
    "MALLOC_TRIM_THRESHOLD_": (-1, LIMIT),  # a heap shrinks when more than this is free at its end
    "MALLOC_ARENA_MAX": (-8, 1),  # the heaps of further threads hold no block above 64 MiB
}
"""Variable of the environment: parameter of mallopt, value (mallopt(3))."""


def worker_environment(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return variables for the processes that train; empty where the user has set any of them."""
    if any(name in given for name in SETTINGS):
        return {}
    return {name: str(value) for name, (_, value) in SETTINGS.items()}


def give_back_freed_memory() -> None:
    """Give the system back what was freed; without glibc nothing happens.

    A hundred thousand shapes that were freed leave their memory in small holes otherwise, which
    large arrays cannot use.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def keep_freed_memory(given: Mapping[str, str] = os.environ) -> bool:
    """Keep freed memory in this process and its threads from now on.

    Returns:
        Whether it was done: not where the user has set any of the variables, nor without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or not worker_environment(given):
        return False
    return all(mallopt(parameter, value) == 1 for parameter, value in SETTINGS.values())
