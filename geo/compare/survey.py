"""What a comparison takes of a map: lines, areas, what was inspected; all in meters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from geo.arrays import FloatArray, IntArray, Shapes
from geo.cracks.pixel_set import ramps

LINES_AT_ONCE = 10_000
"""Lines that are cut, or are geometries, at one time: some 50 MB."""

TANGENT_M = 0.1
"""Half the chord that gives a line its direction: shorter ones follow the pixels."""


@dataclass(frozen=True, eq=False)
class Lines:
    """K multi-part lines as plain arrays: a third of the memory of geometries.

    Attributes:
        points: (V, 2) vertices, part by part.
        part_starts: (P + 1,) vertex at which each part begins.
        starts: (K + 1,) part at which each line begins.
    """

    points: FloatArray
    part_starts: IntArray
    starts: IntArray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def of(cls, shapes: Shapes) -> Lines:
        """Take (Multi)LineStrings (K,)."""
        groups = []
        for low in range(0, len(shapes), LINES_AT_ONCE):
            parts, owner = shapely.get_parts(shapes[low : low + LINES_AT_ONCE], return_index=True)
            sizes = shapely.get_num_coordinates(parts)
            owner, sizes = owner[sizes > 0], sizes[sizes > 0]
            points = shapely.get_coordinates(parts)
            each = cls(points, np.append(0, np.cumsum(sizes)), np.arange(len(sizes) + 1))
            groups.append((each, owner + low))
        return cls.join(groups, len(shapes))

    @classmethod
    def join(cls, groups: Sequence[tuple[Lines, IntArray]], count: int) -> Lines:
        """Put lines together that have one number.

        Args:
            groups: lines (K,) and the number (K,) of each, below ``count``.
            count: of numbers.
        """
        nothing = np.empty(0, np.int64)
        owners = [np.repeat(numbers, np.diff(one.starts)) for one, numbers in groups]
        owner = np.concatenate([nothing, *owners])
        sizes = np.concatenate([nothing, *(np.diff(one.part_starts) for one, _ in groups)])
        points = np.concatenate([np.empty((0, 2)), *(one.points for one, _ in groups)])
        starts = np.append(0, np.cumsum(np.bincount(owner, minlength=count)))
        if (np.diff(owner) >= 0).all():
            return cls(points, np.append(0, np.cumsum(sizes)), starts)
        order = np.argsort(owner, kind="stable")
        begins = (np.cumsum(sizes) - sizes)[order]
        sizes = sizes[order]
        part_starts = np.append(0, np.cumsum(sizes))
        vertex = np.arange(part_starts[-1]) + np.repeat(begins - part_starts[:-1], sizes)
        return cls(points[vertex], part_starts, starts)

    def some(self) -> Iterator[Lines]:
        """Yield them all, `LINES_AT_ONCE` at a time."""
        for low in range(0, len(self), LINES_AT_ONCE):
            starts = self.starts[low : low + LINES_AT_ONCE + 1]
            parts = self.part_starts[starts[0] : starts[-1] + 1]
            points = self.points[parts[0] : parts[-1]]
            yield Lines(points, parts - parts[0], starts - starts[0])

    def shapes(self) -> Iterator[Shapes]:
        """Yield the MultiLineStrings, `LINES_AT_ONCE` at a time."""
        kind = shapely.GeometryType.MULTILINESTRING
        for one in self.some():
            yield shapely.from_ragged_array(kind, one.points, (one.part_starts, one.starts))

    @property
    def steps_m(self) -> FloatArray:
        """(V,) way to each vertex from the one before it in its part."""
        steps: FloatArray = np.hypot(*np.diff(self.points, axis=0, prepend=self.points[:1]).T)
        steps[self.part_starts[:-1]] = 0.0
        return steps


@dataclass(frozen=True, eq=False)
class Survey:
    """One survey.

    Attributes:
        crack_ids: (N,) text.
        cracks: (N,) lines in meters; parts in order along the crack. None `without_lines`.
        width_mm: (N,) mean width, nan where it was not measured.
        network_ids: (M,) text.
        networks: (M,) MultiPolygons.
        inspected: the ground that was seen.
        gsd_m: coarsest pixels.
    """

    crack_ids: NDArray[np.object_]
    cracks: Lines
    width_mm: FloatArray
    network_ids: NDArray[np.object_]
    networks: Shapes
    inspected: shapely.Geometry
    gsd_m: float

    def __len__(self) -> int:
        """Return number of cracks."""
        return len(self.crack_ids)

    def without_lines(self) -> Survey:
        """Return what is left to know of a survey once its cracks were sampled."""
        nothing = np.empty((0, 2)), np.zeros(1, np.int64), np.zeros(1, np.int64)
        return replace(self, cracks=Lines(*nothing))

    @property
    def length_m(self) -> float:
        """Meters of cracks outside networks, gaps left out."""
        return float(self.cracks.steps_m.sum())


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

    @classmethod
    def empty(cls, count: int) -> Samples:
        """Return room for so many."""
        xy, tangent = np.empty((count, 2)), np.empty((count, 2))
        length_m, gap_m = np.empty(count), np.empty(count)
        crack, part = np.empty(count, np.int64), np.empty(count, np.int64)
        return cls(xy, tangent, length_m, gap_m, crack, part)

    def move(self, shift: FloatArray) -> Samples:
        """Return the same samples elsewhere; shift (N, 2)."""
        return replace(self, xy=self.xy + shift)


def sums(index: IntArray, values: FloatArray, count: int) -> FloatArray:
    """Return (count,) sum of the values of each index."""
    return np.bincount(index, values, minlength=count).astype(np.float64)


def sample_lines(lines: Lines, step_m: float) -> Samples:
    """Cut lines into pieces of equal length, at most ``step_m``, and take their middles.

    The pieces of a line add up to its length. Parts without length are left out.

    Args:
        lines: K lines in meters.
        step_m: longest piece.
    """
    total = sum(int(_Parts.of(some, step_m).pieces.sum()) for some in lines.some())
    whole = Samples.empty(total)  # filled in turn: the samples are much of what a comparison holds
    low = n_parts = 0
    for number, some in enumerate(lines.some()):
        parts = _Parts.of(some, step_m)
        found = _sample(parts)
        here = slice(low, low + len(found))
        for name in ("xy", "tangent", "length_m", "gap_m"):
            getattr(whole, name)[here] = getattr(found, name)
        whole.crack[here] = found.crack + LINES_AT_ONCE * number
        whole.part[here] = found.part + n_parts
        low, n_parts = here.stop, n_parts + len(parts.pieces)
    return whole


@dataclass(frozen=True, eq=False)
class _Parts:
    """P parts of lines that have a length.

    Attributes:
        points: (V, 2) vertices, part by part.
        steps_m: (V,) way to each vertex from the one before it in its part.
        counts: (P,) vertices.
        crack: (P,) index of the line.
        length_m: (P,).
        pieces: (P,) of equal length into which each is cut.
    """

    points: FloatArray
    steps_m: FloatArray
    counts: IntArray
    crack: IntArray
    length_m: FloatArray
    pieces: IntArray

    @classmethod
    def of(cls, lines: Lines, step_m: float) -> _Parts:
        """Take the parts of lines, and cut them into pieces of at most ``step_m``."""
        points, steps, counts = lines.points, lines.steps_m, np.diff(lines.part_starts)
        crack = np.repeat(np.arange(len(lines)), np.diff(lines.starts))
        length = np.add.reduceat(steps, lines.part_starts[:-1]) if len(counts) else np.empty(0)
        long = length > 0
        if not long.all():
            there = np.repeat(long, counts)
            points, steps = points[there], steps[there]
            counts, crack, length = counts[long], crack[long], length[long]
        pieces = np.ceil(length / step_m - 1e-9).astype(np.int64).clip(1)
        return cls(points, steps, counts, crack, length, pieces)


def _sample(parts: _Parts) -> Samples:
    """Sample a few lines, see `sample_lines`."""
    coords, counts, count, length = parts.points, parts.counts, parts.pieces, parts.length_m
    if not len(counts):
        return Samples.empty(0)
    owner = np.repeat(np.arange(len(counts)), counts)
    arc = np.cumsum(parts.steps_m)
    starts = arc[np.cumsum(counts) - counts]
    part, within = ramps(count)
    piece = (length / count)[part]
    along = starts[part] + (within + 0.5) * piece

    def at(place: FloatArray) -> FloatArray:
        return np.column_stack([np.interp(place, arc, axis) for axis in coords.T])

    margin = np.minimum(1e-6, length[part] / 4)  # on the very end the next part would begin
    low = np.maximum(along - TANGENT_M, starts[part] + margin)
    high = np.minimum(along + TANGENT_M, starts[part] + length[part] - margin)
    chord = at(high) - at(low)
    norm = np.hypot(*chord.T)
    tangent = np.divide(chord, norm[:, None], out=np.ones_like(chord), where=norm[:, None] > 0)
    gaps = _gaps(coords, owner, part, parts.crack)
    return Samples(at(along), tangent, piece, gaps, parts.crack[part], part)


def _gaps(coords: FloatArray, owner: IntArray, part: IntArray, crack: IntArray) -> FloatArray:
    """Return the gap after each sample: nonzero only after the last of a part with a successor."""
    last = np.append(np.flatnonzero(np.diff(owner)), len(owner) - 1)
    first = np.append(0, last[:-1] + 1)
    between = np.zeros(len(last))
    between[:-1] = np.hypot(*(coords[first[1:]] - coords[last[:-1]]).T)
    between[:-1][np.diff(crack) != 0] = 0.0
    gaps = np.zeros(len(part))
    gaps[np.append(np.flatnonzero(np.diff(part)), len(part) - 1)] = between
    return gaps
