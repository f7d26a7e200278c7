"""Measures of many small cracks at once: those whose skeleton is one short path.

The steps are those of `geo.cracks.centerline.centerlines` and `geo.cracks.measure.measure`, in the same order and
with the same rounding, on arrays of all paths of one length instead of objects per crack. Most of
a real mask's components are such crumbs, and their number decides how long a block takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from geo.cracks.centerline import DOT_M, CenterlineOptions, mapped, pixel_to_meters
from geo.cracks.formulas import (
    P95,
    FloatArray,
    MeasuredBranch,
    Measures,
    orientations,
    width_profiles,
)
from geo.cracks.pixel_set import IntArray
from geo.cracks.skeleton import Thinned
from geo.grid import Grid

MAX_PATH_PX = 64
"""Longer paths are measured one by one: there are few, and their pixels take the time."""

PAIRS_AT_ONCE = 4_000_000
"""Pairs of path and border pixels whose distances are held at once."""

BoolArray = NDArray[np.bool_]


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


def is_path(thin: Thinned) -> BoolArray:
    """(N,) bool: the components whose skeleton is a path of at most MAX_PATH_PX pixels."""
    if not len(thin.names):
        return np.zeros(0, bool)
    n_pixels, n_edges = np.diff(thin.pixel_starts), np.diff(thin.edge_starts)
    most = np.maximum.reduceat(_degrees(thin), thin.pixel_starts[:-1])
    path: BoolArray = (n_edges == n_pixels - 1) & (most <= 2) & (n_pixels <= MAX_PATH_PX)
    return path


def measure_paths(
    thin: Thinned, chosen: BoolArray, n_pixels: IntArray, grid: Grid
) -> dict[int, Measures]:
    """Measure components whose skeletons are paths.

    Args:
        thin: skeletons.
        chosen: (N,) bool, some of those of `is_path`.
        n_pixels: pixels of each component, by number.
        grid: the pixels' size and shape.

    Returns:
        Measures by number.
    """
    options = CenterlineOptions()
    measured: dict[int, Measures] = {}
    for paths in _paths(thin, chosen, grid):
        lean = _lines(paths, options)
        if paths.points.shape[1] > 2:
            lean = shapely.simplify(lean, options.simplify_px * max(grid.pixel_m))
        names = thin.names[paths.members]
        results = _measured(paths, lean, n_pixels[names], grid)
        measured.update(zip(names.tolist(), results, strict=True))
    return measured


def _degrees(thin: Thinned) -> IntArray:
    return np.bincount(thin.edges.ravel(), minlength=len(thin.pixels))


def _paths(thin: Thinned, chosen: BoolArray, grid: Grid) -> Iterator[_Paths]:
    """The chosen components in groups of equal length."""
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
            points = mapped(places[..., ::-1] + 0.5, to_m)
            reach = _reach(thin, members, corner, points, to_m)
            if length == 1:
                step = np.array([[-DOT_M, 0.0], [DOT_M, 0.0]])
                points, reach = points + step, np.repeat(reach, 2, axis=1)
            yield _Paths(members, corner[:, ::-1], points, reach)


class _Walker:
    """Follows paths pixel by pixel, many at once."""

    def __init__(self, thin: Thinned) -> None:
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
        """(G, K) pixels of paths of K pixels, from the end that comes first in the raster."""
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
    thin: Thinned, members: IntArray, corner: IntArray, points: FloatArray, to_m: FloatArray
) -> FloatArray:
    """(G, K) distance of each pixel to the nearest one of its component's border."""
    first, count = thin.border_starts[members], np.diff(thin.border_starts)[members]
    starts = np.cumsum(count) - count
    owner = np.repeat(np.arange(len(members)), count)
    index = np.arange(len(owner)) + (first - starts)[owner]
    border = mapped((thin.border[index] - corner[owner])[:, ::-1] + 0.5, to_m)
    away = points[owner] - border[:, None]
    squares = away[..., 0] * away[..., 0] + away[..., 1] * away[..., 1]
    return np.sqrt(np.minimum.reduceat(squares, starts, axis=0))


