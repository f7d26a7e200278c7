"""How the old survey is moved: shifts of neighborhoods, blended where they meet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from geo.arrays import BoolArray, FloatArray, IntArray

AT_ONCE = 100_000
"""Places that are looked up together: 15 MB."""


@dataclass(frozen=True, eq=False)
class Registration:
    """Shifts of N neighborhoods; old place + shift = new place.

    Attributes:
        cell: (N, 2) column and row.
        cell_m: side of a neighborhood.
        shift_m: (N, 2) at its center.
        rotation_rad: (N,) about its center, counterclockwise.
        sd_m: (N,) standard deviation of the shift.
        support_m: (N,) meters of cracks that agree.
        source: (N,) whose cracks gave the shift: "own", "neighbors", or "none" (not known).
        residual_m: distance of agreeing lines that is left (standard deviation).
    """

    cell: IntArray
    cell_m: float
    shift_m: FloatArray
    rotation_rad: FloatArray
    sd_m: FloatArray
    support_m: FloatArray
    source: NDArray[np.object_]
    residual_m: float

    def shift_at(self, xy: FloatArray) -> FloatArray:
        """Shift (K, 2) at old places (K, 2), blended between the four nearest neighborhoods."""
        total: FloatArray = np.zeros(xy.shape, np.float64)
        for some in self._in_turn(xy):
            for node, weight, there in self._around(xy[some]):
                lever = xy[some] - self._centers[node]
                turned = np.column_stack((-lever[:, 1], lever[:, 0]))
                one = self.shift_m[node] + self.rotation_rad[node, None] * turned
                total[some] += np.where(there, weight, 0.0)[:, None] * one
        return total

    def sd_at(self, xy: FloatArray) -> FloatArray:
        """Return standard deviation (K,) of the shift at old places."""
        total: FloatArray = np.zeros(len(xy), np.float64)
        for some in self._in_turn(xy):
            for node, weight, there in self._around(xy[some]):
                total[some] += np.where(there, weight, 0.0) * self.sd_m[node]
        return total

    def _in_turn(self, xy: FloatArray) -> Iterator[slice]:
        """Yield places `AT_ONCE` at a time; none where nothing is known."""
        for low in range(0, len(xy) if len(self.cell) else 0, AT_ONCE):
            yield slice(low, low + AT_ONCE)

    def warp(self, shapes: NDArray[np.object_]) -> NDArray[np.object_]:
        """Return old geometries in the new survey."""
        return np.asarray(shapely.transform(shapes, lambda xy: xy + self.shift_at(xy)))

    def warped_one(self, shape: shapely.Geometry) -> shapely.Geometry:
        """Return an old geometry in the new survey."""
        return shapely.make_valid(self.warp(np.array([shape], object))[0])

    @property
    def boxes(self) -> NDArray[np.object_]:
        """(N,) the neighborhoods as polygons."""
        low = self.cell * self.cell_m
        return np.asarray(shapely.box(*low.T, *(low + self.cell_m).T))

    @property
    def _centers(self) -> FloatArray:
        centers: FloatArray = (self.cell + 0.5).astype(np.float64) * self.cell_m
        return centers

    def _around(self, xy: FloatArray) -> list[tuple[IntArray, FloatArray, BoolArray]]:
        """Return the four nodes around each place with their bilinear weights; they add up to 1."""
        place: FloatArray = xy / self.cell_m - 0.5
        corner = np.floor(place).astype(np.int64)
        part = place - corner
        found: list[tuple[IntArray, FloatArray, BoolArray]] = []
        for step in ((0, 0), (1, 0), (0, 1), (1, 1)):
            node, there = find_cells(self.cell, corner + step)
            weight: FloatArray = np.prod(np.where(step, part, 1 - part), axis=1)
            found.append((node, np.where(there, weight, 0.0), there))
        total = np.sum([weight for _, weight, _ in found], axis=0)
        safe = np.where(total > 0, total, 1.0)
        return [(node, weight / safe, there) for node, weight, there in found]


def find_cells(cells: IntArray, wanted: IntArray) -> tuple[IntArray, BoolArray]:
    """Return the index of each wanted cell among sorted cells, and whether it is there."""
    if not len(cells) or not len(wanted):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    # places along lines mostly stay in a cell, so each run of one cell is looked up once
    begins = np.append(True, np.any(wanted[1:] != wanted[:-1], axis=1))
    run, wanted = np.cumsum(begins) - 1, wanted[begins]
    low = cells.min(axis=0)
    span = int(cells[:, 1].max() - low[1]) + 1
    inside = ((wanted >= low) & (wanted <= cells.max(axis=0))).all(axis=1)
    keys = (cells[:, 0] - low[0]) * span + cells[:, 1] - low[1]
    key = (wanted[:, 0] - low[0]) * span + wanted[:, 1] - low[1]
    index = np.searchsorted(keys, key).clip(max=len(keys) - 1)
    return index[run], (inside & (keys[index] == key))[run]
