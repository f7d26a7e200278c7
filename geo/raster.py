"""Pixels of a window of a mosaic, and how fine the imagery is that they came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo.common_grid import PIXEL_SIZE_TOLERANCE, true_gsd_m
from geo.grid import Grid
from geo.tile import Tile, TileProblem


@dataclass(frozen=True, eq=False)
class Raster:
    """Pixels of a window.

    Attributes:
        image: (H, W, 3) uint8.
        valid: (H, W) bool; False where there is no imagery.
        failures: tiles that failed, with the reason.
        gsd_m: the largest pixel that was seen, at least the grid's: what the image can resolve.
        sizes_m: (H, W) float64, the size of the imagery's own pixels where it is coarser than the
            grid's, else the grid's; None: it is coarser nowhere.
    """

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    failures: tuple[TileProblem, ...]
    gsd_m: float
    sizes_m: NDArray[np.float64] | None = None


class PixelSizes:
    """Pixel sizes of the imagery that was seen in a window."""

    def __init__(self, grid: Grid, shape: tuple[int, ...]) -> None:
        self.largest = grid.gsd_m
        self.known: NDArray[np.float64] | None = None
        self._grid = grid
        self._shape = shape

    def see(self, here: tuple[slice, slice], new: NDArray[np.bool_], tile: Tile) -> None:
        """Note the size of a tile's pixels for those that were newly seen."""
        size_m = true_gsd_m(tile, self._grid.crs)
        if size_m <= self._grid.gsd_m * (1 + PIXEL_SIZE_TOLERANCE) or not new.any():
            return
        self.largest = max(self.largest, size_m)
        if self.known is None:
            self.known = np.full(self._shape, self._grid.gsd_m)
        self.known[here][new] = size_m
