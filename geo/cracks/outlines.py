"""The outlines of a set of pixels: exact polygons, traced from corner to corner.

A corner is a pixel corner where the outline turns; two outlines that meet in a point have a corner
each. Sorted by column, then row, neighbors in the list are the two ends of one vertical side; by
row, then column, of one horizontal side. So sorting finds all sides of all outlines at once, and
following them gives rings, in the order and direction that GEOS calls normal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, depth_first_order

from geo.arrays import BoolArray, IntArray
from geo.cracks.pixel_set import NE, NW, SE, SW, E, N, PixelSet, S, W, firsts, ramps

_AT_NW, _AT_NE, _AT_SW, _AT_SE = 1, 2, 4, 8
"""Which of the four pixels around a point are in the set."""

_MAIN, _OTHER = _AT_NW | _AT_SE, _AT_NE | _AT_SW
"""Patterns of points where two pixels touch diagonally."""


@dataclass(frozen=True, eq=False)
class _Corners:
    """Corners by column, then row: 2 k and 2 k + 1 are the upper and lower end of side k.

    Attributes:
        col, row: of the point, counted from key 0.
        goes_right: whether the horizontal side leads to the right.
        pattern: pixels around the point.
        pixel: index of a pixel beside the point, which is the southeastern one if that is in.
    """

    col: IntArray
    row: IntArray
    goes_right: BoolArray
    pattern: NDArray[np.uint8]
    pixel: IntArray


@dataclass(frozen=True, eq=False)
class Outlines:
    """Rings of all components: components by first pixel, shells before their holes.

    Among the polygons of a component, and among the holes of a polygon, the longest ring comes
    first, then the easternmost, which is the order of GEOS.

    Attributes:
        vertices: (V, 2) col, row in the mosaic; each ring ends where it begins.
        ring_starts: (R + 1,) vertex at which each ring begins.
        part_starts: (P + 1,) ring at which each polygon begins.
        starts: (C + 1,) polygon at which each component begins.
        owner: (R,) component of each ring.
        is_hole: (R,) whether the ring is a hole.
    """

    vertices: IntArray
    ring_starts: IntArray
    part_starts: IntArray
    starts: IntArray
    owner: IntArray
    is_hole: BoolArray

    def polygons(self) -> NDArray[np.object_]:
        """Return (C,) the normalized MultiPolygon of each component."""
        offsets = (self.ring_starts, self.part_starts, self.starts)
        shapes: NDArray[np.object_] = shapely.from_ragged_array(
            shapely.GeometryType.MULTIPOLYGON, self.vertices.astype(np.float64), offsets
        )
        return shapes

    def box_areas(self) -> IntArray:
        """Return (C,) the pixels of the bounding box of each component."""
        starts = self.ring_starts[self.part_starts[self.starts[:-1]]]
        least, most = (
            extreme.reduceat(self.vertices, starts) for extreme in (np.minimum, np.maximum)
        )
        sides = most - least
        areas: IntArray = sides[:, 0] * sides[:, 1]
        return areas

    def areas(self) -> IntArray:
        """Return (R,) the pixels in each ring, with what lies in its holes."""
        x, y = self.vertices.T
        steps = np.append(x[:-1] * np.diff(y), 0)
        steps[self.ring_starts[1:] - 1] = 0  # from one ring to the next
        areas: IntArray = np.abs(np.add.reduceat(steps, self.ring_starts[:-1]))
        return areas


def outlines(pixels: PixelSet) -> Outlines:
    """Trace the 8-connected components; pixels that touch diagonally are polygons of their own.

    A component's 4-connected parts are its polygons, and the 4-connected gaps of a part are its
    holes, which is the only valid way to cut an area into rings.
    """
    corners = _corners(pixels)
    following, is_down = _next_sides(corners)
    ring_of = _rings(following)
    length = np.bincount(ring_of)
    first = firsts(ring_of, len(length))
    pixel = corners.pixel[2 * first]
    part, component, is_hole = pixels.parts[pixel], pixels.components[pixel], ~is_down[first]
    shell = np.empty(len(first) - int(is_hole.sum()), np.int64)
    shell[part[~is_hole]] = np.flatnonzero(~is_hole)
    of_part = shell[part]
    order = np.lexsort((-first, -length, is_hole, -first[of_part], -length[of_part], component))
    sides = _in_order(following, first[order], ring_of)
    owner, new_part = component[order].astype(np.int64), ~is_hole[order]
    counts = 2 * length[order]
    part_starts = np.flatnonzero(new_part)
    return Outlines(
        _vertices(corners, sides, is_down, counts, is_hole[order])
        + np.array([pixels.col_off, pixels.row_off]),
        np.append(0, np.cumsum(counts + 1)),
        np.append(part_starts, len(first)),
        np.append(0, np.cumsum(np.bincount(owner[part_starts]))),
        owner,
        is_hole[order],
    )


def _patterns(codes: NDArray[np.uint8]) -> tuple[tuple[int, NDArray[np.uint8]], ...]:
    """Return the pattern at each pixel's four points; 0 where a later pixel has the point, too.

    Each comes with the column (bit 0) and row (bit 1) of the point from the pixel's own.
    """
    every = np.arange(256)
    has = [((every >> step) & 1).astype(bool) for step in range(8)]
    nw = has[NW] * _AT_NW + has[N] * _AT_NE + has[W] * _AT_SW + _AT_SE
    ne = (has[N] * _AT_NW + has[NE] * _AT_NE + _AT_SW) * ~has[E]
    sw = (has[W] * _AT_NW + _AT_NE) * ~(has[SW] | has[S])
    se = _AT_NW * ~(has[E] | has[S] | has[SE])
    turns = np.array([n.bit_count() % 2 == 1 or n in (_MAIN, _OTHER) for n in range(16)])
    tables = [np.where(turns[table], table, 0).astype(np.uint8) for table in (nw, ne, sw, se)]
    return tuple((place, table[codes]) for place, table in enumerate(tables))


def _corners(pixels: PixelSet) -> _Corners:
    keys, patterns, owners = [], [], []
    for place, at in _patterns(pixels.codes):
        here = np.flatnonzero(at)
        keys.append(pixels.keys[here] + place % 2 + place // 2 * pixels.stride)
        patterns.append(at[here])
        owners.append(here)
    key, pattern, pixel = np.concatenate(keys), np.concatenate(patterns), np.concatenate(owners)
    right, down, twice = _directions(pixels, pattern, pixel)
    doubled = np.append(np.arange(len(key)), twice)
    key, pattern, pixel = key[doubled], pattern[doubled], pixel[doubled]
    right, down = np.append(right, ~right[twice]), np.append(down, ~down[twice])
    row, col = np.divmod(key, pixels.stride)
    height = int(row.max()) + 1 if len(row) else 1
    order = np.argsort((col * height + row) * 2 + down)
    return _Corners(col[order], row[order], right[order], pattern[order], pixel[order])


def _directions(
    pixels: PixelSet, pattern: NDArray[np.uint8], pixel: IntArray
) -> tuple[BoolArray, BoolArray, IntArray]:
    """Find where the sides lead at each corner, and the corners that share their point.

    Where two pixels of one part touch, the outline follows the gaps between them, as these are
    different gaps; where two parts touch, it follows each part.
    """
    right = np.isin(pattern, (_AT_SE, 15 - _AT_SE, _AT_NE, 15 - _AT_NE))
    down = np.isin(pattern, (_AT_SE, 15 - _AT_SE, _AT_SW, 15 - _AT_SW))
    twice = np.flatnonzero((pattern == _MAIN) | (pattern == _OTHER))
    here, main = pixel[twice], pattern[twice] == _MAIN
    step = np.where(main, pixels.steps[NW], pixels.steps[NE])
    facing = np.searchsorted(pixels.keys, pixels.keys[here] + step)
    together = pixels.parts[here] == pixels.parts[facing]
    right[twice], down[twice] = True, main != together
    return right, down, twice


def _next_sides(corners: _Corners) -> tuple[IntArray, BoolArray]:
    """Find the vertical side after each one, with the set to the left of one that leads down."""
    count, right = len(corners.col), corners.goes_right
    stride = int(corners.col.max()) + 1 if count else 1
    order = np.argsort((corners.row * stride + corners.col) * 2 + right)
    beside = np.empty(count, np.int64)
    beside[order[0::2]], beside[order[1::2]] = order[1::2], order[0::2]
    upper = np.arange(0, count, 2)
    inner = np.where(right[upper], _AT_SE, _AT_SW)  # below the upper end, on its side's side
    inside = (corners.pattern[upper] & inner) > 0
    is_down = inside == right[upper]
    return beside[upper + is_down] >> 1, is_down


def _rings(following: IntArray) -> NDArray[np.int32]:
    """Return the number of the ring of each side."""
    count = len(following)
    if not count:
        return np.zeros(0, np.int32)
    graph = csr_array((np.ones(count, np.int8), following, np.arange(count + 1)), (count, count))
    owner: NDArray[np.int32] = connected_components(graph, connection="weak")[1]
    return owner


def _in_order(following: IntArray, first: IntArray, ring_of: NDArray[np.int32]) -> IntArray:
    """Return all sides, ring after ring, each from its first side on."""
    count = len(following)
    if not count:
        return following
    before = np.empty(count, np.int64)
    before[following] = np.arange(count)
    chain = following.copy()  # cut each ring open and tie its end to the next one's beginning
    chain[before[first[:-1]]] = first[1:]
    end = before[first[-1]]
    starts = np.arange(count + 1) - (np.arange(count + 1) > end)
    graph = csr_array((np.ones(count - 1, np.int8), np.delete(chain, end), starts), (count, count))
    order = depth_first_order(graph, int(first[0]), return_predecessors=False)
    return np.asarray(order, np.int64)


def _vertices(
    corners: _Corners, sides: IntArray, is_down: BoolArray, counts: IntArray, is_hole: BoolArray
) -> IntArray:
    """Return (V, 2) col, row of the rings: both ends of each side, and the first vertex again.

    A ring begins at its topmost of the leftmost vertices, the upper end of its first side. That
    is where the side of a shell begins and that of a hole ends.
    """
    head, tail = 2 * sides + is_down[sides], 2 * sides + ~is_down[sides]
    ends = np.stack((tail, head), axis=1).ravel()
    starts = np.cumsum(counts) - counts
    ring, within = ramps(counts)
    within = (within + is_hole[ring]) % counts[ring]
    closed = np.insert(ends[starts[ring] + within], starts + counts, ends[starts + is_hole])
    return np.column_stack((corners.col[closed], corners.row[closed]))
