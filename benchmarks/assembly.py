"""Measure how a large map is joined region by region: time per crack, workers, the driver's memory.

Run from the repository root:
    python -m benchmarks.assembly [--parts 400 2500 20000] [--cracks 9] [--region 16]

The parts are copies of one drawn block, whose cracks cross its sides into the next copy. Figures
are CPU seconds, which other work on the machine does not change; regions are done one after the
other in a process beside the driver. What several workers would take follows from them: each takes
the next region when it is done with the last, and what the driver does waits for all of them.
"""

from __future__ import annotations

import argparse
import heapq
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import shapely

from benchmarks.machine import machine, own_peak_bytes
from benchmarks.vectors import (
    Mask,
    grid_of,
    hatching,
    inspected_row,
    light_of,
    print_figure,
    ring_of,
)
from geo.cracks.parts import write_part
from geo.cracks.pieces import Piece, pieces
from geo.cracks.regions import Region, cut_into_regions
from geo.grid import Grid, Window
from geo.layers.assemble import assemble_regions
from geo.options import AssembleOptions

WANTED = 1.7
"""Times faster with two workers."""

DRIVER_MB = 2000.0

CELL_PX = 48
"""Side of the cell of a crack of `hatching`."""

Spent = dict[str, list[float]]


def main() -> None:
    """Print a line per size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=int, nargs="+", default=[400, 2500], help="squares")
    parser.add_argument("--cracks", type=int, default=9, help="of each part; a square")
    parser.add_argument("--spacing", type=int, default=180, help="pixels from crack to crack")
    parser.add_argument("--region", type=int, default=16, help="parts on its side")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8, 64])
    options = parser.parse_args()
    print(machine(1))
    for count in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            drawn = draw_block(options.cracks, options.spacing)
            grid, blocks = write_city(Path(folder) / "parts", count, drawn)
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
        f"{peak_mb:.0f} MB"
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
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context, _prepare, (work,)) as worker:
            spent.extend(worker.map(_timed, chosen))
        assert all(result(region).exists() for region in chosen), "the work leaves its last file"

    begin = time.process_time()
    options = AssembleOptions(min_area_m2=0.0002, min_length_m=0.15)
    made = assemble_regions(
        regions, folder / "out.gpkg", grid, options, folder=folder / "results", run_all=run_all
    )
    driver = time.process_time() - begin
    answer.send((steps, driver, own_peak_bytes() / 2**20, made.n_cracks))


_work: list[Callable[[Region], None]] = []
"""What the worker process does with a region."""


def _prepare(work: Callable[[Region], None]) -> None:
    _work.append(work)  # a module's function: a bound method of the list would travel with a copy


def _timed(region: Region) -> float:
    begin = time.process_time()
    _work[0](region)
    return time.process_time() - begin


def draw_block(cracks: int, spacing: int) -> Mask:
    """Draw the cracks of `hatching`, a square number of them, farther from each other.

    The first row and column lie on the sides, so that they go on in the next copy.
    """
    side = round(np.sqrt(cracks))
    cells = hatching(side**2).reshape(side, CELL_PX, side, CELL_PX)
    block = np.zeros((side, spacing, side, spacing), bool)
    block[:, :CELL_PX, :, :CELL_PX] = cells
    whole = block.reshape(side * spacing, side * spacing)
    return np.roll(whole, (-CELL_PX // 2, -CELL_PX // 2), (0, 1))


def write_city(folder: Path, count: int, block: Mask) -> tuple[Grid, list[tuple[Window, Path]]]:
    """Write a square of parts, copies of a square block; returns its grid and their windows."""
    side, size = max(1, round(np.sqrt(count))), len(block)
    grid = grid_of(np.broadcast_to(block[:1, :1], (side * size, side * size)))
    blocks = []
    inner: list[Piece] = []
    for row, col in np.ndindex(side, side):
        window = Window(row * size, col * size, size, size)
        is_inner = min(row, col) > 0 and max(row, col) < side - 1
        if is_inner and inner:
            found = [moved(piece, (row - 1) * size, (col - 1) * size) for piece in inner]
        else:
            light = light_of(block, window)
            found = pieces(block, block * np.uint8(200), window, grid, ring_of(window), light)
        if is_inner and not inner:
            inner = found
        blocks.append((window, folder / f"r{row:04d}_c{col:04d}.parquet"))
        folder.mkdir(exist_ok=True)
        write_part(blocks[-1][1], found, inspected_row(window, grid))
    return grid, blocks


def moved(piece: Piece, rows: int, cols: int) -> Piece:
    """Return the same piece in another block: finding it anew takes ten times as long."""
    way, strip = np.array((cols, rows)), piece.strip
    if strip is not None:
        here = strip.window
        there = replace(here, row_off=here.row_off + rows, col_off=here.col_off + cols)
        strip = replace(strip, window=there)
    return replace(
        piece,
        geometry=shapely.transform(piece.geometry, lambda xy: xy + way),
        top=piece.top + rows,
        left=piece.left + cols,
        seam_pixels=piece.seam_pixels + way[::-1],
        branches=piece.branches and tuple(replace(x, line=x.line + way) for x in piece.branches),
        strip=strip,
    )


if __name__ == "__main__":
    main()
