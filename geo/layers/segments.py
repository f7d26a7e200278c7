"""Cracks gathered per road segment: coverage, sums, cells, rank, and the rows of the layer.

Each crack pixel belongs to the nearest road line within half its width, and a crack's length is
shared out like its pixels. So the sums over all segments plus what lies on no road are the totals.
Cells are those of the German ZTV ZEB-StB: a cell with any crack counts, the percentage of cells is
the figure.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from geo.cracks.pixel_set import pixels_of
from geo.files import write_text
from geo.grid import Grid
from geo.imagery.coverage import CoverageMap
from geo.layers.classes import TYPES, crack_types
from geo.layers.roads import Locations, RoadNetwork, Segment, sections
from geo.layers.schema import ROAD_SEGMENT
from geo.options import SegmentOptions, TypeOptions

FloatArray = NDArray[np.float64]

PIXELS_AT_ONCE = 1_000_000
"""Crack pixels that are located together."""

STRIDE_M = 50.0
"""Length of road whose coverage is looked up at once."""

CELL_M = 1.0

THIRDS = 3

SEEN_SHARE = 0.5
"""A cell of which less was seen counts only if a crack was found in it."""

CSV_DIGITS = 6
"""Millimeters on a road of a kilometer."""

SEVERITIES = ("low", "medium", "high", "not_measurable")


class RoadSurvey:
    """Adds up cracks on a road network."""

    def __init__(
        self, network: RoadNetwork, grid: Grid, options: TypeOptions, lane_m: float
    ) -> None:
        self._network = network
        self._grid = grid
        self._options = options
        self.sums = tuple(
            SegmentSums(s, SurveyCells(s.to_m - s.from_m, s.width_m, lane_m))
            for s in network.segments
        )
        self.unassigned_pixels = 0
        self.unassigned_m = 0.0

    def add(
        self, cracks: pa.Table, width_mm: NDArray[np.float64], severity: NDArray[np.object_]
    ) -> Assignments:
        """Share whole cracks out over the segments and name their types.

        Args:
            cracks: N cracks (`geo.cracks.parts.SCHEMA`), measured.
            width_mm: (N,) their mean widths.
            severity: (N,) their classes by ASTM D6433.
        """
        crack, segment, count, road_deg = self._shares(cracks)
        home = _largest(crack, segment, count, len(cracks))
        lengths = cracks["length_m"].to_numpy()
        types = crack_types(
            cracks["orientation_deg"].to_numpy(),
            lengths,
            cracks["loops"].to_numpy(),
            road_deg,
            self._options,
        )
        pixels = cracks["n_pixels"].to_numpy()
        for c, s, n in zip(crack.tolist(), segment.tolist(), count.tolist(), strict=True):
            share_m = float(lengths[c] * n / pixels[c])
            self.sums[s].add(n, share_m, float(width_mm[c]), (types[c], severity[c]))
        assigned = np.bincount(crack, count, minlength=len(cracks))
        self.unassigned_pixels += int((pixels - assigned).sum())
        self.unassigned_m += float((lengths * (1 - assigned / pixels)).sum())
        names = np.array([*(s.segment_id for s in self._network.segments), None], dtype=object)
        return Assignments(types, names[home])

    def survey(self, coverage: CoverageMap) -> None:
        """Look up how much of each segment was seen; once, after the cracks.

        The ground of a segment ends square at the ends of its line: the half circle beyond the
        end of a road takes cracks in, but is no ground that had to be seen.
        """
        for index, sums in enumerate(self.sums):
            for line, from_m, to_m in sections(sums.segment.line, STRIDE_M, self._grid.unit_m):
                points, share = self._samples(line, sums.segment.width_m, coverage)
                located = self._network.locate(points)
                own = located.segment == index
                own &= (located.along_m > from_m) & (located.along_m < to_m)
                cell_m2 = coverage.side**2 * self._grid.pixel_area_m2
                sums.area_m2 += cell_m2 * float(own.sum())
                sums.surveyed_m2 += cell_m2 * float(share[own].sum())
                sums.cells.see(located.along_m[own], located.across_m[own], share[own])

    def _shares(
        self, cracks: pa.Table
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return pairs of crack and segment with their common pixels, (N,) road directions."""
        found: list[NDArray[np.int64]] = [np.empty((3, 0), np.int64)]
        road_deg = np.full(len(cracks), np.nan)
        for owner, points in self._pixel_runs(cracks):
            located = self._network.locate(points)
            on = located.segment >= 0
            self._hit(located)
            pairs = np.column_stack((owner[on], located.segment[on]))
            unique, count = np.unique(pairs, axis=0, return_counts=True)
            found.append(np.vstack((unique.T, count)))
            there = np.unique(owner[on])
            road_deg[there] = _axial_mean(owner[on], located.direction_deg[on])[there]
        crack, segment, count = np.concatenate(found, axis=1)
        return crack, segment, count, road_deg

    def _pixel_runs(
        self, cracks: pa.Table
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Yield numbers and world coordinates of the cracks' pixels, whole cracks at once."""
        outlines = shapely.from_wkb(cracks["geometry"].to_numpy())
        run = np.cumsum(cracks["n_pixels"].to_numpy()) // PIXELS_AT_ONCE
        for number in np.unique(run):
            members = np.flatnonzero(run == number)
            places = [pixels_of(outlines[index]) for index in members]
            owner = np.repeat(members, [len(place) for place in places])
            yield owner, self._grid.to_world(np.concatenate(places)[:, ::-1] + 0.5)

    def _hit(self, located: Locations) -> None:
        for index in np.unique(located.segment[located.segment >= 0]):
            own = located.segment == index
            self.sums[index].cells.hit(located.along_m[own], located.across_m[own])

    def _samples(
        self, line: shapely.LineString, width_m: float, coverage: CoverageMap
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return centers (N, 2) of the coverage cells around a line, and their share seen."""
        around = shapely.box(*line.buffer(width_m / 2 / self._grid.unit_m).bounds)
        corners = self._grid.to_pixel(shapely.get_coordinates(around)) / coverage.side
        (left, top), (right, bottom) = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
        rows, cols = np.mgrid[int(top) : int(bottom), int(left) : int(right)].reshape(2, -1)
        centers = (np.column_stack((cols, rows)) + 0.5) * coverage.side
        return self._grid.to_world(centers), coverage.share(rows, cols)


@dataclass(eq=False)
class SegmentSums:
    """What was found on one segment; the same in whatever order cracks are added.

    Attributes:
        segment: the road.
        cells: its cells with and without cracks.
        area_m2, surveyed_m2: of the ground nearest to it, and what was seen of it.
        pixels: of cracks.
        lengths_by: meters of each crack on it, per type and per severity.
        widths: (mean width in mm, meters) of each crack on it.
    """

    segment: Segment
    cells: SurveyCells
    area_m2: float = 0.0
    surveyed_m2: float = 0.0
    pixels: int = 0
    lengths_by: dict[str, list[float]] = field(default_factory=dict)
    widths: list[tuple[float, float]] = field(default_factory=list)

    @property
    def coverage_pct(self) -> float:
        """Share of its ground that was seen, percent."""
        return 100.0 * self.surveyed_m2 / self.area_m2 if self.area_m2 > 0 else 0.0

    @property
    def length_m(self) -> float:
        """Meters of cracks; `math.fsum` rounds once, so that their order leaves no trace."""
        return math.fsum(length for _, length in self.widths)

    def length_by(self, kind: str) -> float:
        """Return the meters of cracks of a type or severity."""
        return math.fsum(self.lengths_by.get(kind, ()))

    @property
    def width_p95_mm(self) -> float | None:
        """Mean width of cracks that is exceeded on 5 % of their length."""
        if not self.widths:
            return None
        widths, lengths = np.array(sorted(self.widths)).T
        upto = np.cumsum(lengths)
        return float(widths[np.searchsorted(upto, 0.95 * upto[-1])])

    def add(self, pixels: int, length_m: float, width_mm: float, kinds: tuple[str, ...]) -> None:
        """Add (a share of) a crack."""
        self.pixels += pixels
        self.widths.append((width_mm, length_m))
        for kind in kinds:
            self.lengths_by.setdefault(kind, []).append(length_m)


@dataclass(frozen=True, eq=False)
class Assignments:
    """Per crack (N,): its type and its segment (None if on no road)."""

    types: NDArray[np.object_]
    segment_ids: NDArray[np.object_]


class SurveyCells:
    """Cells of one segment, addressed by meters along it and across it."""

    def __init__(self, length_m: float, width_m: float, lane_m: float) -> None:
        self._width_m = width_m
        across = max(1, round(THIRDS * width_m / lane_m))
        self._shape = max(1, math.ceil(length_m / CELL_M - 1e-9)), across
        self._hit = np.zeros(self._shape, bool)
        self._seen = np.zeros(self._shape)
        self._all = np.zeros(self._shape)

    def hit(self, along_m: FloatArray, across_m: FloatArray) -> None:
        """Mark the cells in which crack pixels (N,) lie."""
        self._hit[self._place(along_m, across_m)] = True

    def see(self, along_m: FloatArray, across_m: FloatArray, share: FloatArray) -> None:
        """Add samples (N,) of the ground, each with the share of it that was seen."""
        place = self._place(along_m, across_m)
        np.add.at(self._seen, place, share)
        np.add.at(self._all, place, 1.0)

    @property
    def hit_pct(self) -> float | None:
        """Percentage of the cells seen that hold a crack; None if none was seen."""
        counted = self._hit | ((self._all > 0) & (self._seen >= SEEN_SHARE * self._all))
        return 100.0 * float(self._hit.sum() / counted.sum()) if counted.any() else None

    def _place(
        self, along_m: FloatArray, across_m: FloatArray
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        rows, cols = self._shape
        row = np.clip((along_m / CELL_M).astype(np.int64), 0, rows - 1)
        col = ((across_m / self._width_m + 0.5) * cols).astype(np.int64)
        return row, np.clip(col, 0, cols - 1)


def _largest(
    crack: NDArray[np.int64],
    segment: NDArray[np.int64],
    count: NDArray[np.int64],
    n_cracks: int,
) -> NDArray[np.int64]:
    """Return the segment with most pixels of each crack, the first of equals; -1 for none."""
    home = np.full(n_cracks, -1)
    order = np.lexsort((-segment, count, crack))
    home[crack[order]] = segment[order]  # the last assignment stays
    return home


def _axial_mean(owner: NDArray[np.int64], degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of directions that are equal modulo 180 degrees, per owner."""
    twice = np.radians(2 * degrees)
    east, north = np.bincount(owner, np.sin(twice)), np.bincount(owner, np.cos(twice))
    return np.degrees(np.arctan2(east, north)) / 2


def segment_rows(
    sums: Sequence[SegmentSums], grid: Grid, options: SegmentOptions
) -> pa.RecordBatch:
    """Return the rows of the layer road_segment, in the order of the roads."""
    rows = [
        _row(one, rank, grid, options)
        for one, rank in zip(sums, ranks(sums, options.min_coverage_pct), strict=True)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=ROAD_SEGMENT.arrow())


def _row(one: SegmentSums, rank: int | None, grid: Grid, options: SegmentOptions) -> dict[str, Any]:
    segment, surveyed = one.segment, one.surveyed_m2
    area = one.pixels * grid.pixel_area_m2
    kinds = {f"{kind}_m": one.length_by(kind) for kind in (*TYPES, *SEVERITIES)}
    hit_pct = one.cells.hit_pct
    return kinds | {
        "segment_id": segment.segment_id,
        "road_id": segment.road_id,
        "name": segment.name or None,
        "from_m": segment.from_m,
        "to_m": segment.to_m,
        "length_m": segment.to_m - segment.from_m,
        "width_m": segment.width_m,
        "surveyed_area_m2": surveyed,
        "coverage_pct": one.coverage_pct,
        "crack_length_m": one.length_m,
        "density_m_per_m2": one.length_m / surveyed if surveyed > 0 else None,
        "crack_area_pct": 100.0 * area / surveyed if surveyed > 0 else None,
        "zeb_cell_pct": hit_pct,
        "width_p95_mm": one.width_p95_mm,
        "rank": rank,
        "priority": None if rank is None or hit_pct is None else _priority(hit_pct, options),
        "geom": shapely.to_wkb(segment.line),
    }


def _priority(hit_pct: float, options: SegmentOptions) -> str:
    if hit_pct > options.high_pct:
        return "high"
    return "medium" if hit_pct >= options.medium_pct else "low"


def ranks(sums: Sequence[SegmentSums], min_coverage_pct: float) -> list[int | None]:
    """Rank segments by share of hit cells, density, id; None if one was seen too little."""
    keys = {}
    for index, one in enumerate(sums):
        hit = one.cells.hit_pct
        if hit is not None and one.coverage_pct >= min_coverage_pct:
            density = one.length_m / one.surveyed_m2 if one.surveyed_m2 > 0 else 0.0
            keys[index] = (-hit, -density, one.segment.segment_id)
    order = sorted(keys, key=lambda index: keys[index])
    place = {index: rank for rank, index in enumerate(order, start=1)}
    return [place.get(index) for index in range(len(sums))]


def write_csv(path: Path, rows: pa.RecordBatch) -> None:
    """Write the attributes by rank as UTF-8 (with a mark, by which spreadsheets know it).

    Numbers have as many digits as mean something (`CSV_DIGITS`); the layer has all.

    Raises:
        OutputError: the file cannot be written.
    """
    names = [column.name for column in ROAD_SEGMENT.columns]
    records = sorted(rows.to_pylist(), key=lambda row: (row["rank"] is None, row["rank"]))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, extrasaction="ignore")
    writer.writeheader()
    writer.writerows({name: _short(value) for name, value in row.items()} for row in records)
    write_text(path, text.getvalue(), "utf-8-sig")


def _short(value: Any) -> Any:
    return f"{value:.{CSV_DIGITS}g}" if isinstance(value, float) else value
