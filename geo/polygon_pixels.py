"""The pixels of pixel-shaped polygons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Covered:
    """Pixels (N,) row, col in the mosaic, and the number of the area that each lies in."""

    rows: IntArray
    cols: IntArray
    owner: IntArray


def covered(vertices: NDArray[np.number], ring_starts: IntArray, owner: IntArray) -> Covered:
    """Pixels inside closed rings on pixel borders: in each row, between its odd and even sides.

    Args:
        vertices: (V, 2) col, row, ring after ring.
        ring_starts: (R + 1,) vertex at which each ring begins.
        owner: (R,) area of each ring, whose holes are rings of the same area.

    Returns:
        The pixels by area, row and column.
    """
    col, row = vertices.T.astype(np.int64)
    top, bottom = np.minimum(row[:-1], row[1:]), np.maximum(row[:-1], row[1:])
    height = bottom - top
    height[ring_starts[1:-1] - 1] = 0  # from one ring to the next
    side, within = _ramps(height)
    areas = np.repeat(owner, np.diff(ring_starts))
    crossing = np.column_stack((areas[side], top[side] + within, col[side]))
    crossing = crossing[np.lexsort((crossing[:, 2], crossing[:, 1], crossing[:, 0]))]
    run, within = _ramps(crossing[1::2, 2] - crossing[0::2, 2])
    area, row_of, col_of = crossing[0::2][run].T
    return Covered(row_of, col_of + within, area)


def pixels_of_each(geometries: NDArray[np.object_]) -> Covered:
    """Pixels of polygons in mosaic pixel coordinates, numbered as they are given."""
    _, vertices, (ring_starts, part_starts, starts) = shapely.to_ragged_array(geometries)
    of_part = np.repeat(np.arange(len(geometries)), np.diff(starts))
    return covered(vertices, ring_starts, np.repeat(of_part, np.diff(part_starts)))


def pixels_of(geometry: shapely.MultiPolygon) -> IntArray:
    """(N, 2) mosaic row, col of a polygon's pixels."""
    found = pixels_of_each(np.array([geometry], dtype=object))
    return np.column_stack((found.rows, found.cols))


def _ramps(lengths: IntArray) -> tuple[IntArray, IntArray]:
    """Index of each of many ramps 0, 1, ... of given lengths, and its values."""
    index = np.repeat(np.arange(len(lengths)), lengths)
    return index, np.arange(len(index)) - (np.cumsum(lengths) - lengths)[index]
