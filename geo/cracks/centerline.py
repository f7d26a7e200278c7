"""A skeleton's pixel graph -> centerline branches: spurs pruned, ends restored, smoothed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geo.arrays import FloatArray, IntArray
from geo.cracks.skeleton import Skeleton
from geo.grid import Grid

DOT_M = 1e-6
"""Half the length of the line that stands for a skeleton of a single node."""

PRUNE_WIDTHS = 1.0
"""Free branches shorter than this many local widths are spurs."""

SMOOTH_PX = 3
"""Half the window of the moving average along a branch, pixels."""

SIMPLIFY_PX = 0.5
"""Tolerance of the simplification after it, pixels."""


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


def centerlines(skeleton: Skeleton, grid: Grid) -> list[Branch]:
    """Trace a component's centerlines, ordered by their nodes.

    Spurs shorter than the local width are cut off, the half width that thinning takes from each
    free end is given back, and the pixel staircase is smoothed (raw skeletons are 5-7 % too
    long). All arithmetic counts from the component's own corner, so that the result does not
    depend, not even by rounding, on where in an array it lay.

    Args:
        skeleton: of one component, in pixels of ``grid``.
        grid: the pixels' size and shape.
    """
    corner = skeleton.corner
    to_m = pixel_to_meters(grid)
    to_px = np.linalg.inv(to_m)
    places = transform_points((skeleton.pixels - corner)[:, ::-1] + 0.5, to_m)
    beside = transform_points((skeleton.border - corner)[:, ::-1] + 0.5, to_m)
    reach, _ = cKDTree(beside, balanced_tree=False).query(places)
    graph = prune(trace(places, skeleton.edges, reach))
    order = {node: number for number, node in enumerate(graph.ordered_nodes())}
    free = graph.free_nodes()
    branches = []
    for edge in graph.edges:
        ends = edge.ends if order[edge.ends[0]] <= order[edge.ends[1]] else edge.ends[::-1]
        points = _lengthen(_smooth(edge), edge, free)
        line = shapely.LineString(points if ends == edge.ends else points[::-1])
        lean = shapely.simplify(line, SIMPLIFY_PX * max(grid.pixel_m))
        branches.append(
            Branch(
                line=transform_points(shapely.get_coordinates(lean), to_px),
                length_m=float(lean.length),
                reach_m=edge.reach,
                from_node=order[ends[0]],
                to_node=order[ends[1]],
            )
        )
    return sorted(branches, key=lambda b: (b.from_node, b.to_node, b.length_m))


def trace(places: FloatArray, links: IntArray, reach: FloatArray) -> Graph:
    """Follow the pixel graph from node to node.

    Args:
        places: (K, 2) positions of the skeleton's pixels in meters.
        links: (E, 2) indices of neighboring pixels.
        reach: (K,) distance of each pixel to the border.
    """
    paths = _Paths.of(links, len(places))
    clusters = paths.clusters()
    node_of = {pixel: number for number, pixels in enumerate(clusters) for pixel in pixels}
    walks = paths.walks(node_of)
    if sum(len(walk) - 2 for walk in walks) + len(node_of) < len(places):
        seen = {pixel for walk in walks for pixel in walk} | node_of.keys()
        for pixel in range(len(places)):  # what is left are plain loops, which have no node yet
            if pixel not in seen:
                node_of[pixel] = len(clusters)
                clusters.append([pixel])
                walks.append(paths.walk(node_of, pixel, paths.one[pixel]))
                seen.update(walks[-1])
    if not walks:
        return _dot(places.mean(axis=0), float(reach.max()))
    centers = np.array([places[pixels].mean(axis=0) for pixels in clusters])
    return Graph(
        edges=tuple(_edge(walk, node_of, centers, places, reach) for walk in walks),
        places={node: (float(x), float(y)) for node, (x, y) in enumerate(centers)},
        reach={node: float(reach[pixels].max()) for node, pixels in enumerate(clusters)},
    )


def prune(graph: Graph) -> Graph:
    """Cut off spurs: free branches shorter than PRUNE_WIDTHS local widths at their junction.

    All spurs of a round go together, then nodes that only two branches share are dissolved. A
    component that is nothing but spurs keeps the longest.
    """
    graph = _dissolve(graph)
    while spurs := _spurs(graph):
        kept = tuple(edge for edge in graph.edges if edge not in spurs)
        graph = _dissolve(Graph(kept, graph.places, graph.reach))
    return graph


def _smooth(edge: Edge) -> FloatArray:
    """Return the moving average along a branch; that of a loop goes round.

    Its window takes in at most half of a small loop: the mean of a whole one is a point.
    """
    if not edge.is_loop or len(edge.points) < 4:
        return np.asarray(smooth_paths(edge.points[None])[0])
    count = len(edge.points) - 1
    reach = min(SMOOTH_PX, (count // 2 - 1) // 2)
    turn = np.pad(edge.points[:-1], ((reach, reach), (0, 0)), mode="wrap")
    mean = _window_means(turn, reach + np.arange(count), np.full(count, reach))
    return np.concatenate((mean, mean[:1]))


def smooth_paths(points: FloatArray) -> FloatArray:
    """Average along paths (G, K, 2); the window narrows toward the ends, which stay in place."""
    count = points.shape[1]
    if count < 4:
        return points
    index = np.arange(count)
    return _window_means(points, index, np.minimum(np.minimum(index, count - 1 - index), SMOOTH_PX))


def _window_means(points: FloatArray, at: IntArray, reach: IntArray) -> FloatArray:
    """Return the mean of ``points[..., i - reach_i : i + reach_i + 1, :]`` for each i of ``at``."""
    sums = np.cumsum(points, axis=-2)
    sums = np.concatenate((np.zeros_like(sums[..., :1, :]), sums), axis=-2)
    totals = sums[..., at + reach + 1, :] - sums[..., at - reach, :]
    means: FloatArray = totals / (2 * reach + 1)[:, None]
    return means


def _lengthen(points: FloatArray, edge: Edge, free: frozenset[int]) -> FloatArray:
    """Give free ends back what thinning took: their distance to the next background pixel.

    Over all angles and widths of 1.5 to 12 pixels the ends are then right to half a pixel.
    """
    if edge.is_loop:
        return points
    head, tail = points[:1], points[-1:]
    if edge.ends[0] in free:
        head = points_beyond(points[None], edge.reach[:1])
    if edge.ends[1] in free:
        tail = points_beyond(points[None, ::-1], edge.reach[-1:])
    return np.concatenate((head, points[1:-1], tail))


def points_beyond(points: FloatArray, length: FloatArray) -> FloatArray:
    """Return points (G, 2) ``length`` (G,) before the first ones of paths (G, K, 2)."""
    first = points[:, 0]
    from_first = points - first[:, None]
    away = np.hypot(from_first[..., 0], from_first[..., 1])
    far = away >= 2 * length[:, None]
    chosen = np.where(far.any(axis=1), far.argmax(axis=1), away.argmax(axis=1))
    direction = first - points[np.arange(len(points)), chosen]
    norm = np.hypot(direction[:, 0], direction[:, 1])
    scale = np.divide(length, norm, out=np.zeros_like(norm), where=norm > 0)
    beyond: FloatArray = first + direction * scale[:, None]
    return beyond


def pixel_to_meters(grid: Grid) -> FloatArray:
    """Return the (2, 2) matrix M with (col, row) @ M = meters."""
    a, b, _, d, e, _ = grid.transform[:6]
    return np.array([[a, d], [b, e]]) * grid.unit_m


def transform_points(points: NDArray[np.floating], matrix: NDArray[np.floating]) -> FloatArray:
    """Multiply points (..., 2) by a (2, 2) matrix, rounding alike for one and for a million.

    A matrix product goes to BLAS, which may round differently with the number of points.
    """
    x, y = points[..., 0], points[..., 1]
    (a, b), (c, d) = matrix
    product: FloatArray = np.stack((x * a + y * c, x * b + y * d), axis=-1)
    return product


@dataclass(frozen=True, eq=False)
class Edge:
    """A branch: ends are nodes, points (N, 2) in meters, reach (K,) to the border along it."""

    ends: tuple[int, int]
    points: FloatArray
    reach: FloatArray

    @property
    def is_loop(self) -> bool:
        """Whether it returns to where it began."""
        return self.ends[0] == self.ends[1]

    @property
    def length(self) -> float:
        """Length of the unsmoothed points."""
        return float(np.hypot(*np.diff(self.points, axis=0).T).sum())


@dataclass(frozen=True, eq=False)
class Graph:
    """Branches between nodes; a node is a free end, a junction or any point of a plain loop.

    Attributes:
        edges: the branches.
        places: position of each node in meters.
        reach: distance of each node to the border.
    """

    edges: tuple[Edge, ...]
    places: dict[int, tuple[float, float]]
    reach: dict[int, float]

    def degrees(self) -> Counter[int]:
        """Count the branch ends at each node."""
        return Counter(end for edge in self.edges for end in edge.ends)

    def free_nodes(self) -> frozenset[int]:
        """Return the nodes where a branch ends freely."""
        return frozenset(node for node, count in self.degrees().items() if count == 1)

    def ordered_nodes(self) -> list[int]:
        """Return the nodes in use, by position."""
        return sorted(self.degrees(), key=lambda node: self.places[node])


@dataclass(frozen=True, eq=False)
class _Paths:
    """Which pixels are neighbors.

    Attributes:
        beside: neighbors of all pixels in a row, ascending; those of pixel p begin at starts[p].
        starts: as many as pixels, and the end.
        one, other: the two neighbors of a pixel of degree two.
    """

    beside: list[int]
    starts: list[int]
    one: list[int]
    other: list[int]

    @classmethod
    def of(cls, links: IntArray, count: int) -> _Paths:
        pairs = np.concatenate((links, links[:, ::-1]))
        beside = pairs[np.lexsort((pairs[:, 1], pairs[:, 0])), 1]
        starts = np.append(0, np.cumsum(np.bincount(links.ravel(), minlength=count)))
        padded = np.append(beside, (-1, -1))
        first = starts[:-1]
        lists = (beside, starts, padded[first], padded[first + 1])
        return cls(*(values.tolist() for values in lists))

    def clusters(self) -> list[list[int]]:
        """Return the pixels of each node: free ends, and connected pixels of degree 3 or more."""
        degree = np.diff(self.starts)
        is_junction = degree >= 3
        clusters, placed = [], set()
        for pixel in np.flatnonzero(degree != 2).tolist():
            if pixel in placed:
                continue
            cluster, waiting = [], [pixel]
            placed.add(pixel)
            while waiting:
                current = waiting.pop()
                cluster.append(current)
                if not is_junction[current]:
                    continue
                for other in self.around(current):
                    if is_junction[other] and other not in placed:
                        placed.add(other)
                        waiting.append(other)
            clusters.append(sorted(cluster))
        return clusters

    def around(self, pixel: int) -> list[int]:
        """Return the neighbors of a pixel."""
        return self.beside[self.starts[pixel] : self.starts[pixel + 1]]

    def walks(self, node_of: dict[int, int]) -> list[list[int]]:
        """Return the pixel paths from node to node, each once."""
        walks, used = [], set()
        for pixel, node in node_of.items():
            for beside in self.around(pixel):
                if node_of.get(beside) == node or (pixel, beside) in used:
                    continue
                walk = self.walk(node_of, pixel, beside)
                used |= {(pixel, beside), (walk[-1], walk[-2])}
                walks.append(walk)
        return walks

    def walk(self, node_of: dict[int, int], start: int, following: int) -> list[int]:
        """Return the pixels from ``start`` over ``following`` to the next one of a node."""
        one, other = self.one, self.other
        before, here = start, following
        walk = [start]
        while here not in node_of:
            walk.append(here)
            after = one[here]
            if after == before:
                after = other[here]
            before, here = here, after
        walk.append(here)
        return walk


def _edge(
    walk: list[int],
    node_of: dict[int, int],
    centers: FloatArray,
    places: FloatArray,
    reach: FloatArray,
) -> Edge:
    start, end = node_of[walk[0]], node_of[walk[-1]]
    inner = walk[1:-1]
    points = np.concatenate((centers[[start]], places[inner], centers[[end]]))
    return Edge((start, end), points, reach[walk])


def _dot(place: FloatArray, reach: float) -> Graph:
    """Make a line of almost no length along the rows of a skeleton that is a single node."""
    step = np.array([DOT_M, 0.0])
    edge = Edge((0, 1), np.array([place - step, place + step]), np.full(2, reach))
    (x, y), (x_end, y_end) = edge.points.tolist()
    return Graph((edge,), {0: (x, y), 1: (x_end, y_end)}, dict.fromkeys((0, 1), reach))


def _spurs(graph: Graph) -> set[Edge]:
    degree = graph.degrees()
    spurs = []
    for edge in graph.edges:
        one, other = sorted(edge.ends, key=lambda node: degree[node])
        is_free = degree[one] == 1 < degree[other]
        if is_free and edge.length < 2 * PRUNE_WIDTHS * graph.reach[other]:
            spurs.append(edge)
    if len(spurs) == len(graph.edges):
        spurs.remove(max(spurs, key=lambda edge: edge.length))
    return set(spurs)


def _dissolve(graph: Graph) -> Graph:
    """Join the two branches that meet at a node of degree two."""
    edges = list(graph.edges)
    at: dict[int, list[Edge]] = {}
    for edge in edges:
        for end in edge.ends:
            at.setdefault(end, []).append(edge)
    for node, around in at.items():
        if len(around) != 2 or around[0] is around[1]:
            continue
        one, other = around
        joined = _join_edges(one, other, node)
        edges = [edge for edge in edges if edge is not one and edge is not other] + [joined]
        for end in joined.ends:
            at[end] = [joined if edge in (one, other) else edge for edge in at[end]]
    return Graph(tuple(edges), graph.places, graph.reach)


def _join_edges(one: Edge, other: Edge, node: int) -> Edge:
    """Join two branches from the far end of ``one`` through ``node`` to that of ``other``."""
    first = one if one.ends[1] == node else _reverse(one)
    second = other if other.ends[0] == node else _reverse(other)
    return Edge(
        (first.ends[0], second.ends[1]),
        np.concatenate((first.points, second.points[1:])),
        np.concatenate((first.reach, second.reach[1:])),
    )


def _reverse(edge: Edge) -> Edge:
    return Edge(edge.ends[::-1], edge.points[::-1], edge.reach[::-1])
