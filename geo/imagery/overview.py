"""A whole mosaic as one small picture, and that picture as a file beside the map.

It is read from the files' overviews where they have some. The file (the backdrop) lets a map be
drawn again without the tiles.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from geo.files import output_errors
from geo.grid import Grid, Window
from geo.imagery.headers import Tile, TileProblem
from geo.imagery.mosaic import Mosaic
from geo.imagery.opening import gdal_settings
from geo.imagery.placing import Placement, painting_key
from geo.imagery.reading import open_raster, read_window
from geo.imagery.tile_reader import TileReader
from geo.imagery.warp import to_source
from geo.imagery.writing import write_raster

READERS = 16
"""Tiles that are read at a time: most of the time goes into waiting for a disk or a server."""

TILES_AHEAD = 2 * READERS
"""Reduced tiles that may wait to be painted."""

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True, eq=False)
class Overview:
    """A reduced mosaic: image (H, W, 3) uint8, valid (H, W) bool, and its grid."""

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    grid: Grid


def reduce(mosaic: Mosaic, longest_px: int) -> Overview:
    """Read the whole mosaic, reduced to at most ``longest_px`` on its longer side.

    Several tiles are read at a time and painted in their order. Memory is bounded by the picture
    and TILES_AHEAD reduced tiles. A tile that cannot be read stays blank. Where tiles overlap, the
    smaller pixel wins, then the last path, as in `Mosaic.read`. North is above, whatever the
    order of the tiles' rows.
    """
    small = reduced_grid(mosaic.grid, longest_px)
    overview = Overview(np.zeros((*small.shape, 3), np.uint8), np.zeros(small.shape, bool), small)
    with ThreadPoolExecutor(READERS) as readers:
        order = _painting_order(mosaic, readers)
        for reduced in _ahead(readers, partial(_read, mosaic, small), order):
            if reduced is not None:
                _paint(overview, reduced)
    return turn_upright(overview)


def _ahead(
    readers: ThreadPoolExecutor, read: Callable[[Item], Found], items: Iterable[Item]
) -> Iterator[Found]:
    """Yield what is read of each item, in their order; a few are read ahead."""
    waiting: deque[Future[Found]] = deque()
    for item in items:
        waiting.append(readers.submit(read, item))
        if len(waiting) >= TILES_AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def reduced_grid(grid: Grid, longest_px: int) -> Grid:
    """Return the same ground in at most ``longest_px`` pixels on its longer side."""
    rows, cols = grid.shape
    factor = max(1.0, max(rows, cols) / longest_px)
    return _resize(grid, (max(1, round(rows / factor)), max(1, round(cols / factor))))


def turn_upright(overview: Overview) -> Overview:
    """Return the picture with north above and east to the right, of a grid that counts otherwise.

    Rotations by less than a right angle stay.
    """
    image, valid, grid = overview.image, overview.valid, overview.grid
    (rows, cols), transform = grid.shape, grid.transform
    if transform.e > 0:
        image, valid = image[::-1], valid[::-1]
        transform = transform * Affine(1, 0, 0, 0, -1, rows)
    if transform.a < 0:
        image, valid = image[:, ::-1], valid[:, ::-1]
        transform = transform * Affine(-1, 0, cols, 0, 1, 0)
    return Overview(image, valid, Grid(transform, grid.crs, grid.shape))


def _painting_order(mosaic: Mosaic, readers: ThreadPoolExecutor) -> list[tuple[Tile, Window]]:
    """Return the tiles and their windows, the one to be seen last, as in the mosaic itself."""
    reader = TileReader(mosaic.grid, mosaic.stretch, mosaic.reading, mosaic.begun_ns)

    def describe(placed: Placement) -> Tile | TileProblem:
        with gdal_settings(mosaic.reading):
            return reader.header(placed)

    places = list(map(Placement, mosaic.tiles, mosaic.windows))
    headers = _ahead(readers, describe, places)
    tiles = [(x, p.window) for x, p in zip(headers, places, strict=True) if isinstance(x, Tile)]
    return sorted(tiles, key=lambda item: painting_key(item[0], mosaic.grid))


@dataclass(frozen=True, eq=False)
class _Reduced:
    """A tile in the pixels of the picture: image, valid, its grid, and where it may lie."""

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    grid: Grid
    place: Window


def _read(mosaic: Mosaic, picture: Grid, item: tuple[Tile, Window]) -> _Reduced | None:
    """Read a tile in about the pixels of the picture; None if it shows nothing of it."""
    tile, window = item
    place = _reduced_place(window, mosaic.grid, picture)
    if place is None:
        return None
    small = min(tile.shape[0], place.height), min(tile.shape[1], place.width)
    with gdal_settings(mosaic.reading), suppress(OSError, RasterioError):
        raster = open_raster(tile.path, tile.driver, mosaic.reading)
        whole = Window(0, 0, *tile.shape)
        image, valid = read_window(raster, whole, small, stretch=mosaic.stretch)
        return _Reduced(image, valid, _resize(tile.grid, small), place)
    return None


def _paint(overview: Overview, tile: _Reduced) -> None:
    """Fill the pixels of the picture whose centers lie on a tile."""
    place, small = tile.place, tile.grid.shape
    row, col = np.mgrid[place.row_off : place.row_end, place.col_off : place.col_end] + 0.5
    centers = np.column_stack((col.ravel(), row.ravel()))
    with np.errstate(invalid="ignore"):  # inf beyond a projection's reach lies in no tile
        x, y = np.floor(to_source(tile.grid, overview.grid, centers)).astype(np.int64).T
    inside = (x >= 0) & (y >= 0) & (x < small[1]) & (y < small[0])
    seen = np.flatnonzero(inside)
    seen = seen[tile.valid[y[seen], x[seen]]]
    rows, cols = np.divmod(seen, place.width)
    rows, cols = rows + place.row_off, cols + place.col_off
    overview.image[rows, cols] = tile.image[y[seen], x[seen]]
    overview.valid[rows, cols] = True


def _resize(grid: Grid, shape: tuple[int, int]) -> Grid:
    """Return the same ground in another number of pixels."""
    a, b, c, d, e, f = grid.transform[:6]
    down, right = grid.shape[0] / shape[0], grid.shape[1] / shape[1]
    return Grid(Affine(a * right, b * down, c, d * right, e * down, f), grid.crs, shape)


def _reduced_place(window: Window, grid: Grid, small: Grid) -> Window | None:
    """Return the pixels of the small grid that a window of the large one may touch."""
    down, right = small.shape[0] / grid.shape[0], small.shape[1] / grid.shape[1]
    row, col = int(window.row_off * down), int(window.col_off * right)
    row_end, col_end = int(window.row_end * down) + 1, int(window.col_end * right) + 1
    return Window(row, col, row_end - row, col_end - col).intersection(small.window)


def save_backdrop(path: Path, overview: Overview) -> None:
    """Write an overview as a GeoTIFF of RGB and alpha; it appears complete or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    alpha = overview.valid[None] * np.uint8(255)
    bands = np.concatenate((overview.image.transpose(2, 0, 1), alpha))
    with output_errors(path, RasterioError):
        write_raster(path, bands, overview.grid)


def read_backdrop(path: Path) -> Overview | None:
    """Read the overview that `save_backdrop` wrote; None if there is none that can be read."""
    try:
        with rasterio.open(path.absolute(), driver="GTiff") as dataset:
            bands = dataset.read()
            grid = Grid(dataset.transform, dataset.crs, dataset.shape)
    except RasterioError:
        return None
    return Overview(bands[:3].transpose(1, 2, 0), bands[3] > 0, grid)


def blank_backdrop(grid: Grid, longest_px: int) -> Overview:
    """Make an overview without any imagery."""
    small = reduced_grid(grid, longest_px)
    blank = Overview(np.zeros((*small.shape, 3), np.uint8), np.zeros(small.shape, bool), small)
    return turn_upright(blank)
