"""A set of pixels as sorted numbers: its neighbors and components cost what the set costs.

Cracks are a hundredth of a road, so nothing here touches the raster that the pixels lie in, unless
they fill a good part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geo.arrays import IntArray

FILLED = 16
"""With fewer pixels of the raster than this for each of the set, neighbors are looked up in it."""

Owner = NDArray[np.int32]
"""Number of the component of each pixel."""

E, SE, S, SW, W, NW, N, NE = range(8)
"""The eight neighbors, clockwise from the east; the opposite of k is k ^ 4."""


@dataclass(frozen=True, eq=False)
class PixelSet:
    """Pixels in raster order.

    Attributes:
        keys: (N,) ascending; the key of pixel (row, col) is row * stride + col.
        stride: at least two more than the width, so that no pixel neighbors the row before.
        row_off, col_off: place in the mosaic of the pixel with key 0.
    """

    keys: IntArray
    stride: int
    row_off: int
    col_off: int

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_], row_off: int, col_off: int) -> PixelSet:
        """Take the true pixels of an array (H, W) that lies at a place of the mosaic."""
        width = mask.shape[1]
        flat = np.flatnonzero(mask)
        keys = flat + 2 * (flat // width) + width + 3  # a free row above, a free column around
        return cls(keys, width + 2, row_off - 1, col_off - 1)

    @classmethod
    def of_places(cls, rows: IntArray, cols: IntArray) -> PixelSet:
        """Take pixels of the mosaic in any order, each once and at least one."""
        row_off, col_off = int(rows.min()) - 1, int(cols.min()) - 1
        stride = int(cols.max()) - col_off + 2
        return cls(np.sort((rows - row_off) * stride + cols - col_off), stride, row_off, col_off)

    def __len__(self) -> int:
        """Return the number of pixels."""
        return len(self.keys)

    def places(self, keys: IntArray | None = None) -> tuple[IntArray, IntArray]:
        """Return rows and columns in the mosaic of these pixels, or of others with their keys."""
        if keys is None:
            runs = self._runs
            rows = np.repeat(runs.begin // self.stride, runs.lengths)
            return rows + self.row_off, self.keys - rows * self.stride + self.col_off
        rows, cols = np.divmod(keys, self.stride)
        return rows + self.row_off, cols + self.col_off

    def keys_of(self, rows: IntArray, cols: IntArray) -> IntArray:
        """Return the keys of pixels of the mosaic."""
        return (rows - self.row_off) * self.stride + cols - self.col_off

    def with_keys(self, keys: IntArray) -> PixelSet:
        """Return other pixels with the same keys; ``keys`` ascend."""
        return PixelSet(keys, self.stride, self.row_off, self.col_off)

    def with_codes(self, codes: NDArray[np.uint8], parts: Owner, components: Owner) -> PixelSet:
        """Return these pixels as the border of a larger set, of which they know their places.

        Args:
            codes: (N,) of each in the larger set.
            parts: (N,) the same.
            components: (N,) the same.
        """
        border = self.with_keys(self.keys)
        border.__dict__.update(codes=codes, _regions=(parts, components))
        return border

    @property
    def steps(self) -> tuple[int, ...]:
        """From a key to those of its eight neighbors."""
        down = self.stride
        return 1, down + 1, down, down - 1, -1, -down - 1, -down, -down + 1

    @cached_property
    def neighbors(self) -> NDArray[np.int32]:
        """(8, N) index of each neighbor in the set; N where it is not in it."""
        table = np.full((8, len(self)), len(self), np.int32)
        for step, (here, there) in self._pairs.items():
            table[step, here] = there
            table[step ^ 4, there] = here
        return table

    @cached_property
    def codes(self) -> NDArray[np.uint8]:
        """(N,) which neighbors are in the set: bit k for neighbor k."""
        codes = np.zeros(len(self), np.uint8)
        if len(self) and self.keys[-1] < FILLED * len(self):
            margin = self.stride + 1
            is_in = np.zeros(self.keys[-1] + 2 * margin + 1, np.uint8)
            is_in[self.keys + margin] = 1
            for number, step in enumerate(self.steps):
                codes |= is_in[self.keys + (margin + step)] << np.uint8(number)
            return codes
        for step, (here, there) in self._pairs.items():
            codes[here] |= np.uint8(1 << step)
            codes[there] |= np.uint8(1 << (step ^ 4))
        return codes

    @cached_property
    def _pairs(self) -> dict[int, tuple[Owner, Owner]]:
        """Indices of the pixels with a neighbor in one direction, and of these neighbors."""
        runs, last = self._runs, len(self) - 1
        first_below = runs.lower_bound(self.keys + self.stride)

        def pairs(step: int, candidate: IntArray) -> tuple[Owner, Owner]:
            bounded = np.minimum(candidate, last)
            here = np.flatnonzero(self.keys[bounded] == self.keys + self.steps[step])
            return here.astype(np.int32), bounded[here].astype(np.int32)

        straight = pairs(S, first_below)
        behind = first_below.copy()
        behind[straight[0]] += 1
        beside = np.flatnonzero(np.diff(self.keys) == 1).astype(np.int32)
        return {
            E: (beside, beside + np.int32(1)),
            S: straight,
            SW: pairs(SW, first_below - 1),
            SE: pairs(SE, behind),
        }

    @cached_property
    def _runs(self) -> _Runs:
        first = np.flatnonzero(np.diff(self.keys, prepend=-2) != 1)
        return _Runs(self.keys[first], np.append(first, len(self)))

    @cached_property
    def _regions(self) -> tuple[Owner, Owner]:
        """4-connected and 8-connected component of each pixel."""
        runs = self._runs
        found = []
        for reach in (0, 1):
            one, other = runs.touching(self.stride, reach)
            found.append(np.repeat(graph_components(one, other, len(runs.begin)), runs.lengths))
        return found[0], found[1]

    @property
    def parts(self) -> Owner:
        """(N,) number of each pixel's 4-connected component, by first pixel."""
        return self._regions[0]

    @property
    def components(self) -> Owner:
        """(N,) number of each pixel's 8-connected component, by first pixel."""
        return self._regions[1]


