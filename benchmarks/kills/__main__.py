"""Kill an inference job at random moments and compare its map with that of an undisturbed run.

Run from the repository root:
    python -m benchmarks.kills [--kills 20] [--joining 12] [--seed 0] [--out FOLDER]

Three Ray nodes on this machine; a stand-in network, so that restarting is what is tried. By turns
an actor, a node (its raylet) and the driver get SIGKILL, each after a random number of further
blocks; then, while the regions of the map are joined on Ray, the worker of a region takes the place
of the actor. After a driver's end the same command is given again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from benchmarks.kills.watch import Nodes, cluster, differences, draw_tiles, in_process

Kind = Literal["actor", "worker", "raylet", "driver"]
KINDS: tuple[Kind, ...] = ("actor", "raylet", "driver")
JOINING_KINDS: tuple[Kind, ...] = ("worker", "raylet", "driver")

KILLS_PER_SIDE = 3**0.5
"""Kills of a street of `watch.SIDE`: more need more blocks, or the job ends before them."""

WINDOW_S = 0.05
"""The stand-in network takes so long for a window: enough for a job to be met at work."""

REGION_BLOCKS = 3
"""Blocks on the side of a region, so that there are many."""

REGION_S = 0.5
"""A region takes at least so long before and after its work, to be met in it."""

REGIONS_LOG = "regions.log"
"""In the campaign's folder: the process of each begin of a region; without it there are none."""

HOLD = "hold"
"""In the campaign's folder: no network answers while it is there. A node takes long to replace on a
busy machine, and the job would end without it."""

PATIENCE_S = 300.0
"""A job that finishes no block for so long does not recover."""


@dataclass(frozen=True)
class Outcome:
    """What a campaign found.

    Attributes:
        kills: what was killed, in order.
        moments: blocks that were finished at each kill; while joining, regions that were begun.
        blocks: of the job.
        lines: of the manifest; one per block, if none is missing or double.
        recomputed: blocks whose part was finished at a kill and written again later.
        differences: layers that differ from those of the undisturbed run.
        seconds: from the first start to the last end.
    """

    kills: tuple[Kind, ...]
    moments: tuple[int, ...]
    blocks: int
    lines: tuple[str, ...]
    recomputed: tuple[str, ...]
    differences: tuple[str, ...]
    seconds: float

    @property
    def is_equal(self) -> bool:
        """Whether the kills left no trace."""
        once = len(self.lines) == len(set(self.lines)) == self.blocks
        return once and not self.recomputed and not self.differences


def campaign(folder: Path, kinds: Sequence[Kind], joining: Sequence[Kind], seed: int) -> Outcome:
    """Run the job in spite of kills, and undisturbed in this process; compare both.

    Args:
        folder: for everything.
        kinds: what is killed while blocks are computed.
        joining: what is killed while their regions are joined.
        seed: of the moments.
    """
    from jobs.infer import run as infer

    most = max(len(kinds), len(joining))
    folder.mkdir(parents=True, exist_ok=True)
    if joining:
        (folder / REGIONS_LOG).touch()
    draw_tiles(folder / "tiles", math.ceil(most**0.5 / KILLS_PER_SIDE - 1e-9))
    reference, out = folder / "reference.gpkg", folder / "killed.gpkg"
    start, chance = time.monotonic(), random.Random(seed)
    with cluster() as nodes:
        job = Job(folder, out, nodes.address)
        try:
            for kind in kinds:
                job.wait_for_blocks(chance.randint(1, 3))
                job.snapshots.append(job.parts())
                kill(kind, job, nodes)
            begun = []
            for kind in joining:
                job.wait_for_regions(chance.randint(1, 3))
                begun.append(len(job.regions()))
                kill(kind, job, nodes)
            job.finish()
        finally:
            job.end()
        parts = job.parts()
        again = {n for before in job.snapshots for n, at in before.items() if parts.get(n) != at}
    seconds = time.monotonic() - start
    with mock.patch.object(infer, "compute", in_process):
        infer.run_inference(job_of(folder / "tiles", reference), stand_in(0.0), local=True)
    _, *lines = (out.with_suffix(".work") / "job.jsonl").read_text().splitlines()
    names = tuple(json.loads(line)["block_id"] for line in lines)
    differing = tuple(differences(reference, out))
    blocks = len(list((reference.with_suffix(".work") / "parts").glob("*.parquet")))
    moments = (*map(len, job.snapshots), *begun)
    return Outcome(
        (*kinds, *joining), moments, blocks, names, tuple(sorted(again)), differing, seconds
    )


