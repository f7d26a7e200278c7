"""One inference job in a process of its own, watched: for benchmarks/infer_scale.py."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WATCH_S = 0.25
"""Memory and CPU time of all processes are noted so often."""

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """What a job took.

    Attributes:
        blocks: of the job.
        mpx: pixels with imagery, in millions.
        planned_s: from the start to the plan: reading headers, cutting blocks.
        work_s: from the beginning of the first block to the end of the last one.
        between_s: from the end of the first block to that of the last one.
        between_mpx: pixels of the blocks that ended in that time.
        deliver_s: from the end of the last block to the finished GeoPackage.
        work_cpu_s: CPU time of all processes from the beginning of the first block on.
        deliver_cpu_s: of the driver, for joining, writing and drawing.
        driver_mb: peak resident memory of the driver.
        actor_mb: of the largest actor, without memory shared with others.
        store_mb: most of the object store that was in use.
    """

    blocks: int
    mpx: float
    planned_s: float
    work_s: float
    between_s: float
    between_mpx: float
    deliver_s: float
    work_cpu_s: float
    deliver_cpu_s: float
    driver_mb: float
    actor_mb: float
    store_mb: float


def run_job(folder: Path, values: dict[str, Any], model: Path | None, threads: int) -> Measured:
    """Run a job in a fresh process; without a model a stand-in network takes its place."""
    order = {"folder": str(folder), "values": values, "model": str(model or ""), "threads": threads}
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(order)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def predictor_of(model: Path | None, threads: int) -> Callable[[], Any]:
    """Makes the network: the engine does its work, the drawing decides what is a crack.

    So the load on vectorizing is known, and the same with any weights.
    """
    here = str(Path(__file__).parent)

    def factory() -> Any:
        if here not in sys.path:
            sys.path.insert(0, here)
        from scale_draw import darkness

        if model is None:
            return darkness
        from jobs.infer_model import load_model

        engine = load_model(model, threads)

        def predict(windows: NDArray[np.uint8]) -> NDArray[np.float32]:
            engine(windows)
            return darkness(windows)

        return predict

    return factory


def _drive(order: dict[str, Any]) -> Measured:
    """Inside the process."""
    from jobs import infer
    from jobs.infer_job import InferJob
    from jobs.infer_manifest import read_manifest

    job = InferJob.model_validate({"model": "none", **order["values"]})
    model = Path(order["model"]) if order["model"] else None
    marks: dict[str, float] = {}
    _mark(infer, "make_plan", marks)
    _mark(infer, "assemble_map", marks)
    _mark(infer, "draw_map", marks)
    started, watch = time.time(), _Watch()
    with watch:
        infer.run_inference(job, predictor_of(model, order["threads"]), local=True)
    lines = sorted(read_manifest(job.work_folder).values(), key=lambda line: line.at)
    first, last = min(line.at - line.result.seconds for line in lines), lines[-1].at
    delivered = marks["assemble_map_cpu"] + marks["draw_map_cpu"]
    return Measured(
        blocks=len(lines),
        mpx=sum(line.result.valid_px for line in lines) / 1e6,
        planned_s=marks["make_plan"] - started,
        work_s=last - first,
        between_s=last - lines[0].at,
        between_mpx=sum(line.result.valid_px for line in lines[1:]) / 1e6,
        deliver_s=marks["assemble_map"] - last,
        work_cpu_s=watch.cpu_since(first) - delivered,
        deliver_cpu_s=delivered,
        driver_mb=watch.driver_mb,
        actor_mb=watch.actor_mb,
        store_mb=watch.store_mb,
    )


def _mark(module: Any, name: str, marks: dict[str, float]) -> None:
    """Notes when a function of a module ended, and its CPU time."""
    original = getattr(module, name)

    @functools.wraps(original)
    def marked(*args: Any, **kwargs: Any) -> Any:
        cpu = time.process_time()
        result = original(*args, **kwargs)
        marks[name], marks[f"{name}_cpu"] = time.time(), time.process_time() - cpu
        return result

    setattr(module, name, marked)


@dataclass
class _Watch:
    """Notes memory and CPU time of this process and of all that descend from it."""

    driver_mb: float = 0.0
    actor_mb: float = 0.0
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
                    cpu[pid] = _cpu_s(pid)
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


def _family(root: int) -> list[int]:
    """A process and its descendants."""
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


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _own_mb(pid: int) -> float:
    """Resident memory without what is shared, like the object store."""
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


if __name__ == "__main__":
    print(json.dumps(asdict(_drive(json.loads(sys.argv[1])))))
