"""One inference job in a process of its own, watched: for benchmarks/inference/scale.py."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.inference.scale_draw import darkness
from benchmarks.inference.scale_watch import Watch
from benchmarks.machine import own_peak_bytes


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


def run_job(values: dict[str, Any], model: Path | None, threads: int) -> Measured:
    """Run a job in a fresh process; without a model a stand-in network takes its place."""
    order = {"values": values, "model": str(model or ""), "threads": threads}
    return Measured(**run_alone("drive", order))


def run_alone(what: str, order: dict[str, Any]) -> dict[str, Any]:
    """Run a function of this file in a process that has imported nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.inference.scale_job", what, json.dumps(order)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def predictor_of(model: Path | None, threads: int) -> Callable[[], Any]:
    """Make the network: the engine does its work, the drawing decides what is a crack.

    So the load on vectorizing is known, and the same with any weights.
    """

    def factory() -> Any:
        if model is None:
            return darkness
        from jobs.infer.inputs import load_model, model_files

        engine = load_model(model_files(model), threads)

        def predict(windows: NDArray[np.uint8]) -> NDArray[np.float32]:
            engine(windows)
            return darkness(windows)

        return predict

    return factory


def plan(order: dict[str, Any]) -> dict[str, float]:
    """List and plan a job."""
    from jobs.infer.inputs import open_mosaic
    from jobs.infer.job import InferJob
    from jobs.infer.plan import make_plan

    begin, watch = time.monotonic(), Watch()
    job = InferJob.model_validate({"model": "none", **order["values"]})
    with watch:
        made = make_plan(job, open_mosaic(job, None, lambda text: None))
    seconds = time.monotonic() - begin
    return {
        "tiles": len(made.mosaic.tiles),
        "blocks": len(made.blocks),
        "seconds": seconds,
        "cpu_s": watch.cpu_since(0.0),
        "peak_mb": max(own_peak_bytes() / 1e6, watch.helper_mb),
    }


def drive(order: dict[str, Any]) -> dict[str, float]:
    """Run a job under watch."""
    from jobs.infer import run as infer
    from jobs.infer.job import InferJob
    from jobs.infer.job_log import JobLog

    job = InferJob.model_validate({"model": "none", **order["values"]})
    model = Path(order["model"]) if order["model"] else None
    marks: dict[str, float] = {}
    _mark(infer, "make_plan", marks)
    _mark(infer, "assemble_map", marks)
    _mark(infer, "draw_map", marks)
    started, watch = time.time(), Watch()
    with watch:
        infer.run_inference(job, predictor_of(model, order["threads"]), local=True)
    log = JobLog.read(job.work_folder)
    assert log is not None, "the job has run"
    lines = sorted(log.lines.values(), key=lambda line: line.at)
    first, last = min(line.at - line.inspected.seconds for line in lines), lines[-1].at
    delivered = marks["assemble_map_cpu"] + marks["draw_map_cpu"]
    measured = Measured(
        blocks=len(lines),
        mpx=sum(line.inspected.valid_px for line in lines) / 1e6,
        planned_s=marks["make_plan"] - started,
        work_s=last - first,
        between_s=last - lines[0].at,
        between_mpx=sum(line.inspected.valid_px for line in lines[1:]) / 1e6,
        deliver_s=marks["assemble_map"] - last,
        work_cpu_s=watch.cpu_since(first) - delivered,
        deliver_cpu_s=delivered,
        driver_mb=watch.driver_mb,
        actor_mb=watch.actor_mb,
        store_mb=watch.store_mb,
    )
    return asdict(measured)


def _mark(module: Any, name: str, marks: dict[str, float]) -> None:
    """Note when a function of a module ends, and its CPU time."""
    original = getattr(module, name)

    @functools.wraps(original)
    def marked(*args: Any, **kwargs: Any) -> Any:
        cpu = time.process_time()
        result = original(*args, **kwargs)
        marks[name], marks[f"{name}_cpu"] = time.time(), time.process_time() - cpu
        return result

    setattr(module, name, marked)


if __name__ == "__main__":
    print(json.dumps({"plan": plan, "drive": drive}[sys.argv[1]](json.loads(sys.argv[2]))))
