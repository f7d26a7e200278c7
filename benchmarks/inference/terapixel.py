"""Foresee a job of a terapixel on 1, 10 and 100 nodes, and say what bounds it.

Run from the repository root:
    python -m benchmarks.inference terapixel [--nodes 1 10 100] [--mpx 1000000] [--check]

An event simulation: actors take tasks of several blocks, read each block from a storage that all
share, compute it, and hand a row to the driver, which takes them one by one. Then regions are
joined and linked in the same way, and the driver writes the map. The figures of one block, region
and row are measured ones (their commands stand beside them); those of storage are assumptions and
named so. --check runs a small job on this machine and compares: what a block takes is measured on
one actor, and two actors are foreseen.
"""

from __future__ import annotations

import argparse
import heapq
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jobs.infer.actors import MOST_TASKS


@dataclass(frozen=True)
class Figures:
    """What things take; times are seconds of one core."""

    mpx_per_s: float = 3.34
    """One actor of one thread (`benchmarks.inference.scale actors`, AMD EPYC with bf16)."""
    spread: float = 0.15
    """Of the time of a block, as standard deviation of its logarithm. An assumption."""
    block_mpx: float = 3520**2 / 1e6
    cores: int = 32
    """Of a node. An assumption, as the two bandwidths."""
    bytes_per_px: float = 1.2
    """Of compressed imagery."""
    node_bytes_s: float = 1.25e9
    storage_bytes_s: float = 5e9
    """Of the storage, for all nodes together."""
    row_s: float = 0.002
    """Of the driver for a finished block: look for its part, write its line. An assumption."""
    region_blocks: int = 256
    cracks_per_block: float = 400.0
    """31 million cracks in a terapixel: what a city of 3000 km has at 10 m of crack a meter of
    road. An assumption."""
    join_s: float = 0.0011
    """Of a region for each crack, joining and linking (`benchmarks.assembly`)."""
    write_s: float = 0.00006
    """Of the driver for each crack (`benchmarks.vectors --million`: 52 s a million)."""
    start_s: float = 20.0
    """Until the first actor works."""


@dataclass(frozen=True)
class Foreseen:
    """What a job takes, in seconds.

    Attributes:
        compute_s: from the start to the last block.
        tail_s: of that, how long an actor is idle at its end, mean.
        waited_s: of all actors, mean, for the storage.
        driver_s: the driver's work meanwhile.
        join_s: joining, linking and measuring.
        write_s: writing the map.
    """

    compute_s: float
    tail_s: float
    waited_s: float
    driver_s: float
    join_s: float
    write_s: float

    @property
    def total_s(self) -> float:
        """Of the whole job."""
        return self.compute_s + self.join_s + self.write_s

    @property
    def bound(self) -> str:
        """What would have to be quicker first."""
        shares = {
            "the model on the cores": self.compute_s - self.waited_s - self.tail_s,
            "the storage": self.waited_s,
            "idle actors at the end": self.tail_s,
            "joining": self.join_s,
            "the driver, which writes the map": self.write_s,
        }
        if self.driver_s >= 0.9 * self.compute_s:
            return "the driver, which takes rows in"
        return max(shares, key=shares.__getitem__)


