"""The pixel grid on which a job works: pixel <-> world, meters per pixel, windows.

Pixel coordinates are (col, row) with the pixel's top-left *corner* at whole numbers, so that the
pixel (row, col) covers [col, col + 1] x [row, row + 1] and its center is (col + .5, row + .5).
World coordinates are those of the CRS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from shapely.geometry import Polygon


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle of pixels; offsets may be negative where a halo reaches beyond the grid."""

    row_off: int
    col_off: int
    height: int
    width: int

    @property
    def row_end(self) -> int:
        """First row below the window."""
        return self.row_off + self.height

    @property
    def col_end(self) -> int:
        """First column right of the window."""
        return self.col_off + self.width

    @property
    def area_px(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    def intersection(self, other: Window) -> Window | None:
        """Return the common pixels of two windows, or None if there are none."""
        row_off, col_off = max(self.row_off, other.row_off), max(self.col_off, other.col_off)
        height = min(self.row_end, other.row_end) - row_off
        width = min(self.col_end, other.col_end) - col_off
        return Window(row_off, col_off, height, width) if height > 0 and width > 0 else None

    def union(self, other: Window) -> Window:
        """Return the smallest window that holds both."""
        row_off, col_off = min(self.row_off, other.row_off), min(self.col_off, other.col_off)
        height = max(self.row_end, other.row_end) - row_off
        return Window(row_off, col_off, height, max(self.col_end, other.col_end) - col_off)

    def shift(self, rows: int, cols: int) -> Window:
        """Return the window shifted by whole pixels."""
        return Window(self.row_off + rows, self.col_off + cols, self.height, self.width)

    def pad(self, rows: int, cols: int | None = None) -> Window:
        """Return the window grown on each side by ``rows``, and left and right by ``cols``."""
        beside = rows if cols is None else cols
        return Window(
            self.row_off - rows,
            self.col_off - beside,
            self.height + 2 * rows,
            self.width + 2 * beside,
        )

    def slices_in(self, outer: Window) -> tuple[slice, slice]:
        """Return the (row, col) slices of this window in an array that covers ``outer``."""
        row, col = self.row_off - outer.row_off, self.col_off - outer.col_off
        return slice(row, row + self.height), slice(col, col + self.width)

    def polygon(self) -> Polygon:
        """Return the window as a polygon in pixel corner coordinates."""
        box: Polygon = shapely.box(self.col_off, self.row_off, self.col_end, self.row_end)
        return box


@dataclass(frozen=True)
class Grid:
    """An affine pixel grid in a projected CRS.

    Attributes:
        transform: pixel corner (col, row) -> world (x, y).
        crs: projected CRS, in any linear unit.
        shape: (rows, cols).
    """

    transform: Affine
    crs: CRS
    shape: tuple[int, int]

    @cached_property
    def unit_m(self) -> float:
        """Meters in one unit of the CRS (1 for meters, .3048 for feet)."""
        return float(self.crs.linear_units_factor[1])

    @property
    def pixel_m(self) -> tuple[float, float]:
        """(width, height) of one pixel in meters."""
        a, b, _, d, e, _ = self.transform[:6]
        return math.hypot(a, d) * self.unit_m, math.hypot(b, e) * self.unit_m

    @property
    def pixel_area_m2(self) -> float:
        """Area of one pixel in square meters; exact for rotated and sheared grids too."""
        return abs(float(self.transform.determinant)) * self.unit_m**2

    @property
    def gsd_m(self) -> float:
        """Ground sampling distance in meters: side of the square of one pixel's area."""
        return math.sqrt(self.pixel_area_m2)

    @property
    def window(self) -> Window:
        """The whole grid as a window."""
        return Window(0, 0, *self.shape)

    def subgrid(self, window: Window) -> Grid:
        """Return the grid of one window; windows may reach beyond this grid.

        >>> grid = Grid(Affine(0.5, 0, 100, 0, -0.5, 200), CRS.from_epsg(25832), (10, 10))
        >>> grid.subgrid(Window(2, 4, 3, 3)).transform.c
        102.0
        """
        a, b, c, d, e, f = self.transform[:6]
        row, col = window.row_off, window.col_off
        moved = Affine(a, b, a * col + b * row + c, d, e, d * col + e * row + f)
        return Grid(moved, self.crs, (window.height, window.width))

    def to_world(self, col_row: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map pixel corner coordinates (N, 2) col, row to world coordinates (N, 2) x, y."""
        return _apply(self.transform, col_row)

    def to_pixel(self, x_y: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map world coordinates (N, 2) x, y to pixel corner coordinates (N, 2) col, row."""
        return _apply(~self.transform, x_y)

    def footprint(self, window: Window | None = None) -> Polygon:
        """Return a window (default: the whole grid) as a polygon in world coordinates."""
        box = (window or self.window).polygon()
        polygon: Polygon = shapely.transform(box, self.to_world)
        return polygon


def _apply(transform: Affine, points: NDArray[np.floating]) -> NDArray[np.float64]:
    a, b, c, d, e, f = transform[:6]
    x, y = points[:, 0], points[:, 1]
    return np.column_stack((a * x + b * y + c, d * x + e * y + f)).astype(np.float64)
