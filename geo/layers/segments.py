"""Cracks gathered per road segment: coverage, sums and cells.

Each place on a centerline belongs to the nearest road line within half its width, and a crack's
length is shared out like that. So the sums over all segments plus what lies on no road are the
totals. Cells are those of the German ZTV ZEB-StB, thirds of lanes: a cell with any crack counts,
the percentage of cells is the figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geo.arrays import FloatArray, IntArray
from geo.cracks.branches import UM
from geo.cracks.pixel_set import ramps
from geo.grid import Grid
from geo.imagery.coverage import CoverageMap
from geo.layers.classes import D6433_CLASSES, TYPES, crack_types
from geo.layers.crack_width import width_p95
from geo.layers.roads import Locations, RoadNetwork, Segment, sections
from geo.layers.whole_map import CrackMap
from geo.options import TypeOptions

SAMPLES_AT_ONCE = 1_000_000
"""Places on cracks that are located together."""

BRANCHES_AT_ONCE = 100_000
"""Branches in networks, likewise."""

STEP_M = 0.05
"""Distance of these places, along centerlines and in the areas of networks."""

PLACES_AT_ONCE = 1_000_000
"""Of the bounding box of a network, likewise."""

STRIDE_M = 50.0
"""Length of road whose coverage is looked up at once."""

CELL_M = 1.0

THIRDS = 3

UNITS = 2.0**36
"""What is added for a segment is rounded to such parts of a meter: sums up to 130 km are exact, and
so the same in whatever order the parts of a map come."""

SEEN_SHARE = 0.5
"""A cell of which less was seen counts only if a crack was found in it."""


@dataclass(frozen=True, eq=False)
class Assignments:
    """Types (K,) of cracks, and segments of cracks (K,) and networks (M,); None if on no road."""

    types: NDArray[np.object_]
    cracks: NDArray[np.object_]
    networks: NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class _Samples:
    """Places on cracks that lie on a road, (P,) each.

    Attributes:
        branch, crack, segment: their numbers.
        direction_deg: of the road there.
        meters: of line that each stands for.
    """

    branch: IntArray
    crack: IntArray
    segment: IntArray
    direction_deg: FloatArray
    meters: FloatArray


class RoadSurvey:
    """Adds up cracks and networks on a road network.

    Attributes:
        sums: per segment, by the names of the columns of road_segment.
        cells: of each segment.
    """

    def __init__(
        self, network: RoadNetwork, grid: Grid, options: TypeOptions, lane_m: float
    ) -> None:
        self._network, self._grid, self._options = network, grid, options
        self._count = len(network.segments)
        self.sums: dict[str, FloatArray] = {}
        self.cells = [SurveyCells.of(segment, lane_m) for segment in network.segments]
        self._widths: list[FloatArray] = [np.empty((3, 0))]
        self._crack_m = 0.0

    @property
    def segments(self) -> Sequence[Segment]:
        """Of the network."""
        return self._network.segments

    def total(self, name: str) -> FloatArray:
        """Return (S,) a sum of each segment; 0 where nothing was added."""
        return self.sums.get(name, np.zeros(self._count))

    @property
    def unassigned_m(self) -> float:
        """Crack length on no road."""
        return self._crack_m - float(self.total("crack_length_m").sum())

    def state(self) -> dict[str, Any]:
        """Return all that was added, as `add_state` takes it."""
        hits = [np.argwhere(cells.marks) for cells in self.cells]
        owner = np.repeat(np.arange(len(hits)), [len(places) for places in hits])
        return {
            "crack_m": np.array(self._crack_m),
            "widths": np.concatenate(self._widths, axis=1),
            "hits": np.column_stack((owner, np.concatenate([np.empty((0, 2), np.int64), *hits]))),
            **{f"sum_{name}": values for name, values in self.sums.items()},
        }

    def add_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Add what another survey of the same roads has taken in."""
        self._crack_m += float(state["crack_m"])
        self._widths.append(state["widths"])
        for index, row, col in state["hits"].tolist():
            self.cells[index].marks[row, col] = True
        for name in state:
            if name.startswith("sum_"):
                own = name.removeprefix("sum_")
                self.sums[own] = self.total(own) + state[name]

    def add(self, found: CrackMap) -> Assignments:
        """Share cracks and networks out over the segments and name the types of cracks.

        May be called for several parts of a map.
        """
        count, length_m, kept = found.n_cracks, found.length_m, found.kept
        turns = found.chains.orientation_deg(found.lines)
        types, home = np.full(count, "unknown", object), np.full(count, -1)
        for run in _runs(found):
            on = self._locate(found, run)
            own = np.unique(on.crack)
            road_deg = axial_mean(on.crack, on.direction_deg, on.meters, count)[own]
            types[own] = crack_types(turns[own], length_m[own], road_deg, self._options)
            home[own] = _largest(on.crack, on.segment, on.meters, count)[own]
            self._share(found, on, types)
        for name, chosen in (("crack", kept), ("transverse", kept & (types == "transverse"))):
            self._add(f"{name}_count", home[chosen & (home >= 0)])
        self._crack_m += float(_countable(length_m[kept]).sum())
        areas = np.array([self._add_network(area) for area in found.networks.outlines], np.int64)
        inside = np.flatnonzero(found.owner >= count)
        for start in range(0, len(inside), BRANCHES_AT_ONCE):
            self._locate(found, inside[start : start + BRANCHES_AT_ONCE])
        names = np.array([*(s.segment_id for s in self.segments), None], dtype=object)
        return Assignments(types, names[home], names[areas])

    def survey(self, coverage: CoverageMap) -> None:
        """Look up how much of each segment was seen; once, after the cracks.

        The ground of a segment ends square at the ends of its line: the half circle beyond the
        end of a road takes cracks in, but is no ground that had to be seen.
        """
        cell_m2 = coverage.side**2 * self._grid.pixel_area_m2
        for index, segment in enumerate(self.segments):
            for line, from_m, to_m in sections(segment.line, STRIDE_M, self._grid.unit_m):
                points, share = self._cells_beside(line, segment.width_m, coverage)
                located = self._network.locate(points)
                own = self._network.beside(index, located)
                own &= (located.along_m >= from_m) & (located.along_m < to_m)
                here = np.full(int(own.sum()), index)
                self._add("area_m2", here, np.full(len(here), cell_m2))
                self._add("surveyed_area_m2", here, cell_m2 * share[own])
                self.cells[index].see(located.along_m[own], located.across_m[own], share[own])

    def width_p95_mm(self) -> FloatArray:
        """Return (S,) width exceeded on 5 % of the line with a width; nan where there is none."""
        segment, width, meters = np.concatenate(self._widths, axis=1)
        return width_p95(width, meters, segment.astype(np.int64), self._count)

    def _add(self, name: str, segment: IntArray, values: FloatArray | None = None) -> None:
        added = np.bincount(segment, values, self._count)
        self.sums[name] = self.total(name) + added

    def _locate(self, found: CrackMap, run: IntArray) -> _Samples:
        """Sample branches; mark the cells that they hit, keep what lies on a road."""
        lines = found.branches.lines
        length = lines.lengths[run]
        count = np.maximum(np.ceil(length / (STEP_M * UM)).astype(np.int64), 1)
        owner, step = ramps(count)
        branch = run[owner]
        way = lines.lengths[branch] * (2 * step + 1) // (2 * count[owner])
        points = lines.at(2 * branch, way) / (UM * self._grid.unit_m)
        located = self._network.locate(points)
        on = located.segment >= 0
        self._hit(located)
        return _Samples(
            branch[on],
            found.owner[branch[on]],
            located.segment[on],
            located.direction_deg[on],
            (length / count)[owner][on] / UM,
        )

    def _share(self, found: CrackMap, on: _Samples, types: NDArray[np.object_]) -> None:
        """Add the meters of cracks, by type, by class and with their widths."""
        line_m = found.chains.line_m(found.lines)
        stretch = found.length_m / np.where(line_m > 0, line_m, 1)  # gaps lie where the line does
        meters, line = _countable(on.meters * stretch[on.crack]), _countable(on.meters)
        self._add("crack_length_m", on.segment, meters)
        wide = found.widths.branch_measurable[on.branch]
        width = np.where(wide, found.widths.branch_mm[on.branch], 0.0)
        across = _countable(width * on.meters)
        for name in TYPES:
            own = types[on.crack] == name
            self._add(f"{name}_m", on.segment[own], meters[own])
            own &= wide
            self._add(f"{name}_wide_m", on.segment[own], line[own])
            self._add(f"{name}_mm_m", on.segment[own], across[own])
        classes = found.severity[on.branch]
        for name in D6433_CLASSES:
            own = classes == name
            self._add(f"{name}_m", on.segment[own], line[own])
        self._widths.append(np.stack((on.segment[wide], width[wide], line[wide])))

    def _add_network(self, outline: shapely.MultiPolygon) -> int:
        """Share the area of a network out; return the segment with most of it, -1 for none."""
        places, count = 0, np.zeros(self._count, np.int64)
        for inside in places_in(outline, STEP_M):
            segment = self._network.locate(inside / self._grid.unit_m).segment
            count += np.bincount(segment[segment >= 0], minlength=self._count)
            places += len(inside)
        if not count.any():
            return -1
        share = count / places
        area = _countable(float(outline.area) * share)
        self._add("network_area_m2", np.arange(self._count), area)
        return int(share.argmax())

    def _hit(self, located: Locations) -> None:
        for index in np.unique(located.segment[located.segment >= 0]):
            own = located.segment == index
            self.cells[index].hit(located.along_m[own], located.across_m[own])

    def _cells_beside(
        self, line: shapely.LineString, width_m: float, coverage: CoverageMap
    ) -> tuple[FloatArray, FloatArray]:
        """Return centers (N, 2) of the coverage cells around a line, and their share seen."""
        around = shapely.box(*line.buffer(width_m / 2 / self._grid.unit_m).bounds)
        corners = self._grid.to_pixel(shapely.get_coordinates(around)) / coverage.side
        (left, top), (right, bottom) = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
        rows, cols = np.mgrid[int(top) : int(bottom), int(left) : int(right)].reshape(2, -1)
        centers = (np.column_stack((cols, rows)) + 0.5) * coverage.side
        return self._grid.to_world(centers), coverage.share(rows, cols)