@dataclass(frozen=True, eq=False)
class _Runs:
    """Pixels in a row without a gap, R of them; a pixel alone is one.

    Attributes:
        begin: (R,) key of the first pixel of each.
        first: (R + 1,) its index, and at last the number of pixels.
    """

    begin: IntArray
    first: IntArray

    @property
    def lengths(self) -> IntArray:
        """(R,) pixels of each."""
        return np.diff(self.first)

    def lower_bound(self, keys: IntArray) -> IntArray:
        """Return the first pixel with each key or a higher one; no key is below the first."""
        run = np.searchsorted(self.begin, keys, "right") - 1
        within: IntArray = np.minimum(keys - self.begin[run], self.lengths[run])
        return self.first[run] + within

    def touching(self, stride: int, reach: int) -> tuple[IntArray, IntArray]:
        """Return pairs of runs of which one lies in the row below the other.

        Args:
            stride: from a key to that of the pixel below.
            reach: 0 for runs that share a side, 1 also for those that touch in a corner.
        """
        end = self.begin + self.lengths
        low = np.searchsorted(end, self.begin + stride - reach, "right")
        high = np.searchsorted(self.begin, end + stride + reach)
        index, within = ramps(np.maximum(high - low, 0))
        return index, low[index] + within


def firsts(owner: NDArray[np.integer], count: int) -> IntArray:
    """Find the index (count,) at which each number first occurs in ``owner``; each occurs."""
    first = np.empty(count, np.int64)
    first[owner[::-1]] = np.arange(len(owner) - 1, -1, -1)
    return first


def graph_components(one: IntArray, other: IntArray, count: int) -> Owner:
    """Return the component (count,) of each node; components count by their first node."""
    if not len(one):
        return np.arange(count, dtype=np.int32)
    graph = coo_array((np.ones(len(one), np.int8), (one, other)), (count, count)).tocsr()
    number, owner = connected_components(graph, directed=False)
    rank = np.empty(number, np.int32)
    rank[np.argsort(firsts(owner, number))] = np.arange(number, dtype=np.int32)
    owners: Owner = rank[owner]
    return owners


@dataclass(frozen=True, eq=False)
class AreaPixels:
    """Pixels (N,) row, col in the mosaic, and the number of the area that each lies in."""

    rows: IntArray
    cols: IntArray
    owner: IntArray


def pixels_in_rings(
    vertices: NDArray[np.number], ring_starts: IntArray, owner: IntArray
) -> AreaPixels:
    """Find the pixels inside rings on pixel borders: in each row, between its odd and even sides.

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
    side, within = ramps(height)
    areas = np.repeat(owner, np.diff(ring_starts))
    crossing = np.column_stack((areas[side], top[side] + within, col[side]))
    crossing = crossing[np.lexsort((crossing[:, 2], crossing[:, 1], crossing[:, 0]))]
    run, within = ramps(crossing[1::2, 2] - crossing[0::2, 2])
    area, row_of, col_of = crossing[0::2][run].T
    return AreaPixels(row_of, col_of + within, area)


def pixels_of_each(geometries: NDArray[np.object_]) -> AreaPixels:
    """Return the pixels of polygons in mosaic pixel coordinates, numbered as they are given."""
    _, vertices, (ring_starts, part_starts, starts) = shapely.to_ragged_array(geometries)
    of_part = np.repeat(np.arange(len(geometries)), np.diff(starts))
    return pixels_in_rings(vertices, ring_starts, np.repeat(of_part, np.diff(part_starts)))


def pixels_of(geometry: shapely.MultiPolygon) -> IntArray:
    """Return (N, 2) mosaic row, col of a polygon's pixels."""
    found = pixels_of_each(np.array([geometry], dtype=object))
    return np.column_stack((found.rows, found.cols))


def ramps(lengths: IntArray) -> tuple[IntArray, IntArray]:
    """Return the index of each of many ramps 0, 1, ... of given lengths, and its values."""
    index = np.repeat(np.arange(len(lengths)), lengths)
    return index, np.arange(len(index)) - (np.cumsum(lengths) - lengths)[index]
