"""Pixel outlines with fewer vertices, in the world."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from geo.grid import Grid

Shapes = NDArray[np.object_]

AREA_CHANGE = 0.02
"""Largest change of a crack's area by simplification, as a share."""

_SHARES = (1.0, 0.75)
"""Parts of the tolerance that are tried. Half a pixel moves no vertex of a staircase."""


def world_outlines(geometry: Shapes, grid: Grid, tolerance_px: float) -> Shapes:
    """Simplify pixel outlines, keeping their topology, and place them in the world.

    Validity is checked in world coordinates, where rounding can push a vertex that touches a line
    across it; such an outline stays exact (its rings meet in common vertices only).

    Args:
        geometry: (N,) MultiPolygons in pixels.
        grid: of the pixels.
        tolerance_px: how far an outline may move, pixels; 0 keeps it.
    """
    if tolerance_px <= 0 or not len(geometry):
        return np.asarray(shapely.transform(geometry, grid.to_world))
    placed = shapely.transform(simplified(geometry, tolerance_px), grid.to_world)
    broken = ~shapely.is_valid(placed)
    placed[broken] = shapely.transform(geometry[broken], grid.to_world)
    return np.asarray(placed)


def simplified(geometry: Shapes, tolerance: float) -> Shapes:
    """Simplify MultiPolygons; each keeps its polygons, holes and area, and stays valid.

    A tolerance of one pixel may add or take a third of a crack that is two pixels wide. Where the
    area changes by more than AREA_CHANGE, smaller tolerances are tried, and none at last.
    """
    lean = geometry.copy()
    left = np.arange(len(geometry))
    for share in _SHARES:
        tried = _simplified(geometry[left], share * tolerance)
        area = shapely.area(geometry[left])
        good = np.abs(shapely.area(tried) - area) <= AREA_CHANGE * area
        lean[left[good]] = tried[good]
        left = left[~good]
    return lean


def _simplified(geometry: Shapes, tolerance: float) -> Shapes:
    """Simplify MultiPolygons; each keeps its polygons and holes, and stays valid.

    The plain algorithm of Douglas and Peucker takes a tenth of the time of the one that preserves
    topology, and preserves it most of the time; the other does what is left.
    """
    lean: Shapes = shapely.simplify(geometry, tolerance, preserve_topology=False)
    torn = ~shapely.is_valid(lean) | (_counts(lean) != _counts(geometry)).any(axis=0)
    lean[torn] = shapely.simplify(geometry[torn], tolerance, preserve_topology=True)
    single = np.flatnonzero(shapely.get_type_id(lean) == shapely.GeometryType.POLYGON)
    lean[single] = shapely.multipolygons(lean[single], indices=np.arange(len(single)))
    return lean


def _counts(geometry: Shapes) -> NDArray[np.int64]:
    """(2, N) polygons and holes of each."""
    parts, owner = shapely.get_parts(geometry, return_index=True)
    holes = np.bincount(owner, shapely.get_num_interior_rings(parts), minlength=len(geometry))
    return np.stack((np.bincount(owner, minlength=len(geometry)), holes.astype(np.int64)))
