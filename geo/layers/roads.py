"""Road lines of the user -> segments of equal length, and which segment a point lies on."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString, Polygon
from shapely.geometry.base import BaseGeometry

from geo.arrays import FloatArray
from geo.errors import InputError
from geo.grid import Grid
from geo.options import RoadOptions
from geo.vectors import LINES, Features, bring_to, read_vectors

KEY = "roads.path"
"""The setting that names the file of roads."""

_ROW = "row"
"""Name under which the number of a row travels with its shape."""

REST = 0.5
"""A shorter rest of a road, as a share of a section, is no section of its own."""

WIDEST_M, MOST_LANES = 500.0, 40
"""A road of more is an error in its column, such as widths in centimeters."""

LONGEST_M = 5e6
"""A longer road, an eighth of the way around the Earth, is an error in its coordinates."""

EDGE_M = 1e-6
"""What lies beyond the end of a line is at its end, up to the rounding of its length."""


@dataclass(frozen=True, eq=False)
class Segment:
    """A piece of a road, in the job's CRS; from_m and to_m count along its road.

    Lanes are None where nothing is known of them.
    """

    segment_id: str
    road_id: str
    name: str
    line: LineString
    from_m: float
    to_m: float
    width_m: float
    lanes: int | None = None
    surface: str = ""
    district: str = ""


def read_roads(options: RoadOptions, grid: Grid) -> tuple[Segment, ...]:
    """Read road lines, bring them into the grid's CRS and cut them into segments near the imagery.

    Sections are counted from the beginning of each road, wherever the imagery begins.

    Returns:
        The segments whose surroundings (`buffer_m`, or half their width) meet the imagery; none
        if no file of roads is given.

    Raises:
        InputError: the file cannot be read (see `geo.vectors`), lacks a named column, an id
            occurs twice or is missing, a width or number of lanes is not positive, or no road
            lies on the tiles.
    """
    if options.path is None:
        return ()
    named = {"id": options.id, "name": options.name, "width": options.width}
    named |= {"lanes": options.lanes, "surface": options.surface, "district": options.district}
    wanted = [column for column in named.values() if column is not None]
    found = read_vectors(options.path, KEY, LINES, options.layer, wanted)
    _refuse_missing(found, named)
    roads = _Roads.of(found, options)
    reach_m = max(options.buffer_m, float(roads.width_m.max()) / 2)
    rows = {**found.columns, _ROW: range(len(found))}
    near = bring_to(replace(found, columns=rows), grid, reach_m, KEY)
    reach = grid.footprint(grid.window.pad(1 + round(reach_m / min(grid.pixel_m))))
    shapely.prepare(reach)
    segments = [
        segment
        for shape, row in zip(near.shapes, near.columns[_ROW], strict=True)
        for segment in roads.segments(row, shape, reach, options.section_m, grid.unit_m)
    ]
    if not segments:
        raise InputError(
            f"nothing of {KEY}={options.path} lies on the tiles; check its coordinate system"
        )
    return tuple(segments)


def roads_digest(segments: Sequence[Segment]) -> str | None:
    """Return a hash of all that a map takes of roads; None without any."""
    rows = [vars(segment) | {"line": segment.line.wkb_hex} for segment in segments]
    return hashlib.sha256(repr(rows).encode()).hexdigest() if rows else None


@dataclass(frozen=True, eq=False)
class _Roads:
    """What the columns say of N roads.

    Attributes:
        path: of their file, for messages.
        ids, names, surfaces, districts: (N,) text.
        width_m: (N,).
        lanes: (N,) None where nothing is known.
    """

    path: Path
    ids: Sequence[str]
    names: Sequence[str]
    surfaces: Sequence[str]
    districts: Sequence[str]
    width_m: FloatArray
    lanes: Sequence[int | None]

    @classmethod
    def of(cls, found: Features, options: RoadOptions) -> _Roads:
        """Check the columns of all roads, near the imagery or not."""
        rows = range(len(found))
        lanes = _positive(found, options.lanes, MOST_LANES)
        default_m = options.default_lanes * options.lane_m
        by_lanes = np.where(np.isnan(lanes), default_m, lanes * options.lane_m)
        width_m = _positive(found, options.width, WIDEST_M)
        return cls(
            path=found.path,
            ids=[str(row) for row in rows] if options.id is None else _ids(found, options.id),
            names=_texts(found, options.name),
            surfaces=_texts(found, options.surface),
            districts=_texts(found, options.district),
            width_m=np.where(np.isnan(width_m), by_lanes, width_m),
            lanes=[None if np.isnan(count) else max(1, round(count)) for count in lanes],
        )

    def segments(
        self, row: int, shape: BaseGeometry, reach: Polygon, section_m: float | None, unit_m: float
    ) -> Iterator[Segment]:
        """Yield the sections of a road that come within reach."""
        length_m = shape.length * unit_m
        if length_m > LONGEST_M:
            raise InputError(
                f"{KEY}={self.path} has a road of {length_m / 1000:.0f} km (row {row}); correct "
                "its coordinates"
            )
        number, start = 0, 0.0
        for line in shapely.get_parts(shape):
            ruler = Ruler.of(line, unit_m)
            cuts = ruler.cuts(section_m)
            for k in ruler.near(cuts, reach):
                part = ruler.part(cuts[k], cuts[k + 1])
                if reach.intersects(part):
                    yield Segment(
                        segment_id=f"{self.ids[row]}-{number + k:03d}",
                        road_id=self.ids[row],
                        name=self.names[row],
                        line=part,
                        from_m=start + cuts[k],
                        to_m=start + cuts[k + 1],
                        width_m=float(self.width_m[row]),
                        lanes=self.lanes[row],
                        surface=self.surfaces[row],
                        district=self.districts[row],
                    )
            number += len(cuts) - 1
            start += ruler.length_m


def _refuse_missing(found: Features, named: Mapping[str, str | None]) -> None:
    for key, column in named.items():
        if column is not None and column not in found.columns:
            raise InputError(
                f"{KEY}={found.path} has no column {column} (roads.{key}); it has "
                f"{', '.join(found.names) or 'none'}"
            )


def _ids(found: Features, column: str) -> list[str]:
    """Return ids as they stand in the file.

    Raises:
        InputError: one is missing, or occurs twice.
    """
    ids = [_text(value) for value in found.columns[column]]
    without = ids.count("")
    if without:
        raise InputError(
            f"{KEY}={found.path} has {without} roads without a value in {column}; complete them"
        )
    twice = [name for name, times in Counter(ids).items() if times > 1]
    if twice:
        raise InputError(
            f"{KEY}={found.path} has ids twice in {column}, like {twice[0]}; make them unique, or "
            "leave roads.id out"
        )
    return ids


def _texts(found: Features, column: str | None) -> list[str]:
    values = [""] * len(found) if column is None else found.columns[column]
    return [_text(value).strip() for value in values]


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def _positive(found: Features, column: str | None, most: float) -> FloatArray:
    """Return (N,) numbers of a column; NaN where there is none.

    Raises:
        InputError: a value is no number above 0, or above the most.
    """
    numbers = np.full(len(found), np.nan)
    wrong = []
    for row, value in enumerate(found.columns[column] if column is not None else ()):
        if not _text(value).strip():
            continue
        try:
            numbers[row] = float(value)
        except (TypeError, ValueError, OverflowError):
            numbers[row] = np.nan
        if not 0 < numbers[row] <= most:
            wrong.append(value)
    if wrong:
        raise InputError(
            f"{KEY}={found.path} has {column}={wrong[0]} ({len(wrong)} of {len(found)} roads have "
            f"no such number); give numbers above 0, up to {most:g}, with a decimal point, or none"
        )
    return numbers


def sections(
    line: LineString, section_m: float | None, unit_m: float
) -> list[tuple[LineString, float, float]]:
    """Cut a line into parts as `Ruler.cuts` does, each with its begin and end in meters."""
    ruler = Ruler.of(line, unit_m)
    return [(ruler.part(*ends), *ends) for ends in itertools.pairwise(ruler.cuts(section_m))]


@dataclass(frozen=True, eq=False)
class Ruler:
    """A line with meters along it.

    Attributes:
        places: (V, 2) its points.
        at_m: (V,) how far along the line they lie.
        unit_m: meters in a unit of its coordinates.
    """

    places: FloatArray
    at_m: FloatArray
    unit_m: float

    @classmethod
    def of(cls, line: LineString, unit_m: float) -> Ruler:
        """Measure a line."""
        places = shapely.get_coordinates(line)
        steps = np.hypot(*np.diff(places, axis=0).T)
        return cls(places, np.append(0.0, np.cumsum(steps)) * unit_m, unit_m)

    @property
    def length_m(self) -> float:
        """Of the line."""
        return float(self.at_m[-1])

    def cuts(self, section_m: float | None) -> list[float]:
        """Return where sections begin and end; none of a line without length."""
        if self.length_m == 0:
            return [0.0]
        cuts = [0.0] if section_m is None else np.arange(0.0, self.length_m, section_m).tolist()
        if section_m is not None and len(cuts) > 1 and self.length_m - cuts[-1] < REST * section_m:
            cuts.pop()
        return [*cuts, self.length_m]

    def near(self, cuts: Sequence[float], area: Polygon) -> Iterator[int]:
        """Yield the sections that may meet an area: none reaches farther than it is long."""
        begins, lengths = np.array(cuts[:-1]), np.diff(cuts) / self.unit_m
        left, bottom, right, top = area.bounds
        x, y = self._places_at(begins).T
        meets = (x >= left - lengths) & (x <= right + lengths)
        meets &= (y >= bottom - lengths) & (y <= top + lengths)
        yield from np.flatnonzero(meets).tolist()

    def part(self, begin_m: float, end_m: float) -> LineString:
        """Return the line between two places on it."""
        low, high = np.searchsorted(self.at_m, begin_m, "right"), np.searchsorted(self.at_m, end_m)
        near = slice(max(low - 1, 0), high + 1)  # of a long line, its points are not gone through
        first, last = self._places_at(np.array([begin_m, end_m]), near)
        return LineString([first, *self.places[low:high], last])

    def _places_at(self, along_m: FloatArray, near: slice = slice(None)) -> FloatArray:
        at_m, places = self.at_m[near], self.places[near]
        return np.column_stack([np.interp(along_m, at_m, axis) for axis in places.T])


@dataclass(frozen=True, eq=False)
class Locations:
    """Where points lie on the roads, (N,) each.

    Attributes:
        segment: index of the nearest segment within half its width, -1 for none; ties go to the
            first.
        along_m: from the segment's begin.
        across_m: from its line, positive to the left.
        direction_deg: of the road there, clockwise from grid north.
    """

    segment: NDArray[np.int64]
    along_m: FloatArray
    across_m: FloatArray
    direction_deg: FloatArray


class RoadLines:
    """Lines with the reach of each, in units of their CRS: which of them a point lies on.

    Attributes:
        lines: (S,) LineStrings.
    """

    def __init__(self, lines: NDArray[np.object_], reach: FloatArray) -> None:
        self.lines, self._reach = lines, reach
        self._tree = shapely.STRtree(lines)

    def nearest(
        self, points: NDArray[np.object_]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
        """Find the nearest line among those in whose reach each point (N,) lies.

        Returns:
            Of the points that lie on a line, in order: their index, that of the line (the first
            of equals), and its distance.
        """
        farthest = float(self._reach.max(initial=0.0))
        at, line = self._tree.query(points, predicate="dwithin", distance=farthest)
        distance = shapely.distance(points[at], self.lines[line])
        near = distance <= self._reach[line]
        at, line, distance = at[near], line[near], distance[near]
        order = np.lexsort((line, distance, at))
        at, line, distance = at[order], line[order], distance[order]
        first = np.flatnonzero(np.diff(at, prepend=-1))
        return at[first], line[first], distance[first]


class RoadNetwork:
    """Segments that can be asked which of them a point lies on."""

    def __init__(self, segments: Sequence[Segment], unit_m: float) -> None:
        self.segments = tuple(segments)
        self._unit_m = unit_m
        self._roads = RoadLines(
            np.array([segment.line for segment in segments], dtype=object),
            np.array([segment.width_m for segment in segments]) / 2 / unit_m,
        )

    def locate(self, points: FloatArray) -> Locations:
        """Find the segment of each point (N, 2) in world coordinates."""
        shapes = shapely.points(points)
        at, segment, distance = self._roads.nearest(shapes)
        along, left, direction = self._along(shapes[at], segment, points[at])
        result = Locations(np.full(len(points), -1), *(np.zeros(len(points)) for _ in range(3)))
        result.segment[at] = segment
        result.along_m[at] = along * self._unit_m
        result.across_m[at] = np.where(left, distance, -distance) * self._unit_m
        result.direction_deg[at] = direction
        return result

    def beside(self, index: int, located: Locations) -> NDArray[np.bool_]:
        """Return which points (N,) lie on a segment, and beyond neither end of its line."""
        length_m = self.segments[index].line.length * self._unit_m
        own = (located.segment == index) & (located.along_m > EDGE_M)
        return np.asarray(own & (located.along_m < length_m - EDGE_M))

    def _along(
        self, shapes: NDArray[np.object_], segment: NDArray[np.int64], points: FloatArray
    ) -> tuple[FloatArray, NDArray[np.bool_], FloatArray]:
        """Return the place along the line, whether left of it, and the line's direction there."""
        lines = self._roads.lines[segment]
        along = shapely.line_locate_point(lines, shapes)
        step = 0.5 / self._unit_m
        behind = shapely.get_coordinates(
            shapely.line_interpolate_point(lines, np.maximum(along - step, 0))
        )
        ahead = shapely.get_coordinates(
            shapely.line_interpolate_point(lines, np.minimum(along + step, shapely.length(lines)))
        )
        forward, aside = ahead - behind, points - behind
        left = forward[:, 0] * aside[:, 1] - forward[:, 1] * aside[:, 0] > 0
        return along, left, np.degrees(np.arctan2(forward[:, 0], forward[:, 1]))
