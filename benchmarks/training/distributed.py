"""Measure data-parallel training: two workers against one, Ray against a plain loop, and memory.

Run from the repository root, on a machine that does nothing else:
    python -m benchmarks.training.distributed [--steps 6] [--quick]

Everything runs the default preset on drawn windows with one thread for each worker. A second of a
training is that of its stages in the proportion of their default steps; the first epoch of a stage
is not timed. "averaging" holds the time of the all_reduce and that of waiting for the other rank.
"without talking" are two loops of half a batch each: what two threads of the machine give at most.
The table for 8 GPUs is an estimate: bytes are measured, link speeds are published ones, and no GPU
was used.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.machine import machine
from jobs.runtime.allocator import worker_environment
from jobs.settings.load import find_config, load
from jobs.train.folder import METRICS, read_metrics
from jobs.train.job import TrainJob
from wpcrack import distributed
from wpcrack.config import StageSteps
from wpcrack.data.batches import Shard
from wpcrack.data.images import write_png
from wpcrack.data.read import read_image_level
from wpcrack.synthetic import WindowConfig, draw_training_street, draw_window
from wpcrack.training.footprint import footprint
from wpcrack.training.stages import STAGES
from wpcrack.training.trainer import Trainer

WINDOWS = (96, 128, 192, 256)
TARGET_TWO, TARGET_RAY = 1.8, 0.97
LINKS = {"NVLink 4": 450e9, "PCIe 4 x16": 32e9, "25 GbE": 3.125e9}
"""Bytes per second and direction, as published: H100 SXM (900 GB/s both ways), PCI-SIG, IEEE."""
GPUS, EFFICIENCY = 8, 0.95
TINY = (
    *("model.encoder=test_efficientnet", "model.pretrained=none", "train.batch_size=4"),
    *("model.cam_channels=8", "model.recon_channels=8", "model.detector_channels=8"),
)
"""For --quick: whether it works, not how fast."""


@dataclass
class Cost:
    """Of a training, by stage: seconds per step, and of them in averaging gradients."""

    step_s: dict[str, float] = field(default_factory=dict)
    averaging_s: dict[str, float] = field(default_factory=dict)
    averaged_bytes: dict[str, float] = field(default_factory=dict)
    peak_bytes: int = 0

    def seconds(self, of: str = "step_s") -> float:
        """Add up a whole training of default length."""
        return sum(getattr(StageSteps(), stage) * getattr(self, of)[stage] for stage in STAGES)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print tables with targets."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=6, help="of each stage that are timed")
    parser.add_argument("--quick", action="store_true", help="tiny networks, two window sizes")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ranks", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.quick:
        options.steps = 1
    if options.rank is not None:
        cost = run_rank(options)
        (options.folder / f"cost{options.rank}.json").write_text(json.dumps(asdict(cost)))
        return
    print(machine(1))
    with TemporaryDirectory() as name:
        report(options, Path(name))


def report(options: argparse.Namespace, folder: Path) -> None:
    """Measure and print one part after the other."""
    places = {}
    for side in WINDOWS[:2] if options.quick else WINDOWS:
        places[side] = folder / str(side)
        draw_folder(places[side], side)
    base = places[128]
    print("one worker, two workers, Ray, windows: a few minutes each", file=sys.stderr, flush=True)
    plain = measure(options, base, 1)
    two = measure(options, base, 2)
    apart = measure(options, base, 2, apart=True)
    ray = on_ray(options, base)
    print(f"\n{'':34}{'reached':>9}{'target':>9}")
    line("two workers / one, images/s", plain.seconds() / two.seconds(), TARGET_TWO)
    print(f"{'the same without talking':34}{plain.seconds() / apart.seconds():9.2f}")
    line("Ray, 1 worker / plain loop, steps/s", plain.seconds() / ray.seconds(), TARGET_RAY)
    share = two.seconds("averaging_s") / two.seconds()
    print(f"{'share of averaging and waiting':34}{share:9.1%}")
    print(f"\n{'stage':13}{'1, s/step':>10}{'2, s/step':>10}{'Ray 1':>10}{'MB averaged':>13}")
    for stage in STAGES:
        times = "".join(f"{cost.step_s[stage]:10.3f}" for cost in (plain, two, ray))
        print(f"{stage:13}{times}{two.averaged_bytes[stage] / 1e6:13.2f}")
    print(f"\n{'window':>6}{'peak MB':>9}" + "".join(f"{s + ', s/step':>21}" for s in STAGES))
    for side, place in places.items():
        cost = plain if side == 128 else measure(options, place, 1)
        times = "".join(f"{cost.step_s[stage]:21.3f}" for stage in STAGES)
        print(f"{side:6}{cost.peak_bytes / 1e6:9.0f}{times}", flush=True)
    extrapolate({"default": two.averaged_bytes, "paper": paper_bytes()})


def line(name: str, value: float, target: float) -> None:
    """Print one figure beside its target."""
    verdict = "reached" if value >= target else "missed"
    print(f"{name:34}{value:9.2f}{target:9.2f}  {verdict}", flush=True)


def extrapolate(presets: dict[str, dict[str, float]]) -> None:
    """Print the time of a ring all_reduce among 8 GPUs, and how long a step has to be for 95 %."""
    print(
        f"\nestimate for {GPUS} GPUs: ring all_reduce, 2 (n - 1) / n x bytes / speed of the link;"
    )
    print(f"a step that computes for longer than the last column keeps {EFFICIENCY:.0%}")
    print(f"{'preset':9}{'stage':13}{'link':12}{'MB':>8}{'ms':>9}{'compute ms':>12}")
    for preset, averaged in presets.items():
        for stage in STAGES:
            for link, speed in LINKS.items():
                seconds = 2 * (GPUS - 1) / GPUS * averaged[stage] / speed
                needed = seconds * EFFICIENCY / (1 - EFFICIENCY)
                print(
                    f"{preset:9}{stage:13}{link:12}{averaged[stage] / 1e6:8.1f}"
                    f"{1e3 * seconds:9.3f}{1e3 * needed:12.2f}"
                )


def paper_bytes() -> dict[str, float]:
    """Count gradients of the paper's networks, counted."""
    job = load(TrainJob, find_config("paper"), ["data.root=.", "run_dir=."])
    return {k: float(v) for k, v in footprint(job, (256, 256), 2).averaged.items()}


