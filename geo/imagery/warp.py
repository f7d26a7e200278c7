"""One raster seen on another pixel grid: other CRS, rotation, pixel size or fraction of a pixel.

Imagery is interpolated bilinearly between the valid pixels around a point, after averaging whole
pixels where the source is finer; a point is valid if the source pixel that holds it is. Where a
point lies in the source is computed exactly on a lattice of the target grid and linearly between
its nodes, so a pixel's value depends on its place alone, never on the window that was asked for
(GDAL's warper approximates per chunk, which would make the result depend on the cut).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.crs import CRS

from geo.grid import Grid, Window
from geo.imagery.headers import same_crs
from geo.imagery.reading import OpenRaster, Stretch, read_readable

NODE_PX = 32
"""Distance of exactly transformed points; over 32 pixels of 1 m a projection bends by < 0.1 mm."""

CELL_PX = 512
"""Pixels are sampled in cells of this side, which bounds what is held of the source."""

EDGE_PX = 1e-6
"""A point this far outside the source still counts as inside: abutting files leave no gap."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """Part of a window: where it lies in it, image (H, W, 3) uint8, valid (H, W), first failure."""

    window: Window
    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    failure: str | None


def sample(
    raster: OpenRaster, source: Grid, target: Grid, window: Window, stretch: Stretch | None = None
) -> Iterator[Pixels]:
    """Read a window of a target grid from a raster that lies on another grid.

    Args:
        raster: the open raster.
        source: its grid.
        target: the grid of the job, in a projected CRS.
        window: of the target grid; the caller cuts it to where the raster lies.
        stretch: how 16-bit pixels become 8-bit ones.

    Yields:
        The cells of the window, cut at multiples of CELL_PX.

    Raises:
        OSError: the raster cannot be read at all; single blocks are failures of their cells.
    """
    factor = reduction(source, target)
    for row in range(window.row_off // CELL_PX, -(-window.row_end // CELL_PX)):
        for col in range(window.col_off // CELL_PX, -(-window.col_end // CELL_PX)):
            cell = Window(row * CELL_PX, col * CELL_PX, CELL_PX, CELL_PX).intersection(window)
            assert cell is not None, "a cell in the window's range meets the window"
            x, y = _places(source, target, cell)
            yield _sample_cell(raster, cell, (x, y), factor, stretch)


def to_source(source: Grid, target: Grid, col_row: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map pixel corner coordinates (N, 2) col, row of one grid to those of another; inf beyond."""
    if same_crs(source.crs, target.crs):
        return Grid(~source.transform * target.transform, source.crs, source.shape).to_world(
            col_row
        )
    x, y = transformer(target.crs, source.crs).transform(*target.to_world(col_row).T)
    with np.errstate(invalid="ignore"):  # inf - inf
        if source.crs.is_geographic:  # a file may go on beyond 180 degrees, PROJ does not
            turn = 2 * math.pi / source.crs.units_factor[1]
            x = x - turn * np.rint((x - source.footprint().centroid.x) / turn)
        return source.to_pixel(np.column_stack((x, y)))


@lru_cache(maxsize=64)
def transformer(source: CRS, target: CRS) -> Transformer:
    """Return the transformation of x, y (easting first) between two systems."""
    return Transformer.from_crs(source.to_wkt(), target.to_wkt(), always_xy=True)


def reduction(source: Grid, target: Grid) -> int:
    """Return the side of the square of source pixels that a target pixel averages, 1 or more."""
    middle = np.array([[source.shape[1] / 2, source.shape[0] / 2]])
    steps = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    at, right, down = to_source(target, source, middle + steps)  # in target pixels
    a, b = right - at, down - at
    spans = math.hypot(*a), math.hypot(*b)
    return max(1, round(1 / max(spans))) if np.isfinite(spans).all() else 1