def _lines(paths: _Paths, options: CenterlineOptions) -> NDArray[np.object_]:
    """(G,) lines in meters: smoothed, lengthened, from the western (then southern) end."""
    points = _smoothed(paths.points, options.smooth_px)
    head = _beyond(points, paths.reach[:, 0])
    tail = _beyond(points[:, ::-1], paths.reach[:, -1])
    points = np.concatenate((head[:, None], points[:, 1:-1], tail[:, None]), axis=1)
    (x, y), (x_end, y_end) = paths.points[:, 0].T, paths.points[:, -1].T
    turned = (x > x_end) | ((x == x_end) & (y > y_end))
    points[turned] = points[turned, ::-1]
    lines: NDArray[np.object_] = shapely.linestrings(points)
    return lines


def _smoothed(points: FloatArray, half_window: int) -> FloatArray:
    count = points.shape[1]
    if count < 4:
        return points
    index = np.arange(count)
    reach = np.minimum(np.minimum(index, count - 1 - index), half_window)
    sums = np.cumsum(points, axis=1)
    sums = np.concatenate((np.zeros_like(sums[:, :1]), sums), axis=1)
    spread = (sums[:, index + reach + 1] - sums[:, index - reach]) / (2 * reach + 1)[:, None]
    smoothed: FloatArray = spread
    return smoothed


def _beyond(points: FloatArray, length: FloatArray) -> FloatArray:
    """(G, 2) point ``length`` before the first one, in the direction of the line's beginning."""
    first = points[:, 0]
    from_first = points - first[:, None]
    away = np.hypot(from_first[..., 0], from_first[..., 1])
    far = away >= 2 * length[:, None]
    chosen = np.where(far.any(axis=1), far.argmax(axis=1), away.argmax(axis=1))
    direction = first - points[np.arange(len(points)), chosen]
    norm = np.hypot(direction[:, 0], direction[:, 1])
    scale = np.divide(length, norm, out=np.zeros_like(norm), where=norm > 0)
    far_points: FloatArray = first + direction * scale[:, None]
    return far_points


def _measured(
    paths: _Paths, lean: NDArray[np.object_], n_pixels: IntArray, grid: Grid
) -> Iterator[Measures]:
    """The measures of each path from its simplified line."""
    count = len(lean)
    length_m = shapely.length(lean)
    profile = width_profiles(paths.reach)
    level = n_pixels * grid.pixel_area_m2 / length_m
    level = level - length_m * profile.mean(axis=1) / length_m
    widths = np.maximum(profile + level[:, None], min(grid.pixel_m) / 2)
    vertices, owner = shapely.get_coordinates(lean, return_index=True)
    lines = mapped(vertices, np.linalg.inv(pixel_to_meters(grid)))
    in_m = grid.to_meters(lines)
    same = owner[1:] == owner[:-1]
    turns = orientations(np.diff(in_m, axis=0)[same], owner[1:][same], count)
    last = np.cumsum(np.bincount(owner, minlength=count))
    span = in_m[last - 1] - in_m[np.append(0, last[:-1])]
    chord = np.hypot(span[:, 0], span[:, 1])
    moved, ends = lines + paths.corner[owner], last.tolist()
    placed = [moved[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    columns = (
        length_m,
        np.percentile(widths, P95, axis=1),
        widths.max(axis=1),
        widths.mean(axis=1),
        turns,
        chord,
    )
    rows = zip(placed, *(column.tolist() for column in columns), strict=True)
    for line, length, p95, most, mean, turn, straight in rows:
        tortuosity = length / straight if straight > 0 else math.nan
        branch = MeasuredBranch(line, length, mean, most, 0, 1)
        yield Measures(length, p95, most, turn, tortuosity, 0, (branch,))