def _countable(values: FloatArray) -> FloatArray:
    return np.rint(values * UNITS) / UNITS


def places_in(shape: shapely.Geometry, step: float) -> Iterator[FloatArray]:
    """Yield the points (P, 2) of a lattice that lie in an area, strip by strip from its bottom.

    A strip is looked at where the area lies in it, so a long, slanting area costs what its length
    does, not what its bounding box does.
    """
    left, bottom, right, top = shape.bounds
    x, y = np.arange(left + step / 2, right, step), np.arange(bottom + step / 2, top, step)
    rows, edge = max(1, PLACES_AT_ONCE // max(1, len(x))), shapely.boundary(shape)
    for start in range(0, len(y), rows):
        strip = y[start : start + rows]
        here = shapely.clip_by_rect(  # of an area that it cuts to a corner, GEOS makes no ring
            edge, left - step, strip[0] - step, right + step, strip[-1] + step
        )
        if here.is_empty:
            continue
        west, _, east, _ = here.bounds
        within = x[(x >= west - step) & (x <= east + step)]
        places = np.stack(np.meshgrid(within, strip), axis=-1).reshape(-1, 2)
        yield places[shapely.contains_xy(shape, *places.T)]


def _runs(found: CrackMap) -> Iterator[IntArray]:
    """Yield the branches of kept cracks, whole cracks at once, in an order of their own."""
    chosen = np.flatnonzero(np.append(found.kept, False)[np.minimum(found.owner, found.n_cracks)])
    chosen = chosen[np.argsort(found.owner[chosen], kind="stable")]
    if not len(chosen):
        return
    per_branch = found.branches.lines.lengths[chosen] // round(STEP_M * UM) + 1
    crack = found.owner[chosen]
    upto = np.cumsum(np.bincount(crack, per_branch, found.n_cracks))
    run = (upto // SAMPLES_AT_ONCE)[crack]
    yield from np.split(chosen, np.flatnonzero(np.diff(run)) + 1)


def _largest(crack: IntArray, segment: IntArray, meters: FloatArray, count: int) -> IntArray:
    """Return (K,) segment with most of each crack, the first of equals; -1 for none."""
    pairs, place = np.unique(np.column_stack((crack, segment)), axis=0, return_inverse=True)
    total = np.rint(np.bincount(place.ravel(), meters, len(pairs)) * UM)
    order = np.lexsort((-pairs[:, 1], total, pairs[:, 0]))
    home = np.full(count, -1)
    home[pairs[order, 0]] = pairs[order, 1]  # the last assignment stays
    return home


def axial_mean(owner: IntArray, degrees: FloatArray, weight: FloatArray, count: int) -> FloatArray:
    """Return (K,) mean of directions that are equal modulo 180 degrees, per owner."""
    twice = np.radians(2 * degrees)
    east = np.bincount(owner, weight * np.sin(twice), count)
    north = np.bincount(owner, weight * np.cos(twice), count)
    return np.degrees(np.arctan2(east, north)) / 2


class SurveyCells:
    """Cells of one segment, addressed by meters along it and across it."""

    def __init__(self, length_m: float, width_m: float, across: int) -> None:
        self._width_m = width_m
        self._shape = max(1, math.ceil(length_m / CELL_M - 1e-9)), across
        self.marks = np.zeros(self._shape, bool)
        """Cells in which places on cracks lie."""
        self._seen = np.zeros(self._shape)
        self._all = np.zeros(self._shape)

    @classmethod
    def of(cls, segment: Segment, lane_m: float) -> SurveyCells:
        """Return thirds of the lanes of a segment; of lanes of usual width if they are unknown."""
        lanes = segment.lanes or max(1, round(segment.width_m / lane_m))
        return cls(segment.to_m - segment.from_m, segment.width_m, THIRDS * lanes)

    def hit(self, along_m: FloatArray, across_m: FloatArray) -> None:
        """Mark the cells in which places on cracks (N,) lie."""
        self.marks[self._place(along_m, across_m)] = True

    def see(self, along_m: FloatArray, across_m: FloatArray, share: FloatArray) -> None:
        """Add samples (N,) of the ground, each with the share of it that was seen."""
        place = self._place(along_m, across_m)
        np.add.at(self._seen, place, share)
        np.add.at(self._all, place, 1.0)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows along the segment, and columns across it."""
        return self._shape

    @property
    def hit_pct(self) -> float | None:
        """Percentage of the cells seen that hold a crack; None if none was seen."""
        counted = self.marks | ((self._all > 0) & (self._seen >= SEEN_SHARE * self._all))
        return 100.0 * float(self.marks.sum() / counted.sum()) if counted.any() else None

    def _place(self, along_m: FloatArray, across_m: FloatArray) -> tuple[IntArray, IntArray]:
        rows, cols = self._shape
        row = np.clip((along_m / CELL_M).astype(np.int64), 0, rows - 1)
        col = ((across_m / self._width_m + 0.5) * cols).astype(np.int64)
        return row, np.clip(col, 0, cols - 1)
