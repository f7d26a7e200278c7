"""Branches of many cracks as flat arrays in whole micrometers, in an order of their own.

Linking compares distances and angles of millions of branches, block by block. In whole numbers a
sum does not depend on what else lies in the array, so that a block and the whole city find the
same links; and the order of branches follows from where they lie, so that the order in which they
were read leaves no trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from geo.arrays import BoolArray, FloatArray, IntArray
from geo.cracks.pixel_set import ramps

UM = 1_000_000
"""Micrometers in a meter: far below a pixel, and a world of 9e12 m fits into 64 bits."""

ABOVE_HALF = 0.505
"""Coordinates of 1e7 m have errors of some thousandths of a micrometer."""


@dataclass(frozen=True, eq=False)
class BranchSet:
    """N branches; end 2i is the first vertex of branch i, end 2i + 1 its last one.

    Attributes:
        vertices: (V, 2) x, y of all lines in turn, micrometers in the world.
        starts: (N + 1,) where each line begins, and the end; each has at least two vertices.
        nodes: (N, 2) number of the node at its first and last vertex. Ends with one number meet.
        is_canonical: whether it is known to be in the order of `canonical`.
    """

    vertices: IntArray
    starts: IntArray
    nodes: IntArray
    is_canonical: bool = False

    @classmethod
    def of_meters(cls, points_m: FloatArray, counts: IntArray, nodes: IntArray) -> BranchSet:
        """Make branches of lines in meters.

        Args:
            points_m: (V, 2) x, y of all lines in turn, world coordinates times the CRS's unit.
            counts: (N,) vertices of each line.
            nodes: (N, 2) numbers of their nodes, unique in the whole map.
        """
        starts = np.append(0, np.cumsum(counts)).astype(np.int64)
        vertices = round_half_up(points_m * UM).reshape(-1, 2)
        return cls(vertices, starts, nodes.astype(np.int64).reshape(-1, 2))

    @classmethod
    def of_lines(cls, lines_m: Sequence[FloatArray], nodes: IntArray) -> BranchSet:
        """Make branches of a list of lines (K, 2) in meters; see `of_meters`."""
        counts = np.array([len(line) for line in lines_m], np.int64)
        return cls.of_meters(np.concatenate([np.empty((0, 2)), *lines_m]), counts, nodes)

    def __len__(self) -> int:
        """Return number of branches."""
        return len(self.starts) - 1

    @cached_property
    def owner(self) -> IntArray:
        """(V,) branch of each vertex."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    @cached_property
    def arcs(self) -> IntArray:
        """(V,) way along its branch to each vertex, micrometers."""
        steps = np.diff(self.vertices, axis=0, prepend=self.vertices[:1])
        way = np.cumsum(norms(steps))
        return way - way[self.starts[:-1]][self.owner]

    @cached_property
    def lengths(self) -> IntArray:
        """(N,) length of each branch, micrometers."""
        return self.arcs[self.starts[1:] - 1]

    @cached_property
    def end_places(self) -> IntArray:
        """(2N, 2) x, y of the ends."""
        places: IntArray = np.stack(
            (self.vertices[self.starts[:-1]], self.vertices[self.starts[1:] - 1]), axis=1
        ).reshape(-1, 2)
        return places

    @cached_property
    def degrees(self) -> IntArray:
        """(2N,) how many ends meet at the node of each end: 1 is a free end."""
        _, number, count = np.unique(self.nodes.ravel(), return_inverse=True, return_counts=True)
        degrees: IntArray = count[number]
        return degrees

    @property
    def canonical(self) -> tuple[BranchSet, IntArray]:
        """The same branches, each from west to east and all of them in that order.

        Order and directions follow from where the branches lie alone.

        Returns:
            the branches; (2N,) for each of their ends the end of this set.
        """
        if self.is_canonical:
            return self, np.arange(2 * len(self))
        return self._in_order

    @cached_property
    def _in_order(self) -> tuple[BranchSet, IntArray]:
        backward = self._runs_backward()
        turned = self.take(np.arange(len(self)), backward)
        order = turned._order()
        backward = backward[order].astype(np.int64)
        ends = np.stack((2 * order + backward, 2 * order + 1 - backward), axis=1)
        return replace(turned.take(order), is_canonical=True), ends.ravel()

    def _runs_backward(self) -> BoolArray:
        """Return (N,) whether the line runs from east to west (or north to south)."""
        first, last = self.end_places[0::2], self.end_places[1::2]
        second, before = self.vertices[self.starts[:-1] + 1], self.vertices[self.starts[1:] - 2]
        backward, equal = np.zeros(len(self), bool), np.ones(len(self), bool)
        for one, other in ((first, last), (second, before)):  # the latter in loops
            for axis in (0, 1):
                backward |= equal & (one[:, axis] > other[:, axis])
                equal &= one[:, axis] == other[:, axis]
        return backward

    def _order(self) -> IntArray:
        """Return (N,) branches by their first end, then by their last, length and middle."""
        middle = self.at(2 * np.arange(len(self)), self.lengths // 2)
        ends = self.end_places.reshape(-1, 4)
        return np.lexsort((middle[:, 1], middle[:, 0], self.lengths, *ends.T[::-1]))

    def at(self, ends: IntArray, way: IntArray) -> IntArray:
        """Return (K, 2) points at some way (at most the length) from ends along their branches."""
        branch = ends >> 1
        along = np.where(ends & 1, self.lengths[branch] - way, way)
        low, high = self.starts[branch], self.starts[branch + 1] - 1
        while (high - low > 1).any():  # halve: the vertices before and behind the point
            middle = (low + high) >> 1
            behind = self.arcs[middle] <= along
            low, high = np.where(behind, middle, low), np.where(behind, high, middle)
        step = np.maximum(self.arcs[high] - self.arcs[low], 1)
        share = (along - self.arcs[low]) / step
        one, other = self.vertices[low], self.vertices[high]
        points: IntArray = one + np.rint((other - one) * share[:, None]).astype(np.int64)
        return points

    def take(self, chosen: IntArray, turned: BoolArray | None = None) -> BranchSet:
        """Return some of the branches, in the order in which they are named.

        Args:
            chosen: (K,) their numbers.
            turned: (K,) which of them to run the other way.
        """
        counts = self.starts[chosen + 1] - self.starts[chosen]
        starts = np.append(0, np.cumsum(counts))
        one, place = ramps(counts)
        nodes = self.nodes[chosen]
        if turned is not None:
            place = np.where(turned[one], counts[one] - 1 - place, place)
            nodes = np.where(turned[:, None], nodes[:, ::-1], nodes)
        in_order = self.is_canonical and turned is None and bool((np.diff(chosen) > 0).all())
        return BranchSet(self.vertices[self.starts[chosen][one] + place], starts, nodes, in_order)


def round_half_up(values: FloatArray) -> IntArray:
    """Round to whole numbers; what is a half but for the error of a sum goes up.

    Centers of pixels of an odd number of micrometers are halves, which depend in their last digit
    on the mosaic from whose corner they were counted.
    """
    return np.asarray(np.floor(values + ABOVE_HALF), np.int64)


def norms(steps: IntArray) -> IntArray:
    """Return (N,) lengths of vectors (N, 2), rounded to whole micrometers."""
    x, y = steps[:, 0].astype(np.float64), steps[:, 1].astype(np.float64)
    rounded: IntArray = np.rint(np.sqrt(x * x + y * y)).astype(np.int64)
    return rounded
