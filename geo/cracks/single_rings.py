"""Outlines of one ring as points: from their WKB and back, without making shapes of them.

Nearly all pieces have one, and a shape costs more than what is done with it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geo.arrays import BoolArray, FloatArray, IntArray

_HEAD = struct.pack("<BIIBII", 1, 6, 1, 1, 3, 1)
"""The WKB of a MultiPolygon of one Polygon of one ring begins so; the number of points follows."""

_POINTS_AT = len(_HEAD) + 4

_POINT = 16
"""Bytes of one."""

AT_ONCE = 1000
"""Outlines whose points stay in the processor's memory: with ten times as many all takes longer."""

LEAST_POINTS = 4
"""Of a ring, whose last point is its first."""


@dataclass(frozen=True, eq=False)
class SingleRings:
    """The R of N outlines that have one ring.

    Attributes:
        chosen: (N,) which.
        points: (V, 2) ring after ring.
        counts: (R,) points of each.
    """

    chosen: BoolArray
    points: FloatArray
    counts: IntArray

    @classmethod
    def of(cls, outlines: pa.BinaryArray) -> SingleRings:
        """Look through WKB (N,) without gaps; what is damaged has no single ring."""
        _, ends, content = outlines.buffers()
        offsets = np.frombuffer(ends, np.int32)[outlines.offset :][: len(outlines) + 1]
        view = memoryview(content or b"")
        data = np.frombuffer(view, np.uint8)
        counts, rest = np.divmod(np.diff(offsets) - _POINTS_AT, _POINT)
        chosen = (rest == 0) & (counts >= LEAST_POINTS)
        begin, end = offsets[:-1][chosen], offsets[1:][chosen]

        def bytes_at(place: NDArray[np.int32], size: int) -> NDArray[np.uint8]:
            found: NDArray[np.uint8] = data[place[:, None] + np.arange(size)]
            return found

        same = (bytes_at(begin, len(_HEAD)) == np.frombuffer(_HEAD, np.uint8)).all(axis=1)
        vertices = bytes_at(begin + len(_HEAD), 4).view("<u4").ravel()
        first, last = bytes_at(begin + _POINTS_AT, _POINT), bytes_at(end - _POINT, _POINT)
        same &= (vertices == counts[chosen]) & (first == last).all(axis=1)
        chosen[chosen] = same
        places = zip((begin[same] + _POINTS_AT).tolist(), end[same].tolist(), strict=True)
        points = np.frombuffer(b"".join([view[a:b] for a, b in places]))
        return cls(chosen, points.reshape(-1, 2), counts[chosen].astype(np.int64))

    @property
    def owner(self) -> IntArray:
        """(V,) ring of each point."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


def a_few_at_once(outlines: pa.BinaryArray) -> Iterator[pa.BinaryArray]:
    """Yield all of them, at least once."""
    for start in range(0, max(len(outlines), 1), AT_ONCE):
        yield outlines.slice(start, AT_ONCE)


def wkb_of_rings(points: FloatArray, counts: IntArray) -> list[bytes]:
    """Return the WKB of a MultiPolygon of each ring, as GEOS writes it.

    Args:
        points: (V, 2) ring after ring; each ends where it begins.
        counts: (R,) points of each.
    """
    view = memoryview(np.ascontiguousarray(points, "<f8").tobytes())
    ends = (_POINT * np.cumsum(counts)).tolist()
    return [
        _HEAD + struct.pack("<I", n) + view[end - _POINT * n : end]
        for n, end in zip(counts.tolist(), ends, strict=True)
    ]
