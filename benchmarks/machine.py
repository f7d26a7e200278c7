"""The machine that figures hold for, and what a process takes of it, as the kernel counts."""

from __future__ import annotations

import os
import platform
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def machine(threads: int | None = None) -> str:
    """Name processor, cores, threads if given, and torch."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    used = "" if threads is None else f", {threads} threads"
    cpu = names[0] if names else platform.processor()
    return f"{cpu}, {os.cpu_count()} cores{used}, torch {torch.__version__}"


def cpu_seconds(pid: int) -> float:
    """Return CPU seconds of a process until now; a clock would depend on the machine's load."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def own_peak_bytes() -> int:
    """Return the peak of resident memory of this process; getrusage counts its parent's, too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