# -- measured ----------------------------------------------------------------------------------


def measure(options: argparse.Namespace, folder: Path, ranks: int, *, apart: bool = False) -> Cost:
    """Measure ranks in processes of their own, without Ray; or as many loops that share nothing."""
    (folder / "store").unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "benchmarks.training.distributed",
        "--ranks",
        str(ranks),
        "--folder",
        str(folder),
    ]
    command += ["--steps", str(options.steps), *(["--quick"] if options.quick else [])]
    command += ["--apart"] if apart else []
    started = [
        subprocess.Popen([*command, "--rank", str(rank)], env=one_thread()) for rank in range(ranks)
    ]
    codes = [process.wait() for process in started]
    if any(codes):
        raise SystemExit(f"a rank ended with exit code {max(codes, key=abs)}")
    return Cost(**json.loads((folder / "cost0.json").read_text()))


def one_thread() -> dict[str, str]:
    """Return the environment of a worker, as Ray's have it."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
    return {**os.environ, **worker_environment(), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def run_rank(options: argparse.Namespace) -> Cost:
    """Run what each rank does: a training of two epochs a stage."""
    torch.set_num_threads(1)
    talks = options.ranks > 1 and not options.apart
    if talks:
        store = f"file://{options.folder}/store"
        dist.init_process_group("gloo", store, rank=options.rank, world_size=options.ranks)
    spent = {"seconds": 0.0, "bytes": 0.0}
    average = distributed.average_gradients

    def timed(parameters: Any, counts: Any) -> Any:
        members = list(parameters)
        tick = time.perf_counter()
        summed = average(members, counts)
        spent["seconds"] += time.perf_counter() - tick
        spent["bytes"] += sum(4 * p.grad.numel() for p in members if p.grad is not None)
        return summed

    distributed.average_gradients = timed
    job = job_of(options, options.folder)
    shard, cost = Shard(options.rank, options.ranks), Cost()
    if options.apart:
        train = job.train.model_copy(update={"batch_size": job.train.batch_size // options.ranks})
        job, shard = job.model_copy(update={"train": train}), Shard()
    for epoch in Trainer(job, read_image_level(job.data.root), shard=shard).epochs():
        cost.step_s[epoch.stage] = job.train.batch_size / epoch.metrics["train/images_per_s"]
        cost.averaging_s[epoch.stage] = spent["seconds"] / options.steps
        cost.averaged_bytes[epoch.stage] = spent["bytes"] / options.steps
        spent.update(seconds=0.0, bytes=0.0)
    cost.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if talks:
        dist.destroy_process_group()
    return cost


def on_ray(options: argparse.Namespace, folder: Path) -> Cost:
    """Measure one Ray Train worker of one thread."""
    from jobs.train.run import run_training

    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 would be measured as a loss
    run_training(job_of(options, folder), local=True)
    cost = Cost()
    for epoch in read_metrics(folder / "run" / METRICS):
        batch = job_of(options, folder).train.batch_size
        cost.step_s[epoch["stage"]] = batch / epoch["train/images_per_s"]
    return cost


def job_of(options: argparse.Namespace, folder: Path) -> TrainJob:
    """Make a job of the default preset, two epochs of each stage."""
    steps = {stage: 2 * options.steps for stage in STAGES}
    settings = [f"train.steps.{stage}={number}" for stage, number in steps.items()]
    settings += [f"data.root={folder / 'set'}", f"run_dir={folder / 'run'}", "train.val_items=2"]
    settings += [f"train.epoch_steps={options.steps}", "scaling.cpus_per_worker=1"]
    return load(TrainJob, find_config("train"), [*settings, *(TINY if options.quick else ())])


def draw_folder(folder: Path, side: int, streets: int = 4, windows: int = 6) -> None:
    """Draw as many crack as road windows of each street."""
    rng, config = np.random.default_rng(0), WindowConfig(size=side)
    for street in range(streets):
        drawn = draw_training_street(rng, config)
        for has_crack, name in ((True, "crack"), (False, "road")):
            (folder / "set" / name).mkdir(parents=True, exist_ok=True)
            for k in range(windows):
                path = folder / "set" / name / f"street{street}_r{k}_c{side}.png"
                write_png(path, draw_window(rng, config, has_crack, drawn).image)


if __name__ == "__main__":
    main()
