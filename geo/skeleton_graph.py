"""Branches and nodes of one component's pixel graph, and the pruning of its spurs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

DOT_M = 1e-6
"""Half the length of the line that stands for a skeleton of a single node."""


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
        """Number of branch ends at each node."""
        return Counter(end for edge in self.edges for end in edge.ends)

    def free_nodes(self) -> frozenset[int]:
        """Nodes where a branch ends freely."""
        return frozenset(node for node, count in self.degrees().items() if count == 1)

    def ordered_nodes(self) -> list[int]:
        """Nodes in use, by position."""
        return sorted(self.degrees(), key=lambda node: self.places[node])


def trace(places: FloatArray, links: NDArray[np.int64], reach: FloatArray) -> Graph:
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


def _dot(place: FloatArray, reach: float) -> Graph:
    """A skeleton that is a single node, made a line of no length that points along the rows."""
    step = np.array([DOT_M, 0.0])
    edge = Edge((0, 1), np.array([place - step, place + step]), np.full(2, reach))
    (x, y), (x_end, y_end) = edge.points.tolist()
    return Graph((edge,), {0: (x, y), 1: (x_end, y_end)}, dict.fromkeys((0, 1), reach))


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
    def of(cls, links: NDArray[np.int64], count: int) -> _Paths:
        pairs = np.concatenate((links, links[:, ::-1]))
        beside = pairs[np.lexsort((pairs[:, 1], pairs[:, 0])), 1]
        starts = np.append(0, np.cumsum(np.bincount(links.ravel(), minlength=count)))
        padded = np.append(beside, (-1, -1))
        first = starts[:-1]
        lists = (beside, starts, padded[first], padded[first + 1])
        return cls(*(values.tolist() for values in lists))

    def clusters(self) -> list[list[int]]:
        """Pixels that form a node: free ends, and connected pixels of degree 3 and more."""
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
        """Neighbors of a pixel."""
        return self.beside[self.starts[pixel] : self.starts[pixel + 1]]

    def walks(self, node_of: dict[int, int]) -> list[list[int]]:
        """Pixel paths from node to node, each once."""
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
        """Pixels from ``start`` by way of ``following`` to the next one that belongs to a node."""
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


def pruned(graph: Graph, widths: float) -> Graph:
    """Cut off spurs: free branches shorter than ``widths`` local widths at their junction.

    All spurs of a round go together, then nodes that only two branches share are dissolved. A
    component that is nothing but spurs keeps the longest.
    """
    graph = _dissolved(graph)
    while spurs := _spurs(graph, widths):
        kept = tuple(edge for edge in graph.edges if edge not in spurs)
        graph = _dissolved(Graph(kept, graph.places, graph.reach))
    return graph


def _spurs(graph: Graph, widths: float) -> set[Edge]:
    degree = graph.degrees()
    spurs = []
    for edge in graph.edges:
        one, other = sorted(edge.ends, key=lambda node: degree[node])
        is_free = degree[one] == 1 < degree[other]
        if is_free and edge.length < 2 * widths * graph.reach[other]:
            spurs.append(edge)
    if len(spurs) == len(graph.edges):
        spurs.remove(max(spurs, key=lambda edge: edge.length))
    return set(spurs)


def _dissolved(graph: Graph) -> Graph:
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
        joined = _joined(one, other, node)
        edges = [edge for edge in edges if edge is not one and edge is not other] + [joined]
        for end in joined.ends:
            at[end] = [joined if edge in (one, other) else edge for edge in at[end]]
    return Graph(tuple(edges), graph.places, graph.reach)


def _joined(one: Edge, other: Edge, node: int) -> Edge:
    """One branch from the far end of ``one`` through ``node`` to the far end of ``other``."""
    first = one if one.ends[1] == node else _turned(one)
    second = other if other.ends[0] == node else _turned(other)
    return Edge(
        (first.ends[0], second.ends[1]),
        np.concatenate((first.points, second.points[1:])),
        np.concatenate((first.reach, second.reach[1:])),
    )


def _turned(edge: Edge) -> Edge:
    return Edge(edge.ends[::-1], edge.points[::-1], edge.reach[::-1])