class Job:
    """The driver, in a process of its own, started again when it was killed."""

    def __init__(self, folder: Path, out: Path, address: str) -> None:
        self.folder = folder
        self.work = out.with_suffix(".work")
        self.command = [sys.executable, "-m", "benchmarks.kills", "--driver", str(folder), str(out)]
        path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        self.environment = os.environ | {"RAY_ADDRESS": address, "PYTHONPATH": path}
        self.snapshots: list[dict[str, tuple[int, int]]] = []
        self.start()

    def start(self) -> None:
        """Start the driver."""
        with (self.folder / "driver.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=log
            )

    def parts(self) -> dict[str, tuple[int, int]]:
        """Find finished blocks, each with what changes if it is written again."""
        found = {}
        for path in (self.work / "parts").glob("[!.]*.parquet"):  # a killed actor leaves .*.tmp
            state = path.stat()
            found[path.stem] = state.st_ino, state.st_mtime_ns
        return found

    def wait_for_blocks(self, count: int) -> None:
        """Wait until so many further blocks are finished, or the job is."""
        goal = len(self.parts()) + count
        wait_until(lambda: len(self.parts()) >= goal or self.process.poll() is not None)
        assert self.process.poll() in (None, 0), self.log()

    def actors(self) -> list[int]:
        """List processes that hold the network and are alive."""
        folder = self.folder / "actors"
        pids = [int(path.name) for path in folder.iterdir()] if folder.is_dir() else []
        return [pid for pid in pids if is_worker(pid)]

    def regions(self) -> list[int]:
        """List the process of each begin of a region."""
        log = self.folder / REGIONS_LOG
        return [int(line) for line in log.read_text().split()] if log.exists() else []

    def wait_for_regions(self, count: int) -> None:
        """Wait until so many further regions are begun."""
        goal = len(self.regions()) + count
        wait_until(lambda: len(self.regions()) >= goal or self.process.poll() is not None)
        assert self.process.poll() is None, f"the job ended before all kills: {self.log()}"

    def finish(self) -> None:
        """Wait for the end, as long as blocks are finished or joined."""
        code = self.process.wait(PATIENCE_S * 2)
        assert code == 0, self.log()

    def end(self) -> None:
        """Leave no process behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        """Return the last that the driver said."""
        return (self.folder / "driver.log").read_text(errors="replace")[-3000:]


def kill(kind: Kind, job: Job, nodes: Nodes) -> None:
    """Send SIGKILL to one process, and restore what the job cannot."""
    if kind == "driver":
        job.process.kill()
        job.process.wait()
        job.start()
    elif kind == "actor":
        wait_until(lambda: job.actors() or job.process.poll() is not None)  # perhaps just starting
        assert job.actors(), f"the job ended before all kills: {job.log()}"
        os.kill(job.actors()[-1], signal.SIGKILL)
    elif kind == "worker":
        wait_until(lambda: is_worker(job.regions()[-1]) or job.process.poll() is not None)
        assert job.process.poll() is None, f"the job ended before all kills: {job.log()}"
        os.kill(job.regions()[-1], signal.SIGKILL)
    else:
        (job.folder / HOLD).touch()
        nodes.replace_one()
        (job.folder / HOLD).unlink()


def is_worker(pid: int) -> bool:
    """Return whether a process that worked for Ray still does: numbers are given again."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
    except OSError:
        return False


def drive(folder: Path, out: Path) -> None:
    """Run the job, in the driver's process."""
    from jobs.infer import spread
    from jobs.infer.run import run_inference

    if (folder / REGIONS_LOG).exists():
        spread.SPREAD_FROM, spread.REGION_BLOCKS = 2, REGION_BLOCKS
        spread._run = slowly(spread._run, folder / REGIONS_LOG)
    run_inference(job_of(folder / "tiles", out), stand_in(WINDOW_S, folder))


def slowly(run: Callable[[Any, Any], str], log: Path) -> Callable[[Any, Any], str]:
    """Make a form of the work of a region that takes time, and says in which process it begins."""

    def slow_run(setup: Any, region: Any) -> str:
        with log.open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        time.sleep(REGION_S)
        error = run(setup, region)
        time.sleep(REGION_S)
        return error

    return slow_run


def job_of(tiles: Path, out: Path) -> Any:
    """Make a job of small blocks, so that there are many moments."""
    from jobs.infer.job import InferJob

    values = {"tiles": str(tiles), "model": "none", "out": out, "actors": 2, "min_area_m2": 0}
    lattice = {"window": 96, "overlap": 32, "blend": 16}
    return InferJob.model_validate(values | {"lattice": lattice, "block_strides": 1})


def stand_in(seconds: float, folder: Path | None = None) -> Callable[[], Any]:
    """Make a deterministic network that finds dark pixels.

    Args:
        seconds: it takes for a window.
        folder: of the campaign: it says there in which process it lives, and waits for `HOLD`.
    """

    def factory() -> Any:
        if folder is not None:
            (folder / "actors").mkdir(exist_ok=True)
            (folder / "actors" / str(os.getpid())).touch()

        def predict(windows: NDArray[np.uint8]) -> NDArray[np.float32]:
            time.sleep(seconds * len(windows))
            while folder is not None and (folder / HOLD).exists():
                time.sleep(0.02)
            return np.where(windows.mean(-1) < 80, 0.9, 0.1).astype(np.float32)

        return predict

    return factory


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: It does not come true.
    """
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"the job finished no block for {PATIENCE_S:.0f} s")
        time.sleep(0.02)


def main() -> None:
    """Run a campaign and say how it ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--joining", type=int, default=12, help="kills while regions are joined")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="new folder; default: a temporary one")
    parser.add_argument("--driver", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.driver:
        drive(*options.driver)
        return
    kinds, joining = (
        list(itertools.islice(itertools.cycle(some), count))
        for some, count in ((KINDS, options.kills), (JOINING_KINDS, options.joining))
    )
    for some in (kinds, joining):
        random.Random(options.seed).shuffle(some)
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary) / "kill"
        outcome = campaign(out, kinds, joining, options.seed)
    what = " ".join(f"{k}@{m}" for k, m in zip(outcome.kills, outcome.moments, strict=True))
    print(f"{len(outcome.kills)} kills in {outcome.seconds:.0f} s: {what}")
    print(f"{outcome.blocks} blocks, {len(outcome.lines)} lines, recomputed {outcome.recomputed}")
    print("equal" if outcome.is_equal else f"DIFFERENT: {outcome.differences}")
    sys.exit(not outcome.is_equal)


if __name__ == "__main__":
    main()
