"""Measure the way from a crack mask to the finished GeoPackage, against the plain recipe.

Run from the repository root:
    python -m benchmarks.vectors [--side 4096] [--crumbs 120000] [--patience 300] [--million]

The plain recipe is `rasterio.features.shapes` over the whole raster, `unary_union` and `to_file`:
polygons without centerlines, measures, ids, styles or checks. Each figure comes from a process of
its own: CPU seconds of the work alone, and the peak memory of the process (libraries and mask
included). A recipe that has not ended after --patience seconds of CPU is stopped.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import geopandas
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import rasterize, shapes

from benchmarks.machine import cpu_seconds, own_peak_bytes
from geo.cracks.collect import BranchCollector
from geo.cracks.light import Picture
from geo.cracks.parts import InspectedRow, write_part
from geo.cracks.piece_table import to_table
from geo.cracks.pieces import pieces
from geo.grid import Grid, Window
from geo.imagery.mosaic import Block
from geo.layers.assemble import assemble
from geo.layers.whole_map import find_cracks
from geo.options import MapRules

Mask = NDArray[np.bool_]

BLOCK_PX = 2048
GSD_M = 0.005
PARTS = 100

SECONDS_PER_MPX = 0.03
"""Most CPU time from a mask with 1 % of cracks to branches with their widths, and linking."""

TIMES_THE_RECIPE = {"street": 1.0, "crumbs": 10.0}
"""How often our vectors fit into the time of the plain recipe, at least."""

ASSEMBLY_S, ASSEMBLY_MB, ASSEMBLED = 6.0, 1000.0, 100_000
"""Most CPU time and memory for a GeoPackage of that many cracks."""

MILLION, MILLION_S = 1_000_000, 60.0
"""Most CPU time for so many."""


@dataclass(frozen=True)
class Cost:
    """What a piece of work took; seconds is None if it was stopped."""

    seconds: float | None
    peak_mb: float
    result: int

    def __str__(self) -> str:
        """Return CPU and memory, aligned."""
        if self.seconds is None:
            return "stopped"
        return f"{self.seconds:8.2f} s CPU {self.peak_mb:7.0f} MB {self.result:8d} features"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=4096, help="of the mask, pixels")
    parser.add_argument("--crumbs", type=int, default=120_000, help="pieces of the second mask")
    parser.add_argument("--patience", type=float, default=300, help="CPU seconds per figure")
    parser.add_argument("--million", action="store_true", help="assemble 1e6 cracks, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        against_the_recipe(partial(street, options.side), folder, options.patience)
        against_the_recipe(partial(crumbs, options.crumbs), folder, options.patience)
        assemble_growing(
            folder, options.patience, [10_000, ASSEMBLED, MILLION][: 2 + options.million]
        )


def against_the_recipe(draw: Callable[[], Mask], folder: Path, patience: float) -> None:
    """Measure both ways from one mask to a file."""
    mask = draw()
    megapixels, title = mask.size / 1e6, draw.func.__name__  # type: ignore[attr-defined]
    print(f"{title}: {megapixels:.1f} Mpx, {100 * mask.mean():.2f} % cracks")
    vectors = cost(partial(vectorize, draw), patience)
    ours = cost(partial(whole_chain, draw, folder), patience)
    plain = cost(partial(plain_recipe, draw, folder), patience)
    print(f"  outlines, widths, whole cracks  {vectors}")
    if vectors.seconds is not None and title == "street":
        print_figure("s CPU per Mpx", SECONDS_PER_MPX, vectors.seconds / megapixels, at_most=True)
    print(f"  the same into the GeoPackage    {ours}")
    print(f"  plain recipe                    {plain}")
    if ours.seconds is not None and vectors.seconds is not None:
        least, sign = (patience, ">") if plain.seconds is None else (plain.seconds, "")
        print(f"    recipe / ours, GeoPackage {sign}{least / ours.seconds:.1f}")
        wanted = TIMES_THE_RECIPE[title]
        print_figure(
            f"recipe / ours, vectors{sign and ', at least'}", wanted, least / vectors.seconds
        )


def assemble_growing(folder: Path, patience: float, sizes: list[int]) -> None:
    """Assemble stored parts into a GeoPackage, for growing numbers of cracks."""
    print(f"assembling cracks from {PARTS} parts")
    seconds: dict[int, float] = {}
    for size in sizes:
        parts = folder / f"parts_{size}"
        grid = write_parts(parts, size)
        spent = cost(partial(assemble_parts, parts, grid, folder / f"{size}.gpkg"), patience)
        each = "" if spent.seconds is None else f"{1e6 * spent.seconds / size:6.1f} us each"
        print(f"  {size:8d} cracks {spent} {each}")
        if spent.seconds is not None:
            seconds[size] = spent.seconds
        if size == ASSEMBLED and spent.seconds is not None:
            print_figure("s CPU", ASSEMBLY_S, spent.seconds, at_most=True)
            print_figure("MB", ASSEMBLY_MB, spent.peak_mb, at_most=True)
    if len(seconds) > 1:
        how = "measured" if MILLION in seconds else f"extended from {list(seconds)}"
        whole = seconds.get(MILLION) or extended(seconds)
        print_figure(f"s CPU for {MILLION} cracks, {how}", MILLION_S, whole, at_most=True)


def extended(seconds: dict[int, float]) -> float:
    """Time for a million cracks from the two largest sizes: what is alike for all, and for each.

    >>> extended({10_000: 2.0, 110_000: 7.0})
    51.5
    """
    few, many = sorted(seconds)[-2:]
    each = (seconds[many] - seconds[few]) / (many - few)
    return seconds[many] + (MILLION - many) * each


def print_figure(what: str, target: float, value: float, *, at_most: bool = False) -> None:
    """Print a figure beside its target, and by how much it is better (ratio above 1)."""
    ratio = target / value if at_most else value / target
    bound = "at most" if at_most else "at least"
    print(f"    {what}: target {bound} {target:g}, reached {value:.3g}, ratio {ratio:.2f}")


def vectorize(draw: Callable[[], Mask]) -> Callable[[], int]:
    """Prepare our vectors of the whole mask."""
    mask = draw()
    probability, grid, window = mask * np.uint8(200), grid_of(mask), Window(0, 0, *mask.shape)
    light = light_of(mask, window)

    def work() -> int:
        collector = BranchCollector(grid)
        collector.add(to_table(pieces(mask, probability, window, grid, ring_of(window), light)))
        return len(find_cracks(collector.branches(), grid, MapRules()).chains)

    return work


def whole_chain(draw: Callable[[], Mask], folder: Path) -> Callable[[], int]:
    """Prepare our blocks, parts and GeoPackage."""
    mask = draw()
    probability = mask * np.uint8(200)  # comes with the mask from the network
    light = light_of(mask, Window(0, 0, *mask.shape))

    def work() -> int:
        grid, parts = grid_of(mask), folder / f"chain_{mask.shape[0]}"
        parts.mkdir(exist_ok=True)
        paths = []
        for window in lattice(grid):
            here = window.slices_in(grid.window)
            found = pieces(mask[here], probability[here], window, grid, ring_of(window), light)
            paths.append(parts / f"{window.row_off}_{window.col_off}.parquet")
            write_part(paths[-1], found, inspected_row(window, grid))
        return assemble(paths, parts / "out.gpkg", grid).n_cracks

    return work


def plain_recipe(draw: Callable[[], Mask], folder: Path) -> Callable[[], int]:
    """Prepare what is usually done."""
    mask = draw()

    def work() -> int:
        image, grid = mask.astype(np.uint8), grid_of(mask)
        traced = shapes(image, mask=mask, transform=grid.transform)
        union = shapely.unary_union([shapely.geometry.shape(outline) for outline, _ in traced])
        frame = geopandas.GeoDataFrame(geometry=list(union.geoms), crs=grid.crs.to_wkt())
        frame.to_file(folder / f"plain_{mask.shape[0]}.gpkg", driver="GPKG")
        return len(frame)

    return work


def assemble_parts(parts: Path, grid: Grid, out: Path) -> Callable[[], int]:
    """Prepare the finished GeoPackage: indexed, styled, checked."""
    return lambda: assemble(parts.glob("*.parquet"), out, grid).n_cracks


def write_parts(folder: Path, n_cracks: int) -> Grid:
    """Write parts of one block each in a row, filled with copies of some hundred drawn cracks."""
    folder.mkdir()
    each = n_cracks // PARTS
    mask = hatching(each)
    height, width = mask.shape
    grid = grid_of(np.broadcast_to(mask[:1, :1], (height, PARTS * width)))
    for number in range(PARTS):
        window = Window(0, number * width, height, width)
        light = light_of(mask, window)
        found = pieces(mask, mask * np.uint8(200), window, grid, ring_of(window), light)
        write_part(folder / f"{number:03d}.parquet", found, inspected_row(window, grid))
    return grid


def light_of(mask: Mask, window: Window) -> Picture:
    """Draw gray pavement with dark cracks."""
    noise = np.random.default_rng(0).integers(140, 170, mask.shape, np.uint8)
    return Picture.of_bands(np.where(mask, np.uint8(60), noise), np.ones_like(mask), window)


def ring_of(window: Window) -> Mask:
    """Return where there is imagery, in a block and one pixel around it: everywhere."""
    return np.ones((window.height + 2, window.width + 2), bool)


def grid_of(mask: Mask) -> Grid:
    """Lay a mask on a grid of 5 mm in UTM."""
    place = Affine(GSD_M, 0, 5e5, 0, -GSD_M, 5.8e6)
    return Grid(place, CRS.from_epsg(25832), (mask.shape[0], mask.shape[1]))


def lattice(grid: Grid) -> Iterator[Window]:
    """Yield the blocks of the grid."""
    for row in range(0, grid.shape[0], BLOCK_PX):
        for col in range(0, grid.shape[1], BLOCK_PX):
            window = Window(row, col, BLOCK_PX, BLOCK_PX).intersection(grid.window)
            assert window is not None, "the block starts inside"
            yield window


def inspected_row(window: Window, grid: Grid) -> InspectedRow:
    """Return the row of a block that was wholly seen."""
    block = Block(f"r{window.row_off}_c{window.col_off}", window)
    valid = np.ones((window.height, window.width), bool)
    return InspectedRow.of(block, valid, (), grid, seconds=0.0)


def cost(prepare: Callable[[], Callable[[], int]], patience: float) -> Cost:
    """Run work in a process of its own; what ``prepare`` does before is not timed."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_timed, args=(prepare, there))
    process.start()
    assert process.pid is not None
    there.close()
    try:
        while not here.poll(0.5):
            if cpu_seconds(process.pid) > patience:
                return Cost(None, 0.0, 0)
        measured: Cost = here.recv()
        return measured
    finally:
        process.terminate()
        process.join()


