"""Measure networks, linking and chains for many branches: CPU seconds and peak memory.

Run from the repository root:
    python -m benchmarks.linking [--branches 10000 100000 1000000] [--seed 0]

The branches are those of a drawn city whose mask has the errors of a detector (mask_errors.py),
repeated side by side until there are enough. Each size runs in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.whole_cracks import Canvas
from geo.cracks.branches import UM, BranchSet
from geo.cracks.chains import chain
from geo.cracks.collect import BranchCollector
from geo.cracks.linking import link
from geo.cracks.networks import find_networks
from geo.cracks.piece_table import to_table
from geo.cracks.pieces import pieces
from geo.options import LinkOptions, NetworkOptions

MILLION_S, MILLION_MB = 60.0, 1000.0
"""Most CPU time and memory for a million branches."""

APART_M = 60.0
"""Distance of the copies of the city."""


def main() -> None:
    """Print a line per size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--branches", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        city = Path(folder) / "city.npz"
        write_city(options.seed, city)
        context = multiprocessing.get_context("spawn")
        for count in options.branches:
            process = context.Process(target=measure, args=(city, count))
            process.start()
            process.join()
    print(f"target for 1000000: at most {MILLION_S:.0f} s CPU, {MILLION_MB:.0f} MB")


def write_city(seed: int, path: Path) -> None:
    """Write the branches of one city, in meters."""
    canvas = Canvas.drawn(seed)
    grid, mask = canvas.grid, canvas.mask_of("spoiled", seed)
    collector = BranchCollector(grid)
    collector.add(to_table(pieces(mask, mask * np.uint8(200), grid.window, grid)))
    lines = collector.branches().lines
    points = (lines.vertices - lines.vertices.min(axis=0)) / UM
    np.savez(path, points=points, counts=np.diff(lines.starts), nodes=lines.nodes)


def copies(path: Path, count: int) -> BranchSet:
    """At least ``count`` branches: copies of a city side by side."""
    with np.load(path) as city:
        points, counts, nodes = city["points"], city["counts"], city["nodes"]
    n_copies = -(-count // len(counts))
    side = int(np.ceil(np.sqrt(n_copies)))
    number = np.arange(n_copies)
    corner = np.column_stack((number % side, number // side)) * APART_M
    vertices = (
        np.rint(points * UM).astype(np.int64) + np.rint(corner * UM).astype(np.int64)[:, None]
    )
    shifts = number[:, None, None] * (nodes.max() + 1)
    starts = np.append(0, np.cumsum(np.tile(counts, n_copies)))
    return BranchSet(vertices.reshape(-1, 2), starts, (nodes + shifts).reshape(-1, 2))


def measure(path: Path, count: int) -> None:
    """Print what one size takes."""
    branches = copies(path, count)
    before = peak_mb()
    times = [time.process_time()]
    networks = find_networks(branches, NetworkOptions())
    times.append(time.process_time())
    outside: npt.NDArray[np.int64] = np.flatnonzero(networks.of_branch < 0)
    total, branches = len(branches), branches.take(outside)
    links = link(branches, LinkOptions())
    times.append(time.process_time())
    chains = chain(branches, links)
    times.append(time.process_time())
    spent = np.diff(times)
    print(
        f"{total:8d} branches  networks {spent[0]:6.2f} s, linking {spent[1]:5.2f} s, "
        f"chains {spent[2]:5.2f} s, together {spent.sum():6.2f} s CPU, peak {peak_mb():4.0f} MB "
        f"(of that {before:.0f} MB the input)  {len(networks)} networks, {len(chains)} cracks",
        flush=True,
    )


def peak_mb() -> float:
    """Peak of the process's memory; getrusage would count that of the parent, too."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