def _places(
    source: Grid, target: Grid, cell: Window
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return source x, y of each pixel center of a cell, (H, W) each, in corner coordinates."""
    row_nodes, row_index, row_share = _nodes(cell.row_off, cell.row_end)
    col_nodes, col_index, col_share = _nodes(cell.col_off, cell.col_end)
    at = np.stack(np.meshgrid(col_nodes, row_nodes), axis=-1)
    exact = to_source(source, target, at.reshape(-1, 2)).reshape(at.shape)
    rows = row_share[:, None, None]
    with np.errstate(invalid="ignore"):  # inf - inf outside the projection
        along = exact[row_index] * (1 - rows) + exact[row_index + 1] * rows
        cols = col_share[None, :, None]
        places = along[:, col_index] * (1 - cols) + along[:, col_index + 1] * cols
    return places[..., 0], places[..., 1]


def _nodes(
    start: int, stop: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Return nodes along an axis, the one before each pixel center, and the way from there."""
    first, last = start // NODE_PX, (stop - 1) // NODE_PX + 1
    centers = np.arange(start, stop) + 0.5
    index = np.arange(start, stop, dtype=np.int64) // NODE_PX
    nodes = np.arange(first, last + 1, dtype=np.float64) * NODE_PX
    shares: NDArray[np.float64] = (centers - index * float(NODE_PX)) / NODE_PX
    return nodes, index - first, shares


def _sample_cell(
    raster: OpenRaster,
    cell: Window,
    places: tuple[NDArray[np.float64], NDArray[np.float64]],
    factor: int,
    stretch: Stretch | None,
) -> Pixels:
    rows, cols = raster.shape
    x, y = places
    valid = (x >= -EDGE_PX) & (x <= cols + EDGE_PX) & (y >= -EDGE_PX) & (y <= rows + EDGE_PX)
    image = np.zeros((*valid.shape, 3), np.uint8)
    if not valid.any():
        return Pixels(cell, image, valid, None)
    x, y = x[valid], y[valid]
    needed = _source_window(x, y, factor, raster.shape)
    seen, known, failure = read_readable(raster, needed, stretch=stretch)
    source = _average(seen, known, factor)
    # Whole numbers are subtracted, so the fractions do not depend on the window.
    x, y = x / factor - needed.col_off // factor, y / factor - needed.row_off // factor
    if source.share is not None:
        nearest = source.index(np.floor(y), np.floor(x))
        good = source.share.take(nearest) >= 0.5
        x, y = x[good], y[good]
        valid[valid] = good
    image[valid] = _bilinear(source, x, y)
    return Pixels(cell, image, valid, failure)


def _source_window(
    x: NDArray[np.float64], y: NDArray[np.float64], factor: int, shape: tuple[int, int]
) -> Window:
    """Return the source pixels around points, cut at multiples of the factor."""
    spans = []
    for points, size in ((y, shape[0]), (x, shape[1])):
        first = math.floor(points.min() / factor - 0.5)
        last = math.floor(points.max() / factor - 0.5) + 1
        most = (size - 1) // factor
        first, last = min(max(first, 0), most), min(max(last, 0), most)
        spans.append((first * factor, min((last + 1) * factor, size)))
    (top, bottom), (left, right) = spans
    return Window(top, left, bottom - top, right - left)


@dataclass(frozen=True, eq=False)
class _Source:
    """Pixels to interpolate between.

    Attributes:
        bands: (3, H * W) float32.
        share: (H * W,) float32, valid share of each pixel; None if all are valid.
        shape: (H, W).
    """

    bands: NDArray[np.float32]
    share: NDArray[np.float32] | None
    shape: tuple[int, int]

    def index(self, row: NDArray[np.float64], col: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the places of pixels of whole rows and columns; from outside the nearest one."""
        rows, cols = self.shape
        places = np.clip(row, 0, rows - 1) * cols + np.clip(col, 0, cols - 1)
        index: NDArray[np.int64] = places.astype(np.int64)
        return index


def _average(image: NDArray[np.uint8], valid: NDArray[np.bool_], factor: int) -> _Source:
    """Return the mean color and the share of the valid pixels of each factor x factor square."""
    bands = np.ascontiguousarray(image.transpose(2, 0, 1))
    all_valid = bool(valid.all())
    if factor == 1:
        share = None if all_valid else valid.astype(np.float32).ravel()
        return _Source(bands.reshape(3, -1).astype(np.float32), share, valid.shape)
    count, area = _sums(valid, factor), _sums(np.ones_like(valid), factor)
    mean = (_sums(bands * valid, factor) / np.maximum(count, 1)).astype(np.float32)
    share = None if all_valid else (count / area).astype(np.float32).ravel()
    return _Source(mean.reshape(3, -1), share, count.shape)


def _sums(values: NDArray[Any], factor: int) -> NDArray[np.uint32]:
    """Sum over factor x factor squares of the last two axes; those at the end may be smaller."""
    rows, cols = (range(0, size, factor) for size in values.shape[-2:])
    down = np.add.reduceat(values, rows, axis=-2, dtype=np.uint32)
    sums: NDArray[np.uint32] = np.add.reduceat(down, cols, axis=-1, dtype=np.uint32)
    return sums


def _bilinear(source: _Source, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return colors (N, 3) between pixel centers at N points; invalid pixels do not count."""
    col, row = np.floor(x - 0.5), np.floor(y - 0.5)
    right, down = (x - 0.5 - col).astype(np.float32), (y - 0.5 - row).astype(np.float32)
    total = np.zeros((3, len(x)), np.float32)
    weight = np.zeros(len(x), np.float32)
    for at_row, share_y in ((row, 1 - down), (row + 1, down)):
        for at_col, share_x in ((col, 1 - right), (col + 1, right)):
            index = source.index(at_row, at_col)
            share = share_x * share_y
            if source.share is not None:
                share *= source.share.take(index) > 0
            weight += share
            for band, colors in zip(total, source.bands, strict=True):
                band += colors.take(index) * share
    total /= weight
    return np.rint(total, out=total).astype(np.uint8).T