def _timed(prepare: Callable[[], Callable[[], int]], answer: Connection) -> None:
    work = prepare()
    warm_up()
    started = time.process_time()
    result = work()
    seconds = time.process_time() - started
    answer.send(Cost(seconds, own_peak_bytes() / 2**20, result))


def warm_up() -> None:
    """Load what the libraries load late, so that no figure holds it."""
    with tempfile.TemporaryDirectory() as folder:
        for way in (whole_chain, plain_recipe):
            way(partial(crumbs, 9), Path(folder))()


# -- drawn crack masks -------------------------------------------------------------------------


def hatching(count: int) -> Mask:
    """Draw cracks of about 40 x 3 pixels, each in a cell of 48 pixels of its own."""
    rng = np.random.default_rng(0)
    columns = int(np.ceil(np.sqrt(count)))
    index = np.arange(count)
    center = np.column_stack((index % columns, index // columns)) * 48.0 + 24
    angle = rng.uniform(0, np.pi, count)
    reach = 18 * np.column_stack((np.cos(angle), np.sin(angle)))
    bend = rng.uniform(-3, 3, (count, 2))
    lines = shapely.linestrings(np.stack((center - reach, center + bend, center + reach), axis=1))
    outlines = shapely.buffer(lines, 1.5, quad_segs=2)
    rows = -(-count // columns)
    mask: Mask = rasterize(outlines, out_shape=(48 * rows, 48 * columns)).astype(bool)
    return mask


def street(side: int) -> Mask:
    """Draw winding cracks 2 to 6 pixels wide on one percent of the pixels."""
    rng = np.random.default_rng(1)
    lines = []
    length = 0.01 * side * side / 4 / 800
    for _ in range(round(length)):
        turns = np.cumsum(rng.normal(0, 0.25, 80)) + rng.uniform(0, 2 * np.pi)
        path = np.cumsum(10 * np.column_stack((np.cos(turns), np.sin(turns))), axis=0)
        start = rng.uniform(0, side, 2)
        lines.append(shapely.LineString(start + path).buffer(rng.uniform(1, 3), quad_segs=2))
    mask: Mask = rasterize(lines, out_shape=(side, side)).astype(bool)
    return mask


def crumbs(count: int) -> Mask:
    """Draw specks of 4 to 16 pixels, each in a cell of 8 pixels of its own."""
    rng = np.random.default_rng(2)
    columns = int(np.ceil(np.sqrt(count)))
    cells = np.zeros((columns, columns, 8, 8), bool)
    heights, widths = rng.integers(1, 7, (2, columns, columns))
    rows, cols = np.arange(8)[:, None], np.arange(8)
    box = (rows >= 1) & (rows <= heights[..., None, None])
    cells |= box & (cols >= 1) & (cols <= np.minimum(widths, 3)[..., None, None])
    cells.reshape(-1, 8, 8)[count:] = False
    return np.ascontiguousarray(cells.transpose(0, 2, 1, 3)).reshape(8 * columns, 8 * columns)


if __name__ == "__main__":
    main()
