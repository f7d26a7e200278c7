"""All 8-connected components of a set of pixels, measured.

Most components of a real mask are crumbs whose skeleton is one short path, and their number
decides how long a block takes. They are measured many at once: the steps are those of
`geo.cracks.centerline.centerlines` and `geo.cracks.measure.measure`, in the same order and with
the same rounding, on arrays of all paths of one length instead of objects per crack.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from geo.arrays import BoolArray, FloatArray, IntArray
from geo.cracks.centerline import (
    DOT_M,
    SIMPLIFY_PX,
    Branch,
    centerlines,
    pixel_to_meters,
    points_beyond,
    smooth_paths,
    transform_points,
)
from geo.cracks.measure import MeasuredBranch, measure, path_widths
from geo.cracks.outlines import Outlines
from geo.cracks.pixel_set import PixelSet, pixels_in_rings, ramps
from geo.cracks.skeleton import Skeletons, thin_components
from geo.grid import Grid

Branches = tuple[MeasuredBranch, ...]

PINHOLE_PX = 8
"""Holes up to this size carry no centerline around them (an island needs a hole of 9 pixels)."""

WHOLE_PX = 50_000_000
"""Largest bounding box of a crack that is measured in one piece."""

CELL_PX = 4096
"""Side of the cells in which larger ones are measured."""

MAX_PATH_PX = 64
"""Longer paths are measured one by one: there are few, and their pixels take the time."""

PAIRS_AT_ONCE = 4_000_000
"""Pairs of path and border pixels whose distances are held at once."""


def measure_components(
    pixels: PixelSet, traced: Outlines, chosen: NDArray[np.bool_], grid: Grid
) -> dict[int, Branches]:
    """Measure the centerlines of 8-connected components.

    A crack whose bounding box has more than WHOLE_PX pixels is measured in the fixed cells of the
    mosaic's lattice (its centerlines end at their sides), so that what one of them costs stays
    bounded and the result still does not depend on how the area was cut.

    Args:
        pixels: of all components.
        traced: their outlines.
        chosen: (C,) bool, which components to measure.
        grid: of the mosaic.

    Returns:
        Branches by number of the component.
    """
    owner = pixels.components
    n_pixels = np.bincount(owner, minlength=len(chosen))
    large = chosen & (traced.box_areas() > WHOLE_PX)
    measured = {
        number: _measure_in_cells(pixels.with_keys(pixels.keys[owner == number]), grid)
        for number in np.flatnonzero(large).tolist()
    }
    thin = thin_components(*_fill_pinholes(pixels, traced, chosen & ~large))
    simple = is_path(thin)
    measured |= measure_paths(thin, simple, n_pixels, grid)
    for index in np.flatnonzero(~simple).tolist():
        skeleton, number = thin.skeleton(index), int(thin.names[index])
        found = centerlines(skeleton, grid)
        result = measure(found, int(n_pixels[number]), grid)
        measured[number] = _shift(result, skeleton.corner[::-1])
    return measured


def _fill_pinholes(
    pixels: PixelSet, traced: Outlines, chosen: NDArray[np.bool_]
) -> tuple[PixelSet, NDArray[np.int64]]:
    """Return the pixels of the chosen components and of their small holes, and their components."""
    owner = pixels.components
    small = traced.is_hole & chosen[traced.owner] & (traced.areas() <= PINHOLE_PX)
    if chosen.all() and not small.any():
        return pixels, owner.astype(np.int64)
    lengths = np.diff(traced.ring_starts)
    starts = np.append(0, np.cumsum(lengths[small]))
    vertices = traced.vertices[np.repeat(small, lengths)]
    holes = pixels_in_rings(vertices, starts, traced.owner[small])
    kept = chosen[owner]
    keys = np.append(pixels.keys[kept], pixels.keys_of(holes.rows, holes.cols))
    order = np.argsort(keys)
    owners = np.concatenate((owner[kept].astype(np.int64), holes.owner))
    return pixels.with_keys(keys[order]), owners[order]


def _shift(branches: Branches, corner: NDArray[np.int64]) -> Branches:
    return tuple(replace(branch, line=branch.line + corner) for branch in branches)


def _measure_in_cells(crack: PixelSet, grid: Grid) -> Branches:
    branches: list[Branch] = []
    n_nodes = 0
    rows, cols = crack.places()
    cells = np.column_stack((rows // CELL_PX, cols // CELL_PX))
    _, cell_of = np.unique(cells, axis=0, return_inverse=True)
    for cell in range(int(cell_of.max()) + 1):
        part = crack.with_keys(crack.keys[cell_of == cell])
        thin = thin_components(part, part.components)
        for index in range(len(thin.names)):
            skeleton = thin.skeleton(index)
            found = centerlines(skeleton, grid)
            branches += [
                replace(
                    branch,
                    line=branch.line + skeleton.corner[::-1],
                    from_node=branch.from_node + n_nodes,
                    to_node=branch.to_node + n_nodes,
                )
                for branch in found
            ]
            n_nodes += 1 + max(max(b.from_node, b.to_node) for b in found)
    return measure(branches, len(crack), grid)


def is_path(thin: Skeletons) -> BoolArray:
    """Return (N,) bool: the components whose skeleton is a path of at most MAX_PATH_PX pixels."""
    if not len(thin.names):
        return np.zeros(0, bool)
    n_pixels, n_edges = np.diff(thin.pixel_starts), np.diff(thin.edge_starts)
    most = np.maximum.reduceat(_degrees(thin), thin.pixel_starts[:-1])
    path: BoolArray = (n_edges == n_pixels - 1) & (most <= 2) & (n_pixels <= MAX_PATH_PX)
    return path


def measure_paths(
    thin: Skeletons, chosen: BoolArray, n_pixels: IntArray, grid: Grid
) -> dict[int, Branches]:
    """Measure components whose skeletons are paths.

    Args:
        thin: skeletons.
        chosen: (N,) bool, some of those of `is_path`.
        n_pixels: pixels of each component, by number.
        grid: the pixels' size and shape.

    Returns:
        The one branch of each, by number.
    """
    measured: dict[int, Branches] = {}
    for paths in _paths(thin, chosen, grid):
        lean = _lines(paths)
        if paths.points.shape[1] > 2:
            lean = shapely.simplify(lean, SIMPLIFY_PX * max(grid.pixel_m))
        names = thin.names[paths.members]
        results = _measures(paths, lean, n_pixels[names], grid)
        measured.update(zip(names.tolist(), results, strict=True))
    return measured


@dataclass(frozen=True, eq=False)
class _Paths:
    """G paths of K pixels: from the end that comes first in the raster to the other.

    Attributes:
        members: (G,) indices of the components.
        corner: (G, 2) col, row from which their places count.
        points: (G, K, 2) in meters; a single pixel has two, as in `geo.cracks.centerline`.
        reach: (G, K) meters to the border.
    """

    members: IntArray
    corner: IntArray
    points: FloatArray
    reach: FloatArray


def _paths(thin: Skeletons, chosen: BoolArray, grid: Grid) -> Iterator[_Paths]:
    """Yield the chosen components in groups of equal length."""
    lengths = np.diff(thin.pixel_starts)
    on_borders = np.diff(thin.border_starts)
    walker = _Walker(thin)
    to_m = pixel_to_meters(grid)
    for length in np.unique(lengths[chosen]):
        group = np.flatnonzero(chosen & (lengths == length))
        turns = np.cumsum(on_borders[group]) * length // PAIRS_AT_ONCE
        for members in np.split(group, np.flatnonzero(np.diff(turns)) + 1):
            first = thin.pixel_starts[members]
            run = thin.pixels[first[:, None] + np.arange(length)]
            corner = run.min(axis=1)
            walk = walker.walk(members, int(length))
            places = thin.pixels[walk] - corner[:, None]
            points = transform_points(places[..., ::-1] + 0.5, to_m)
            reach = _reach(thin, members, corner, points, to_m)
            if length == 1:
                step = np.array([[-DOT_M, 0.0], [DOT_M, 0.0]])
                points, reach = points + step, np.repeat(reach, 2, axis=1)
            yield _Paths(members, corner[:, ::-1], points, reach)


def _degrees(thin: Skeletons) -> IntArray:
    return np.bincount(thin.edges.ravel(), minlength=len(thin.pixels))


class _Walker:
    """Follows paths pixel by pixel, many at once."""

    def __init__(self, thin: Skeletons) -> None:
        """Find the at most two neighbors of each pixel; -1 for none."""
        degree = _degrees(thin)
        pairs = np.concatenate((thin.edges, thin.edges[:, ::-1]))
        beside = pairs[np.argsort(pairs[:, 0], kind="stable"), 1]
        at = np.cumsum(degree) - degree
        self._one, self._other = np.full((2, len(degree)), -1)
        self._one[degree > 0] = beside[at[degree > 0]]
        self._other[degree > 1] = beside[at[degree > 1] + 1]
        self._ends = np.where(degree <= 1, np.arange(len(degree)), len(degree))
        self._starts = thin.pixel_starts

    def walk(self, members: IntArray, length: int) -> IntArray:
        """Return (G, K) pixels of paths, from the end that comes first in the raster."""
        runs = self._starts[members][:, None] + np.arange(length)
        here = self._ends[runs].min(axis=1)
        before = np.full(len(members), -1)
        walk = [here]
        for _ in range(length - 1):
            one = self._one[here]
            here, before = np.where(one == before, self._other[here], one), here
            walk.append(here)
        return np.stack(walk, axis=1)


def _reach(
    thin: Skeletons, members: IntArray, corner: IntArray, points: FloatArray, to_m: FloatArray
) -> FloatArray:
    """Return (G, K) the distance of each pixel to its component's border."""
    first, count = thin.border_starts[members], np.diff(thin.border_starts)[members]
    owner, step = ramps(count)
    places = thin.border[first[owner] + step] - corner[owner]
    border = transform_points(places[:, ::-1] + 0.5, to_m)
    away = points[owner] - border[:, None]
    squares = away[..., 0] * away[..., 0] + away[..., 1] * away[..., 1]
    return np.sqrt(np.minimum.reduceat(squares, np.cumsum(count) - count, axis=0))


