"""Road segments of an edited map: what lies on each, added up again from the lines.

Segments whose cracks did not change keep every figure. In others lengths, counts, areas and ranks
are added up anew; widths are those of the cracks as wholes there, and `zeb_cell_pct` takes the
share that was seen as evenly spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import shapely

from geo.cracks.branches import FloatArray
from geo.layers.classes import D6433_CLASSES, TYPES, crack_types
from geo.layers.roads import RoadNetwork, Segment
from geo.layers.schema import CRACK, GEOMETRY, NETWORK, ROAD_SEGMENT
from geo.layers.segment_rows import priority_of, ranks
from geo.layers.segments import STEP_M, SurveyCells
from geo.review.edited_map import EditedMap, to_batch

SAME = 0.01
"""Change of a length, as a share, that is rounding."""

LANE_M = 3.5
"""Width of a lane, where cells of ZEB are counted again."""


def segment_rows_of(found: EditedMap) -> pa.RecordBatch:
    """Return the rows of road_segment, ranked again; name type and segment of drawn cracks."""
    table = found.tables[ROAD_SEGMENT.name]
    options = found.rules.segments
    rows = to_batch(ROAD_SEGMENT, table).to_pylist()
    network = RoadNetwork([_segment(row) for row in rows], found.unit_m)
    sums = _share_out(found, network, table)
    for index, row in enumerate(rows):
        own = sums.of(index)
        if _is_same(row, own):
            continue
        row |= own
        surveyed = row["surveyed_area_m2"]
        if surveyed > 0:
            cracked = own["network_area_m2"] + options.crack_band_m * own["crack_length_m"]
            row["density_m_per_m2"] = own["crack_length_m"] / surveyed
            row["cracking_pct"] = min(100.0, 100.0 * cracked / surveyed)
        if row["zeb_cell_pct"] is not None:
            row["zeb_cell_pct"] = sums.cells_pct(index, row["coverage_pct"])
    for row, rank in zip(rows, ranks(rows, options), strict=True):
        row["rank"] = rank
        row["priority"] = None if rank is None else priority_of(row[options.rank_by], options)
    return pa.RecordBatch.from_pylist(rows, schema=ROAD_SEGMENT.arrow())


def _segment(row: dict[str, Any]) -> Segment:
    return Segment(
        segment_id=row["segment_id"],
        road_id=row["road_id"],
        name=row["name"] or "",
        line=shapely.from_wkb(row[GEOMETRY]),
        from_m=row["from_m"],
        to_m=row["to_m"],
        width_m=row["width_m"],
    )


def _is_same(row: dict[str, Any], own: dict[str, Any]) -> bool:
    """Return whether the cracks of a segment are those that it was added up from."""
    if row["crack_count"] != own["crack_count"]:
        return False
    names = ("crack_length_m", "network_area_m2", *(f"{name}_m" for name in D6433_CLASSES))
    return all(abs(row[name] - own[name]) <= SAME * max(row[name], 1.0) for name in names)


@dataclass(frozen=True, eq=False)
class _Sums:
    """What lies on each of S segments, by the names of the columns."""

    meters: dict[str, FloatArray]
    widths: dict[str, FloatArray]
    cells: list[SurveyCells]
    segments: tuple[Segment, ...]

    def of(self, index: int) -> dict[str, Any]:
        """Return the columns of a segment that follow from its cracks."""
        values: dict[str, Any] = {name: float(sums[index]) for name, sums in self.meters.items()}
        for name in ("crack_count", "transverse_count"):
            values[name] = round(values[name])
        for name, widths in self.widths.items():
            values[name] = None if np.isnan(widths[index]) else float(widths[index])
        return values

    def cells_pct(self, index: int, coverage_pct: float) -> float | None:
        """Return the percentage of the cells with a crack; the seen ones are evenly spread."""
        cells, segment = self.cells[index], self.segments[index]
        rows, cols = cells.shape
        along, across = np.mgrid[0:rows, 0:cols].reshape(2, -1) + 0.5
        width = segment.width_m
        cells.see(along, (across / cols - 0.5) * width, np.ones(len(along)))
        hit = cells.hit_pct
        return None if hit is None else min(100.0, 100.0 * hit / max(coverage_pct, 1e-9))


def _share_out(found: EditedMap, network: RoadNetwork, table: pd.DataFrame) -> _Sums:
    """Add up cracks and networks on segments; name the types and segments of drawn cracks."""
    cracks, count = found.tables[CRACK.name], len(network.segments)
    cells = [SurveyCells.of(segment, LANE_M) for segment in network.segments]
    points, crack, meters = _samples(cracks.geometry.to_numpy(), found.unit_m)
    located = network.locate(points) if len(points) else None
    on = np.flatnonzero(located.segment >= 0) if located is not None else np.empty(0, np.int64)
    sums: dict[str, FloatArray] = {}

    def add(name: str, segment: Any, values: Any) -> None:
        sums[name] = sums.get(name, np.zeros(count)) + np.bincount(segment, values, count)

    segment = located.segment[on] if located is not None else on
    crack, meters = crack[on], meters[on]
    own = pd.DataFrame({"crack": crack, "segment": segment, "meters": meters})
    total = own.groupby(["crack", "segment"])["meters"].sum().reset_index()
    home = total.sort_values(["meters", "segment"]).drop_duplicates("crack", keep="last")
    if located is not None:
        _name_drawn(found, home, crack, located.direction_deg[on])
        for index in np.unique(segment):
            here = on[segment == index]
            cells[index].hit(located.along_m[here], located.across_m[here])
    cracks = found.tables[CRACK.name]
    line_m = shapely.length(cracks.geometry.to_numpy()) * found.unit_m
    stretch = cracks["length_m"].to_numpy(float) / np.maximum(line_m, 1e-9)
    types, width = cracks["type"].to_numpy(object), cracks["width_mean_mm"].to_numpy(float)
    add("crack_length_m", segment, meters * stretch[crack])
    for name in TYPES:
        add(f"{name}_m", segment, meters * stretch[crack] * (types[crack] == name))
    for name in D6433_CLASSES:
        share = cracks[f"{name}_m"].fillna(0).to_numpy(float) / np.maximum(line_m, 1e-9)
        add(f"{name}_m", segment, meters * share[crack])
    main = home["segment"].to_numpy(np.int64), home["crack"].to_numpy(np.int64)
    add("crack_count", main[0], np.ones(len(home)))
    add("transverse_count", main[0], (types[main[1]] == "transverse").astype(float))
    add("network_area_m2", np.empty(0, np.int64), np.empty(0))
    for shape in found.tables[NETWORK.name].geometry:
        inside = _grid_points(shape, STEP_M / found.unit_m)
        where = network.locate(inside).segment
        area = shape.area * found.unit_m**2
        add(
            "network_area_m2",
            where[where >= 0],
            np.full(int((where >= 0).sum()), area / max(len(inside), 1)),
        )
    return _Sums(
        sums, _widths(segment, width[crack], meters, types[crack], count), cells, network.segments
    )


def _name_drawn(found: EditedMap, home: pd.DataFrame, crack: Any, road_deg: FloatArray) -> None:
    """Give cracks without a segment the one with most of their line, and drawn ones a type."""
    cracks = found.tables[CRACK.name]
    ids = found.tables[ROAD_SEGMENT.name]["segment_id"].to_numpy(object)
    drawn = cracks["crack_id"].astype(str).str.startswith("drawn-").to_numpy()
    rows = home[drawn[home["crack"].to_numpy(np.int64)]]
    if rows.empty:
        return
    number = rows["crack"].to_numpy(np.int64)
    first = np.array([road_deg[np.flatnonzero(crack == k)[0]] for k in number])
    names = crack_types(
        cracks["orientation_deg"].to_numpy(float)[number],
        cracks["length_m"].to_numpy(float)[number],
        first,
        found.rules.types,
    )
    cracks.loc[cracks.index[number], "segment_id"] = ids[rows["segment"].to_numpy(np.int64)]
    cracks.loc[cracks.index[number], "type"] = names


def _samples(lines: Any, unit_m: float) -> tuple[FloatArray, Any, FloatArray]:
    """Return points (P, 2) along cracks, their crack, and the meters that each stands for."""
    parts, owner = shapely.get_parts(lines, return_index=True)
    length = shapely.length(parts)
    count = np.maximum(np.ceil(length * unit_m / STEP_M), 1).astype(np.int64)
    part = np.repeat(np.arange(len(parts)), count)
    step = np.arange(len(part)) - np.repeat(np.cumsum(count) - count, count)
    each = (length / count)[part]
    points = shapely.line_interpolate_point(parts[part], (step + 0.5) * each)
    return shapely.get_coordinates(points), owner[part], each * unit_m


def _grid_points(shape: shapely.Geometry, step: float) -> FloatArray:
    left, bottom, right, top = shape.bounds
    x, y = np.arange(left + step / 2, right, step), np.arange(bottom + step / 2, top, step)
    places = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    return np.asarray(places[shapely.contains_xy(shape, *places.T)], np.float64)


def _widths(
    segment: Any, width_mm: FloatArray, meters: FloatArray, types: Any, count: int
) -> dict[str, FloatArray]:
    """Return the mean width of each type, and the width exceeded on 5 % of the line; nan: none."""
    known = ~np.isnan(width_mm)
    result = {}
    for name in TYPES:
        if name == "unknown":
            continue
        own = known & (types == name)
        line = np.bincount(segment[own], meters[own], count)
        total = np.bincount(segment[own], (width_mm * meters)[own], count)
        result[f"{name}_width_mm"] = np.where(line > 0, total / np.where(line > 0, line, 1), np.nan)
    p95 = np.full(count, np.nan)
    for index in np.unique(segment[known]):
        own = known & (segment == index)
        order = np.argsort(width_mm[own])
        way = np.cumsum(meters[own][order])
        p95[index] = width_mm[own][order][np.searchsorted(way, 0.95 * way[-1])]
    return result | {"width_p95_mm": p95}
