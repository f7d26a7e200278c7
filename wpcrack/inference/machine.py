"""What this machine and this installation offer to an engine; nothing heavy is imported early."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

PROCESSOR = Path("/proc/cpuinfo")
"""Where Linux lists what a processor can do; other systems have no such file."""

GPU_DEVICES = ("nvidia", "kfd", "dxg")
"""First letters of device files in /dev: of NVIDIA, of AMD, of Windows' Linux."""

BFLOAT16_FLAG = "avx512_bf16"
"""Of processors that multiply bfloat16 natively; those with AMX have it, too."""


def is_installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def has_device_file() -> bool:
    """Return whether a driver of a GPU that torch.cuda may use is loaded; False is certain."""
    return os.name != "posix" or any(
        name.startswith(GPU_DEVICES) for name in os.listdir("/dev") if name != "nvidiactl"
    )


@cache
def native_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 natively (AVX512-BF16 or AMX)."""
    try:
        return BFLOAT16_FLAG in PROCESSOR.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return False


def default_threads() -> int:
    """Return how many cores an engine uses if nobody says: torch's number where it is loaded.

    That one follows OMP_NUM_THREADS; otherwise it is the cores that this process may use.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def openvino() -> Any:
    """Return the module openvino, imported when it is needed (.4 s) and without its telemetry."""
    with _hide_telemetry():
        import openvino as module
    return module


@cache
def openvino_core() -> Any:
    """Return the one OpenVINO core of this process, which lives as long as the process.

    The CPU plugin of each core gives its thread a stack for signals (`sigaltstack`), and puts back
    at its end what it found at its start: with two cores that end in another order than a pile's,
    a stack that is freed. The next signal that Python handles then ends the process with a
    segmentation fault.
    """
    return openvino().Core()


@contextmanager
def _hide_telemetry() -> Iterator[None]:
    """Make openvino_telemetry look absent, so that openvino takes its own silent stand-in.

    Otherwise each import and conversion is reported to a web service and ~/intel is written to,
    unless the user has opted out.
    """
    name = "openvino_telemetry"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
