"""Measure how a large map is joined region by region: time per crack, workers, the driver's memory.

Run from the repository root:
    python -m benchmarks.assembly [--parts 100 400] [--cracks 100] [--region 5] [--workers 2]

The parts are copies of one drawn block, whose cracks cross its sides into the next copy. Figures
are CPU seconds, which other work on the machine does not change; regions are done one after the
other. What several workers would take follows from them: each takes the next region when it is
done with the last, and what the driver does waits for all of them.
"""

from __future__ import annotations

import argparse
import heapq
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from benchmarks.machine import machine, own_peak_bytes
from benchmarks.vectors import (
    grid_of,
    hatching,
    inspected_row,
    light_of,
    print_figure,
    ring_of,
)
from geo.cracks.parts import write_part
from geo.cracks.pieces import pieces
from geo.cracks.regions import Region, cut_into_regions
from geo.grid import Grid, Window
from geo.layers.assemble import assemble_regions
from geo.options import AssembleOptions

WANTED = 1.7
"""Times faster with two workers."""

DRIVER_MB = 2000.0

Spent = dict[str, list[float]]


def main() -> None:
    """Print a line per size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=int, nargs="+", default=[100, 400], help="squares")
    parser.add_argument("--cracks", type=int, default=100, help="of each part")
    parser.add_argument("--region", type=int, default=5, help="parts on its side")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8, 64])
    options = parser.parse_args()
    print(machine(1))
    for count in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            grid, blocks = write_city(Path(folder) / "parts", count, options.cracks)
            regions = cut_into_regions(blocks, grid, options.region * blocks[0][0].width)
            report(regions, grid, Path(folder), options.workers)


def report(regions: Sequence[Region], grid: Grid, folder: Path, workers: Sequence[int]) -> None:
    """Print what one map takes."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_driver, args=(regions, grid, folder, there))
    process.start()
    steps, driver_s, peak_mb, cracks = here.recv()
    process.join()
    one = sum(map(sum, steps.values())) + driver_s
    print(
        f"{sum(len(region.parts) for region in regions)} parts, {len(regions)} regions, {cracks} "
        f"cracks: {one:.1f} s CPU, {1e3 * one / cracks:.2f} ms each; driver {driver_s:.1f} s CPU, "
        f"{peak_mb:.0f} MB with the regions in it"
    )
    for name, seconds in steps.items():
        print(f"    {name:7} {sum(seconds):7.1f} s, longest {max(seconds):.1f} s")
    for count in workers:
        many = sum(makespan(seconds, count) for seconds in steps.values())
        print(
            f"    {count} workers: regions {sum(map(sum, steps.values())) / many:.2f} times, "
            f"all {one / (many + driver_s):.2f} times one"
        )
    two = sum(makespan(seconds, 2) for seconds in steps.values())
    print_figure("two workers, regions", WANTED, sum(map(sum, steps.values())) / two)
    print_figure("driver MB", DRIVER_MB, peak_mb, at_most=True)


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Return when the last task ends if each worker takes the next one when it is free."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def _driver(regions: Sequence[Region], grid: Grid, folder: Path, answer: Connection) -> None:
    steps: Spent = {}

    def run_all(
        work: Callable[[Region], None],
        chosen: Sequence[Region],
        result: Callable[[Region], Path],
    ) -> None:
        spent = steps.setdefault(getattr(work, "__name__", ""), [])
        for region in chosen:
            begin = time.process_time()
            work(region)
            assert result(region).exists(), "the work leaves its last file"
            spent.append(time.process_time() - begin)

    begin = time.process_time()
    options = AssembleOptions(min_area_m2=0.0002, min_length_m=0.15)
    made = assemble_regions(
        regions, folder / "out.gpkg", grid, options, folder=folder / "results", run_all=run_all
    )
    total = time.process_time() - begin
    driver = total - sum(map(sum, steps.values()))
    answer.send((steps, driver, own_peak_bytes() / 2**20, made.n_cracks))


def write_city(folder: Path, count: int, cracks: int) -> tuple[Grid, list[tuple[Window, Path]]]:
    """Write a square of parts; returns its grid and their windows."""
    side = max(1, round(np.sqrt(count)))
    mask = np.roll(hatching(cracks), (24, 24), (0, 1))
    height, width = mask.shape
    size = max(height, width)
    block = np.zeros((size, size), bool)
    block[:height, :width] = mask
    grid = grid_of(np.broadcast_to(block[:1, :1], (side * size, side * size)))
    blocks = []
    for row, col in np.ndindex(side, side):
        window = Window(row * size, col * size, size, size)
        light = light_of(block, window)
        found = pieces(block, block * np.uint8(200), window, grid, ring_of(window), light)
        blocks.append((window, folder / f"r{row:04d}_c{col:04d}.parquet"))
        folder.mkdir(exist_ok=True)
        write_part(blocks[-1][1], found, inspected_row(window, grid))
    return grid, blocks


if __name__ == "__main__":
    main()
