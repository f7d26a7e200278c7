"""Memory and CPU time of a process and all that descend from it, watched in a thread."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.machine import cpu_seconds

WATCH_S = 0.25
"""Memory and CPU time of all processes are noted so often."""


@dataclass
class Watch:
    """Notes memory and CPU time of this process and of all that descend from it."""

    driver_mb: float = 0.0
    actor_mb: float = 0.0
    helper_mb: float = 0.0
    store_mb: float = 0.0
    _cpu: list[tuple[float, dict[int, float]]] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> None:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def cpu_since(self, moment: float) -> float:
        """CPU seconds of all processes from a moment (seconds since 1970) to their ends."""
        before = next((cpu for at, cpu in reversed(self._cpu) if at <= moment), {})
        most: dict[int, float] = {}
        for _, cpu in self._cpu:
            most |= cpu
        return sum(seconds - before.get(pid, 0.0) for pid, seconds in most.items())

    def _watch(self) -> None:
        while not self._end.wait(WATCH_S):
            cpu = {}
            for pid in _family(os.getpid()):
                try:
                    cpu[pid] = cpu_seconds(pid)
                    self._note(pid)
                except OSError:
                    continue  # it has just ended
            self._cpu.append((time.time(), cpu))
            self.store_mb = max(self.store_mb, _store_mb())

    def _note(self, pid: int) -> None:
        if pid == os.getpid():
            self.driver_mb = max(self.driver_mb, _own_mb(pid))
        elif Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
            self.actor_mb = max(self.actor_mb, _own_mb(pid))
        else:
            self.helper_mb = max(self.helper_mb, _own_mb(pid))


def _family(root: int) -> list[int]:
    """List a process and its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.name))
    family = [root]
    for pid in family:  # grows while it is walked
        family += children.get(pid, [])
    return family


def _own_mb(pid: int) -> float:
    """Return resident memory without what is shared, like the object store."""
    sizes = dict.fromkeys(("VmRSS", "RssShmem"), 0)
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in sizes:
            sizes[name] = int(value.split()[0])  # kB
    return (sizes["VmRSS"] - sizes["RssShmem"]) * 1024 / 1e6


def _store_mb() -> float:
    ray = sys.modules.get("ray")
    try:
        if ray is None or not ray.is_initialized():
            return 0.0
        whole, free = ray.cluster_resources(), ray.available_resources()
    except Exception:  # Ray is just being imported, starting or ending
        return 0.0
    name = "object_store_memory"
    return float(whole.get(name, 0) - free.get(name, whole.get(name, 0))) / 1e6
