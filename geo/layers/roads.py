"""Road lines of the user -> segments of equal length, and which segment a point lies on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString
from shapely.ops import substring

from geo.errors import InputError
from geo.grid import Grid
from geo.imagery.area import read_vectors
from geo.options import RoadOptions

FloatArray = NDArray[np.float64]

REST = 0.5
"""A shorter rest of a road, as a share of a section, is no section of its own."""


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


def read_roads(options: RoadOptions, grid: Grid) -> tuple[Segment, ...]:
    """Read road lines, bring them into the grid's CRS and cut them into segments.

    Raises:
        InputError: the file cannot be read, has no lines or no CRS, lacks a named column, an id
            occurs twice or a width is not positive.
    """
    roads = _read(options, grid)
    segments: list[Segment] = []
    for number, (_, road) in enumerate(roads.iterrows()):
        road_id = str(number) if options.id is None else _text(road[options.id])
        name = "" if options.name is None else _text(road[options.name])
        width_m, start = _width(road, options), 0.0
        pieces: list[Segment] = []
        for line in shapely.get_parts(road.geometry):
            for part, from_m, to_m in sections(line, options.section_m, grid.unit_m):
                segment_id = f"{road_id}-{len(pieces):03d}"
                piece = Segment(
                    *(segment_id, road_id, name, part, start + from_m, start + to_m, width_m),
                    lanes=_lanes(road, options),
                    surface="" if options.surface is None else _text(road[options.surface]),
                )
                pieces.append(piece)
            start += line.length * grid.unit_m
        segments += pieces
    return tuple(segments)


def _read(options: RoadOptions, grid: Grid) -> geopandas.GeoDataFrame:
    path = options.path
    assert path is not None, "no roads without a file of them"
    roads = read_vectors(path, grid.crs, "roads.path")
    wanted = [options.id, options.name, options.width, options.lanes, options.surface]
    missing = [column for column in wanted if column and column not in roads.columns]
    if missing:
        has = ", ".join(str(c) for c in roads.columns if c != roads.geometry.name)
        raise InputError(f"{path} has no column {', '.join(missing)}; it has {has}")
    roads = roads[roads.geom_type.isin(["LineString", "MultiLineString"])]
    if roads.empty:
        raise InputError(f"{path} holds no line; give the centerlines of the roads")
    if options.id is not None and roads[options.id].duplicated().any():
        twice = roads[options.id][roads[options.id].duplicated()].iloc[0]
        raise InputError(f"{path} has the id {twice} twice in {options.id}; make it unique")
    return roads


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def _width(road: Any, options: RoadOptions) -> float:
    for column, unit_m in ((options.width, 1.0), (options.lanes, options.lane_m)):
        if column is None or road[column] is None or road[column] != road[column]:
            continue
        try:
            width_m = float(road[column]) * unit_m
        except ValueError:
            width_m = -1.0
        if width_m <= 0:
            raise InputError(
                f"{options.path} has {column}={road[column]}; give a number above 0, or none"
            )
        return width_m
    return options.default_lanes * options.lane_m


def _lanes(road: Any, options: RoadOptions) -> int | None:
    """Return the number of lanes; None where no column tells it."""
    value = None if options.lanes is None else road[options.lanes]
    return None if value is None or value != value else max(1, round(float(value)))


def sections(
    line: LineString, section_m: float | None, unit_m: float
) -> list[tuple[LineString, float, float]]:
    """Cut a line into parts, each with its begin and end in meters.

    A rest below half of a part belongs to the one before.
    """
    length_m = line.length * unit_m
    if length_m == 0:
        return []
    cuts = [0.0] if section_m is None else list(np.arange(0.0, length_m, section_m))
    if section_m is not None and len(cuts) > 1 and length_m - cuts[-1] < REST * section_m:
        cuts.pop()
    ends = [*cuts[1:], length_m]
    return [
        (shapely.force_2d(substring(line, begin / unit_m, end / unit_m)), begin, end)
        for begin, end in zip(cuts, ends, strict=True)
    ]


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


class RoadNetwork:
    """Segments that can be asked which of them a point lies on."""

    def __init__(self, segments: Sequence[Segment], unit_m: float) -> None:
        self.segments = tuple(segments)
        self._unit_m = unit_m
        self._lines = np.array([segment.line for segment in segments], dtype=object)
        self._half = np.array([segment.width_m for segment in segments]) / 2 / unit_m
        self._tree = shapely.STRtree(self._lines)

    def locate(self, points: FloatArray) -> Locations:
        """Find the segment of each point (N, 2) in world coordinates."""
        shapes = shapely.points(points)
        reach = float(self._half.max(initial=0.0))
        at, segment = self._tree.query(shapes, predicate="dwithin", distance=reach)
        distance = shapely.distance(shapes[at], self._lines[segment])
        near = distance <= self._half[segment]
        at, segment, distance = at[near], segment[near], distance[near]
        order = np.lexsort((segment, distance, at))
        at, segment, distance = at[order], segment[order], distance[order]
        first = np.flatnonzero(np.diff(at, prepend=-1))
        at, segment, distance = at[first], segment[first], distance[first]
        along, left, direction = self._along(shapes[at], segment, points[at])
        result = Locations(np.full(len(points), -1), *(np.zeros(len(points)) for _ in range(3)))
        result.segment[at] = segment
        result.along_m[at] = along * self._unit_m
        result.across_m[at] = np.where(left, distance, -distance) * self._unit_m
        result.direction_deg[at] = direction
        return result

    def _along(
        self, shapes: NDArray[np.object_], segment: NDArray[np.int64], points: FloatArray
    ) -> tuple[FloatArray, NDArray[np.bool_], FloatArray]:
        """Return the place along the line, whether left of it, and the line's direction there."""
        lines = self._lines[segment]
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
