"""Which branch each pixel of a piece belongs to: the nearest one.

So every pixel of the mask belongs to one crack or one network, and areas add up.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from geo.arrays import IntArray
from geo.cracks.branches import UM, BranchSet
from geo.cracks.pixel_set import ramps

STEP_PX = 0.5
"""Distance of the points on a branch to which pixels are compared."""

FRACTION = 1024
"""Parts of a pixel in which distances are compared, so that equal ones are equal."""

NEIGHBORS = 4
"""Nearest points that are compared: more are hardly ever equally far."""

APART_PX = float(1 << 40)
"""Distance by which pieces are set apart, so that no pixel finds another piece's branch."""


def branch_of_pixels(
    pixels: IntArray, piece: IntArray, branches: BranchSet, branch_piece: IntArray
) -> IntArray:
    """Find the nearest branch of its own piece for each pixel.

    Args:
        pixels: (P, 2) row, col in the mosaic.
        piece: (P,) number of the piece of each.
        branches: N centerlines, x = col and y = row in the mosaic; a pixel is what is a meter
            elsewhere.
        branch_piece: (N,) number of the piece of each; every piece of a pixel has one.

    Returns:
        (P,) numbers of branches. Of equally near ones it is the first from west to east.
    """
    pieces, first, count = np.unique(branch_piece, return_index=True, return_counts=True)
    place = np.searchsorted(pieces, piece)
    owner = first[place].astype(np.int64)
    several = np.flatnonzero(count[place] > 1)
    if not len(several):
        return owner
    chosen = np.flatnonzero(count[np.searchsorted(pieces, branch_piece)] > 1)
    canonical, ends = branches.take(chosen).canonical
    names = chosen[ends[::2] >> 1]
    points, number = _points(canonical)
    tree = cKDTree(_apart(points, branch_piece[names[number]]), balanced_tree=False)
    centers = pixels[several][:, ::-1] * FRACTION + FRACTION // 2
    near = min(NEIGHBORS, len(points))
    _, found = tree.query(_apart(centers, piece[several]), near)
    found = found.reshape(len(several), near)
    away = points[found] - centers[:, None]
    same = branch_piece[names[number[found]]] == piece[several][:, None]
    square = np.where(same, (away * away).sum(axis=2), np.iinfo(np.int64).max)
    nearest = square == square.min(axis=1, keepdims=True)
    owner[several] = names[np.where(nearest, number[found], len(names)).min(axis=1)]
    return owner


def _points(branches: BranchSet) -> tuple[IntArray, IntArray]:
    """Return (K, 2) points along all branches in parts of a pixel, and the branch of each.

    The point of a node is that of its first branch: any number of branches may meet there.
    """
    count = branches.lengths // round(STEP_PX * UM) + 2
    number, place = ramps(count)
    way = branches.lengths[number] * place // (count[number] - 1)
    points = branches.at(2 * number, way)
    last = np.cumsum(count) - 1
    ends = np.column_stack((last + 1 - count, last)).ravel()
    _, first = np.unique(branches.nodes, return_index=True)
    kept = np.ones(len(number), bool)
    kept[np.delete(ends, first)] = False
    return (points[kept] * FRACTION + UM // 2) // UM, number[kept]


def _apart(points: IntArray, piece: IntArray) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return (K, 3) points with their pieces far from each other."""
    return np.column_stack((points, piece * APART_PX)).astype(np.float64)
