"""Where tiles lie on the grid of a job, and which of them is seen where they overlap."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import Polygon

from geo.common_grid import ALIGNMENT_PX, aligned_offset, rounded_gsd, true_gsd_m
from geo.grid import Grid, Window
from geo.tile import ListedTile, Tile, TileProblem, same_crs
from geo.warp import transformer

EDGE_POINTS = 8
"""An edge is followed through this many points into another CRS."""

INDEX_SLACK = 0.02
"""A tile may reach beyond its footprint in an index by this share of its side, and 2 pixels."""

SNAP_PX = ALIGNMENT_PX
"""Bounds this close to a pixel corner lie on it."""


@dataclass(frozen=True)
class Placed:
    """A tile and the window of the grid that it covers, or that an index says it covers."""

    tile: Tile | ListedTile
    window: Window

    @property
    def reach(self) -> Window:
        """The window beyond which nothing of the tile is seen."""
        if isinstance(self.tile, Tile):
            return self.window
        rows = round(INDEX_SLACK * self.window.height) + 2
        cols = round(INDEX_SLACK * self.window.width) + 2
        return self.window.pad(rows, cols)


def place(tile: Tile | ListedTile, grid: Grid) -> Placed | TileProblem:
    """Find a tile's window on the grid of a job; windows may have negative offsets."""
    if isinstance(tile, ListedTile):
        bounds = _bounds(tile.footprint, tile, grid)
    elif offset := aligned_offset(tile, grid):
        return Placed(tile, Window(*offset, *tile.shape))
    else:
        bounds = _bounds(tile.grid.footprint(), tile, grid)
    if bounds is None:
        outline = tile.footprint if isinstance(tile, ListedTile) else tile.grid.footprint()
        reason = "lies where the map's coordinate system has no values; give another crs="
        return TileProblem(tile.path, reason, outline, tile.crs)
    return Placed(tile, bounds)


def painting_key(tile: Tile, grid: Grid) -> tuple[float, bytes]:
    """Sorts tiles so that the one to be seen comes last: the smaller pixel, then the later path."""
    return -rounded_gsd(true_gsd_m(tile, grid.crs)), os.fsencode(tile.path)


def hull(placed: Iterable[Placed]) -> Window:
    """The smallest window that holds all."""
    edges = [
        (p.window.row_off, p.window.col_off, p.window.row_end, p.window.col_end) for p in placed
    ]
    table = np.array(edges)
    top, left = (int(value) for value in table[:, :2].min(axis=0))
    bottom, right = (int(value) for value in table[:, 2:].max(axis=0))
    return Window(top, left, bottom - top, right - left)


def _bounds(outline: Polygon, tile: Tile | ListedTile, grid: Grid) -> Window | None:
    """The window around an outline in the tile's CRS; None where that cannot be transformed."""
    points = _along(np.asarray(outline.exterior.coords)[:, :2])
    if not same_crs(tile.crs, grid.crs):
        points = np.column_stack(transformer(tile.crs, grid.crs).transform(*points.T))
    if not np.isfinite(points).all():
        return None
    pixels = grid.to_pixel(points)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    left, top = (math.floor(value + SNAP_PX) for value in low)
    right, bottom = (math.ceil(value - SNAP_PX) for value in high)
    return Window(top, left, max(bottom - top, 1), max(right - left, 1))


def _along(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points along a ring: its corners and some between them."""
    steps = np.linspace(0, 1, EDGE_POINTS, endpoint=False)[:, None, None]
    return np.asarray((corners[:-1] * (1 - steps) + corners[1:] * steps).reshape(-1, 2))
