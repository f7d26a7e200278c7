"""A skeleton's pixel graph -> centerline branches: spurs pruned, ends restored, smoothed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geo.grid import Grid
from geo.skeleton import Skeleton
from geo.skeleton_graph import Edge, pruned, trace

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class CenterlineOptions:
    """How a skeleton becomes centerlines.

    Attributes:
        prune_widths: free branches shorter than this many local widths are spurs.
        smooth_px: half the window of the moving average along a branch, pixels.
        simplify_px: tolerance of the simplification after it, pixels.
    """

    prune_widths: float = 1.0
    smooth_px: int = 3
    simplify_px: float = 0.5


@dataclass(frozen=True, eq=False)
class Branch:
    """One centerline between two nodes.

    Attributes:
        line: (N, 2) col, row in pixels from the component's corner.
        length_m: of the line.
        reach_m: (K,) distance from the skeleton's pixels to the background.
        from_node, to_node: numbers of its nodes in the crack; equal for a loop.
    """

    line: FloatArray
    length_m: float
    reach_m: FloatArray
    from_node: int
    to_node: int


def centerlines(skeleton: Skeleton, grid: Grid, options: CenterlineOptions) -> list[Branch]:
    """Trace a component's centerlines, ordered by their nodes.

    Spurs shorter than the local width are cut off, the half width that thinning takes from each
    free end is given back, and the pixel staircase is smoothed (raw skeletons are 5-7 % too
    long). All arithmetic counts from the component's own corner, so that the result does not
    depend, not even by rounding, on where in an array it lay.

    Args:
        skeleton: of one component, in pixels of ``grid``.
        grid: the pixels' size and shape.
        options: see `CenterlineOptions`.
    """
    corner = skeleton.corner
    to_m = pixel_to_meters(grid)
    to_px = np.linalg.inv(to_m)
    places = mapped((skeleton.pixels - corner)[:, ::-1] + 0.5, to_m)
    beside = mapped((skeleton.border - corner)[:, ::-1] + 0.5, to_m)
    reach, _ = cKDTree(beside).query(places)
    graph = pruned(trace(places, skeleton.edges, reach), options.prune_widths)
    order = {node: number for number, node in enumerate(graph.ordered_nodes())}
    free = graph.free_nodes()
    branches = []
    for edge in graph.edges:
        ends = edge.ends if order[edge.ends[0]] <= order[edge.ends[1]] else edge.ends[::-1]
        points = _lengthened(_smoothed(edge, options.smooth_px), edge, free)
        line = shapely.LineString(points if ends == edge.ends else points[::-1])
        lean = shapely.simplify(line, options.simplify_px * max(grid.pixel_m))
        branches.append(
            Branch(
                line=mapped(shapely.get_coordinates(lean), to_px),
                length_m=float(lean.length),
                reach_m=edge.reach,
                from_node=order[ends[0]],
                to_node=order[ends[1]],
            )
        )
    return sorted(branches, key=lambda b: (b.from_node, b.to_node, b.length_m))


def pixel_to_meters(grid: Grid) -> FloatArray:
    """(2, 2) matrix M with (col, row) @ M = meters."""
    a, b, _, d, e, _ = grid.transform[:6]
    return np.array([[a, d], [b, e]]) * grid.unit_m


def mapped(points: NDArray[np.floating], matrix: NDArray[np.floating]) -> FloatArray:
    """Points (..., 2) @ matrix (2, 2), rounded alike for one point and for a million.

    A matrix product goes to BLAS, which may round differently with the number of points.
    """
    x, y = points[..., 0], points[..., 1]
    (a, b), (c, d) = matrix
    product: FloatArray = np.stack((x * a + y * c, x * b + y * d), axis=-1)
    return product


def _smoothed(edge: Edge, half_window: int) -> FloatArray:
    """Moving average along the points; it narrows toward open ends, which keep their place."""
    points = edge.points
    count = len(points)
    if count < 4:
        return points
    if edge.is_loop:
        wrapped = np.pad(points[:-1], ((half_window, half_window), (0, 0)), mode="wrap")
        mean = _window_means(wrapped, half_window, np.full(count - 1, half_window))
        return np.concatenate((mean, mean[:1]))
    index = np.arange(count)
    reach = np.minimum(np.minimum(index, count - 1 - index), half_window)
    return _window_means(points, 0, reach)


def _window_means(points: FloatArray, first: int, reach: NDArray[np.int64]) -> FloatArray:
    """Mean of ``points[i - reach_i : i + reach_i + 1]`` for i = first + 0, 1, ..."""
    sums = np.concatenate((np.zeros((1, 2)), np.cumsum(points, axis=0)))
    at = first + np.arange(len(reach))
    means: FloatArray = (sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1)[:, None]
    return means


def _lengthened(points: FloatArray, edge: Edge, free: frozenset[int]) -> FloatArray:
    """Give free ends back what thinning took: their distance to the next background pixel.

    Over all angles and widths of 1.5 to 12 pixels the ends are then right to half a pixel.
    """
    if edge.is_loop:
        return points
    head, tail = points[:1], points[-1:]
    if edge.ends[0] in free:
        head = _beyond(points, float(edge.reach[0]))
    if edge.ends[1] in free:
        tail = _beyond(points[::-1], float(edge.reach[-1]))
    return np.concatenate((head, points[1:-1], tail))


def _beyond(points: FloatArray, length: float) -> FloatArray:
    """(1, 2) point ``length`` before the first one, in the direction of the line's beginning."""
    away = np.hypot(*(points - points[0]).T)
    far = np.flatnonzero(away >= 2 * length)
    base = points[far[0] if len(far) else int(away.argmax())]
    direction = points[0] - base
    norm = float(np.hypot(*direction))
    far_point: FloatArray = points[:1] + direction * (length / norm if norm > 0 else 0.0)
    return far_point