def foresee(nodes: int, mpx: float, figures: Figures, *, tasks: int, seed: int = 0) -> Foreseen:
    """Simulate a job.

    Args:
        nodes: of the cluster, all cores of which hold an actor.
        mpx: of imagery.
        figures: what things take.
        tasks: at most so many; each has several blocks then.
        seed: of the spread.
    """
    blocks, actors = math.ceil(mpx / figures.block_mpx), nodes * figures.cores
    rng = np.random.default_rng(seed)
    mean = figures.block_mpx / figures.mpx_per_s
    compute = mean * rng.lognormal(-(figures.spread**2) / 2, figures.spread, blocks)
    block_bytes = 1e6 * figures.block_mpx * figures.bytes_per_px
    own_s = block_bytes / (figures.node_bytes_s / figures.cores)
    shared_s = block_bytes / figures.storage_bytes_s
    per_task = math.ceil(blocks / min(tasks, blocks))
    handed_out, waited, storage_free, driver_free = 0, 0.0, 0.0, 0.0
    left, ends = np.zeros(actors, np.int64), np.full(actors, figures.start_s)
    # a read begins while the model works on the block before it
    events = [(figures.start_s, actor) for actor in range(actors)]
    done = 0
    while events:
        now, actor = heapq.heappop(events)
        ends[actor] = now
        if not left[actor]:
            left[actor] = min(per_task, blocks - handed_out)
            handed_out += left[actor]
            if not left[actor]:
                continue
        left[actor] -= 1
        storage_free = max(storage_free, now) + shared_s
        end = now + float(compute[done])
        ready = max(end, storage_free, now + own_s)
        waited += ready - end
        driver_free = max(driver_free, now) + figures.row_s
        done += 1
        heapq.heappush(events, (ready, actor))
    compute_s = max(float(ends.max()), driver_free)
    regions = math.ceil(blocks / figures.region_blocks)
    each = blocks / regions * figures.cracks_per_block * figures.join_s
    join_s = math.ceil(regions / actors) * each
    return Foreseen(
        compute_s=compute_s,
        tail_s=compute_s - float(ends.mean()),
        waited_s=waited / actors,
        driver_s=blocks * figures.row_s,
        join_s=join_s,
        write_s=blocks * figures.cracks_per_block * figures.write_s,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what is foreseen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--mpx", type=float, default=1e6)
    parser.add_argument("--tasks", type=int, nargs="+", default=[2000, MOST_TASKS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="compare with a job on this machine")
    options = parser.parse_args(arguments)
    if options.check:
        check(options.seed)
        return
    print(f"{options.mpx:g} Mpx, {Figures().cores} cores a node, one actor each")
    for tasks in dict.fromkeys(options.tasks):
        for nodes in options.nodes:
            job = foresee(nodes, options.mpx, Figures(), tasks=tasks, seed=options.seed)
            print(
                f"{nodes:4} nodes, {tasks:6} tasks: {hours(job.total_s)} h; blocks "
                f"{hours(job.compute_s)} (idle at the end {hours(job.tail_s)}, waiting for storage "
                f"{hours(job.waited_s)}), joining {hours(job.join_s)}, writing "
                f"{hours(job.write_s)}; bound by {job.bound}"
            )


def hours(seconds: float) -> str:
    """Write seconds as hours."""
    return f"{seconds / 3600:.2f}"


def check(seed: int) -> None:
    """Measure blocks on one actor, foresee two, and run these."""
    from benchmarks.inference.scale import SMALL_TILE_PX, job_values, random_model
    from benchmarks.inference.scale_draw import draw_tiles
    from benchmarks.inference.scale_job import run_job

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_tiles(folder / "tiles", (2, 2), SMALL_TILE_PX, seed)
        values, model = job_values(folder, "tiles", quick=True), random_model(folder / "random")
        one, two = (
            run_job(values | {"actors": n, "out": str(folder / f"{n}.gpkg")}, model, 1)
            for n in (1, 2)
        )
    known = replace(
        Figures(),
        mpx_per_s=one.between_mpx / one.between_s,
        block_mpx=one.mpx / one.blocks,
        cores=2,
        start_s=0.0,
    )
    job = foresee(1, one.mpx, known, tasks=one.blocks, seed=seed)
    print(
        f"{one.mpx:.1f} Mpx in {one.blocks} blocks: one actor {one.work_s:.1f} s, two foreseen "
        f"{job.compute_s:.1f} s, two measured {two.work_s:.1f} s "
        f"({100 * (job.compute_s / two.work_s - 1):+.0f} %)"
    )
