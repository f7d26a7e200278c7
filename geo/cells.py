"""A road segment as a table of cells: 1 m long, a third of a lane wide.

After the German ZTV ZEB-StB: a cell with any crack counts, the percentage of cells is the figure.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

CELL_M = 1.0
THIRDS = 3
SEEN_SHARE = 0.5
"""A cell of which less was seen counts only if a crack was found in it."""

FloatArray = NDArray[np.float64]


class CellGrid:
    """Cells of one segment, addressed by meters along it and across it."""

    def __init__(self, length_m: float, width_m: float, lane_m: float) -> None:
        self._width_m = width_m
        across = max(1, round(THIRDS * width_m / lane_m))
        self._shape = max(1, math.ceil(length_m / CELL_M - 1e-9)), across
        self._hit = np.zeros(self._shape, bool)
        self._seen = np.zeros(self._shape)
        self._all = np.zeros(self._shape)

    def hit(self, along_m: FloatArray, across_m: FloatArray) -> None:
        """Mark the cells in which crack pixels (N,) lie."""
        self._hit[self._place(along_m, across_m)] = True

    def see(self, along_m: FloatArray, across_m: FloatArray, share: FloatArray) -> None:
        """Add samples (N,) of the ground, each with the share of it that was seen."""
        place = self._place(along_m, across_m)
        np.add.at(self._seen, place, share)
        np.add.at(self._all, place, 1.0)

    @property
    def hit_pct(self) -> float | None:
        """Percentage of the cells seen that hold a crack; None if none was seen."""
        counted = self._hit | ((self._all > 0) & (self._seen >= SEEN_SHARE * self._all))
        return 100.0 * float(self._hit.sum() / counted.sum()) if counted.any() else None

    def _place(
        self, along_m: FloatArray, across_m: FloatArray
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        rows, cols = self._shape
        row = np.clip((along_m / CELL_M).astype(np.int64), 0, rows - 1)
        col = ((across_m / self._width_m + 0.5) * cols).astype(np.int64)
        return row, np.clip(col, 0, cols - 1)
