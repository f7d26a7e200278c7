"""What a comparison takes of a map: lines, areas, what was inspected; all in meters."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
ShapeArray = NDArray[np.object_]

LINES_AT_ONCE = 10_000
"""Lines that are cut together: some 100 MB."""

TANGENT_M = 0.1
"""Half the chord that gives a line its direction: shorter ones follow the pixels."""


@dataclass(frozen=True, eq=False)
class Survey:
    """One survey.

    Attributes:
        crack_ids: (N,) text.
        cracks: (N,) MultiLineStrings in meters; parts in order along the crack.
        width_mm: (N,) mean width, nan where it was not measured.
        network_ids: (M,) text.
        networks: (M,) MultiPolygons.
        inspected: the ground that was seen.
        gsd_m: coarsest pixels.
    """

    crack_ids: NDArray[np.object_]
    cracks: ShapeArray
    width_mm: FloatArray
    network_ids: NDArray[np.object_]
    networks: ShapeArray
    inspected: shapely.Geometry
    gsd_m: float

    @property
    def length_m(self) -> float:
        """Meters of cracks outside networks, gaps left out."""
        return float(shapely.length(self.cracks).sum())


@dataclass(frozen=True, eq=False)
class Samples:
    """Points along cracks, crack by crack and in order; N points of K cracks.

    Attributes:
        xy: (N, 2) middle of the piece of line that a point stands for.
        tangent: (N, 2) unit vector along the line.
        length_m: (N,) of that piece.
        gap_m: (N,) from the end of that piece to the next part of its crack; 0 within a part.
        crack: (N,) index of the crack.
        part: (N,) index of the part, over all cracks.
    """

    xy: FloatArray
    tangent: FloatArray
    length_m: FloatArray
    gap_m: FloatArray
    crack: IntArray
    part: IntArray

    def __len__(self) -> int:
        return len(self.xy)

    def moved(self, shift: FloatArray) -> Samples:
        """Return the same samples elsewhere; shift (N, 2)."""
        return replace(self, xy=self.xy + shift)


def sums(index: IntArray, values: FloatArray, count: int) -> FloatArray:
    """(count,) sum of the values of each index."""
    return np.bincount(index, values, minlength=count).astype(np.float64)


def sample_lines(lines: ShapeArray, step_m: float) -> Samples:
    """Cut lines into pieces of equal length, at most ``step_m``, and take their middles.

    The pieces of a line add up to its length. Parts without length are left out.

    Args:
        lines: (K,) LineStrings or MultiLineStrings in meters.
        step_m: longest piece.
    """
    runs = range(0, len(lines), LINES_AT_ONCE)
    found = [_sampled(lines[low : low + LINES_AT_ONCE], step_m) for low in runs] or [_nothing()]
    parts = np.cumsum([0, *(int(one.part.max(initial=-1)) + 1 for one in found)])
    return Samples(
        xy=np.concatenate([one.xy for one in found]),
        tangent=np.concatenate([one.tangent for one in found]),
        length_m=np.concatenate([one.length_m for one in found]),
        gap_m=np.concatenate([one.gap_m for one in found]),
        crack=np.concatenate([one.crack + LINES_AT_ONCE * k for k, one in enumerate(found)]),
        part=np.concatenate([one.part + parts[k] for k, one in enumerate(found)]),
    )


def _nothing() -> Samples:
    none = np.empty(0, np.int64)
    return Samples(np.empty((0, 2)), np.empty((0, 2)), np.empty(0), np.empty(0), none, none)


def _sampled(lines: ShapeArray, step_m: float) -> Samples:
    """Sample a few lines, see `sample_lines`."""
    parts, crack = shapely.get_parts(lines, return_index=True)
    length = shapely.length(parts)
    parts, crack, length = parts[length > 0], crack[length > 0], length[length > 0]
    if not len(parts):
        return _nothing()
    coords, owner = shapely.get_coordinates(parts, return_index=True)
    inner = np.diff(owner, prepend=-1) == 0
    steps = np.hypot(*np.diff(coords, axis=0, prepend=coords[:1]).T)
    arc = np.cumsum(np.where(inner, steps, 0.0))
    starts = arc[~inner]
    count = np.ceil(length / step_m - 1e-9).astype(np.int64).clip(1)
    part = np.repeat(np.arange(len(parts)), count)
    piece = (length / count)[part]
    within = np.arange(len(part)) - np.repeat(np.cumsum(count) - count, count)
    along = starts[part] + (within + 0.5) * piece

    def at(place: FloatArray) -> FloatArray:
        return np.column_stack([np.interp(place, arc, axis) for axis in coords.T])

    margin = np.minimum(1e-6, length[part] / 4)  # on the very end the next part would begin
    low = np.maximum(along - TANGENT_M, starts[part] + margin)
    high = np.minimum(along + TANGENT_M, starts[part] + length[part] - margin)
    chord = at(high) - at(low)
    norm = np.hypot(*chord.T)
    tangent = np.divide(chord, norm[:, None], out=np.ones_like(chord), where=norm[:, None] > 0)
    return Samples(at(along), tangent, piece, _gaps(coords, owner, part, crack), crack[part], part)


def _gaps(coords: FloatArray, owner: IntArray, part: IntArray, crack: IntArray) -> FloatArray:
    """Gap after each sample: nonzero only after the last one of a part that has a successor."""
    last = np.append(np.flatnonzero(np.diff(owner)), len(owner) - 1)
    first = np.append(0, last[:-1] + 1)
    between = np.zeros(len(last))
    between[:-1] = np.hypot(*(coords[first[1:]] - coords[last[:-1]]).T)
    between[:-1][np.diff(crack) != 0] = 0.0
    gaps = np.zeros(len(part))
    gaps[np.append(np.flatnonzero(np.diff(part)), len(part) - 1)] = between
    return gaps