def _lines(paths: _Paths) -> NDArray[np.object_]:
    """Return (G,) lines in meters: smoothed, lengthened, from the western, then southern end."""
    points = smooth_paths(paths.points)
    head = points_beyond(points, paths.reach[:, 0])
    tail = points_beyond(points[:, ::-1], paths.reach[:, -1])
    points = np.concatenate((head[:, None], points[:, 1:-1], tail[:, None]), axis=1)
    (x, y), (x_end, y_end) = paths.points[:, 0].T, paths.points[:, -1].T
    turned = (x > x_end) | ((x == x_end) & (y > y_end))
    points[turned] = points[turned, ::-1]
    lines: NDArray[np.object_] = shapely.linestrings(points)
    return lines


def _measures(
    paths: _Paths, lean: NDArray[np.object_], n_pixels: IntArray, grid: Grid
) -> Iterator[Branches]:
    """Yield the one branch of each path from its simplified line."""
    length_m = shapely.length(lean)
    widths = path_widths(paths.reach, length_m, n_pixels, grid)
    vertices, owner = shapely.get_coordinates(lean, return_index=True)
    lines = transform_points(vertices, np.linalg.inv(pixel_to_meters(grid)))
    moved = lines + paths.corner[owner]
    ends = np.cumsum(np.bincount(owner, minlength=len(lean)))[:-1]
    for line, length, width in zip(
        np.split(moved, ends), length_m.tolist(), widths.tolist(), strict=True
    ):
        yield (MeasuredBranch(line, length, width, 0, 1),)
