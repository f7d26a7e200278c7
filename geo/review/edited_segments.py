"""Road segments of an edited map: what lies on each, added up again from the lines.

Segments whose cracks did not change keep every figure. In others lengths, counts, areas and cells
are added up anew; classes and widths are those of the cracks as wholes there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from geo.arrays import BoolArray, FloatArray
from geo.cracks.branches import UM
from geo.cracks.pixel_set import ramps
from geo.imagery.coverage import CELL_M
from geo.layers.classes import D6433_CLASSES, TYPES, crack_types
from geo.layers.crack_width import width_p95
from geo.layers.roads import Locations, RoadNetwork, Segment
from geo.layers.schema import CRACK, GEOMETRY, INSPECTED, NETWORK, ROAD_SEGMENT
from geo.layers.segment_rows import priority_of, ranks
from geo.layers.segments import STEP_M, THIRDS, SurveyCells, axial_mean, places_in
from geo.review.edited_map import EditedMap, to_batch
from geo.review.places import SEEN

ROUNDING = 0.01
"""Meters of line, and square meters of networks, that are rounding."""


@dataclass(frozen=True, eq=False)
class Edited:
    """What people have changed.

    Attributes:
        cracks: (K,) whose line they have drawn or changed.
        left: (K,) those of them that lie beside their pieces: cells are other ones.
        networks: (M,) whose area they have drawn or changed.
    """

    cracks: BoolArray
    left: BoolArray
    networks: BoolArray


def segment_rows_of(found: EditedMap, edited: Edited) -> pa.RecordBatch:
    """Return the rows of road_segment, ranked again; name type and segment of what was edited.

    Args:
        found: the map; its cracks and networks are named in place.
        edited: which of them to name anew.
    """
    table = found.tables[ROAD_SEGMENT.name]
    options = found.rules.segments
    rows = to_batch(ROAD_SEGMENT, table).to_pylist()
    network = RoadNetwork([_segment(row) for row in rows], found.unit_m)
    sums = _share_out(found, network, table, edited)
    for index, row in enumerate(rows):
        own = sums.of(index)
        if not sums.anew[index] and sums.are_of(index, row):
            continue
        row |= own
        surveyed = row["surveyed_area_m2"]
        if surveyed > 0:
            cracked = own["network_area_m2"] + options.crack_band_m * own["crack_length_m"]
            row["density_m_per_m2"] = own["crack_length_m"] / surveyed
            row["cracking_pct"] = min(100.0, 100.0 * cracked / surveyed)
        if row["zeb_cell_pct"] is not None:
            row["zeb_cell_pct"] = _cells_pct(sums.cells.get(index), index, network, found)
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
        lanes=row["lanes"] if (row["lanes"] or 0) > 0 else None,
    )


def _cells_pct(
    cells: SurveyCells | None, index: int, network: RoadNetwork, found: EditedMap
) -> float | None:
    """Return the percentage of the cells seen that hold a crack; None where lanes are unknown."""
    if cells is None:
        return None
    segment, table = network.segments[index], found.tables[INSPECTED.name]
    ground = segment.line.buffer(segment.width_m / 2 / found.unit_m)
    points = np.concatenate([np.empty((0, 2)), *places_in(ground, CELL_M / found.unit_m)])
    located = network.locate(points)
    own = network.beside(index, located)
    near = table.iloc[table.sindex.query(ground, "intersects")]
    near = near[near["status"].isin(SEEN)]
    share = np.zeros(len(points))
    share[near.sindex.query(shapely.points(points), "intersects")[0]] = 1.0
    cells.see(located.along_m[own], located.across_m[own], share[own])
    return cells.hit_pct


@dataclass(frozen=True, eq=False)
class _Sums:
    """What lies on each of S segments, by the names of the columns.

    Attributes:
        meters: sums, (S,) each.
        least, most: between these the meters of each class of severity lie, (S,): a crack of two
            segments may have a class on either, as the map does not say where along it.
        widths: (S,) each, nan for none.
        cells: by the numbers of the segments whose lanes are known.
        anew: (S,) whether a crack lies there that left its pieces.
    """

    meters: dict[str, FloatArray]
    least: dict[str, FloatArray]
    most: dict[str, FloatArray]
    widths: dict[str, FloatArray]
    cells: dict[int, SurveyCells]
    anew: BoolArray

    def of(self, index: int) -> dict[str, Any]:
        """Return the columns of a segment that follow from its cracks."""
        values: dict[str, Any] = {name: float(sums[index]) for name, sums in self.meters.items()}
        for name in ("crack_count", "transverse_count"):
            values[name] = round(values[name])
        for name, widths in self.widths.items():
            values[name] = None if np.isnan(widths[index]) else float(widths[index])
        return values

    def are_of(self, index: int, row: dict[str, Any]) -> bool:
        """Return whether a row was added up from the cracks that lie on its segment now."""
        own = self.of(index)
        if any(row[name] != own[name] for name in ("crack_count", "transverse_count")):
            return False
        sums = ("crack_length_m", "network_area_m2", *(f"{name}_m" for name in TYPES))
        return all(abs(row[name] - own[name]) <= ROUNDING for name in sums) and all(
            self.least[name][index] - ROUNDING <= row[name] <= self.most[name][index] + ROUNDING
            for name in self.least
        )


def _share_out(
    found: EditedMap, network: RoadNetwork, table: pd.DataFrame, edited: Edited
) -> _Sums:
    """Add up cracks and networks on segments; name the types and segments of edited ones."""
    cracks, count = found.tables[CRACK.name], len(network.segments)
    cells = {
        index: SurveyCells(own.to_m - own.from_m, own.width_m, THIRDS * own.lanes)
        for index, own in enumerate(network.segments)
        if own.lanes is not None
    }
    points, crack, meters = _samples(cracks.geometry.to_numpy(), found.unit_m)
    located = network.locate(points)
    _hit(cells, located)
    on = np.flatnonzero(located.segment >= 0)
    sums: dict[str, FloatArray] = {}

    def add(name: str, segment: Any, values: Any, to: dict[str, FloatArray] = sums) -> None:
        to[name] = to.get(name, np.zeros(count)) + np.bincount(segment, values, count)

    segment, crack, meters = located.segment[on], crack[on], meters[on]
    own = pd.DataFrame({"crack": crack, "segment": segment, "meters": meters})
    total = own.groupby(["crack", "segment"])["meters"].sum().reset_index()
    home = _homes(total)
    road_deg = axial_mean(crack, located.direction_deg[on], meters, len(cracks))
    _name_edited(found, total, home, edited.cracks, road_deg)
    cracks = found.tables[CRACK.name]
    line_m = shapely.length(cracks.geometry.to_numpy()) * found.unit_m
    stretch = cracks["length_m"].to_numpy(float) / np.maximum(line_m, 1e-9)
    types, width = cracks["type"].to_numpy(object), cracks["width_mean_mm"].to_numpy(float)
    add("crack_length_m", segment, meters * stretch[crack])
    for name in TYPES:
        add(f"{name}_m", segment, meters * stretch[crack] * (types[crack] == name))
    least: dict[str, FloatArray] = {}
    most: dict[str, FloatArray] = {}
    one, where, here_m = (total[name].to_numpy() for name in ("crack", "segment", "meters"))
    for name in (f"{name}_m" for name in D6433_CLASSES):
        own_m = cracks[name].fillna(0).to_numpy(float)
        add(name, segment, meters * (own_m / np.maximum(line_m, 1e-9))[crack])
        elsewhere_m = np.maximum(line_m[one] - here_m, 0.0)
        add(name, where, np.maximum(own_m[one] - elsewhere_m, 0.0), least)
        add(name, where, np.minimum(own_m[one], here_m), most)
    main = home["segment"].to_numpy(np.int64), home["crack"].to_numpy(np.int64)
    add("crack_count", main[0], np.ones(len(home)))
    add("transverse_count", main[0], (types[main[1]] == "transverse").astype(float))
    ids = table["segment_id"].to_numpy(object)
    sums["network_area_m2"] = _networks_m2(found, network, cells, ids, edited.networks)
    widths = _widths(segment, width[crack], meters, types[crack], count)
    anew = np.bincount(where, edited.left[one], count) > 0
    return _Sums(sums, least, most, widths, cells, anew)


def _networks_m2(
    found: EditedMap,
    network: RoadNetwork,
    cells: dict[int, SurveyCells],
    ids: NDArray[np.object_],
    edited: BoolArray,
) -> FloatArray:
    """Return the area of networks on segments, (S,); name the segments of edited ones.

    The lines in networks are not in the map, so each of the `cells` in which one lies is marked as
    hit.

    Args:
        found: the map; its networks are named in place.
        network: the S segments.
        cells: by the numbers of segments.
        ids: (S,) of the segments.
        edited: (M,) networks that people have drawn or changed.
    """
    areas, area_m2 = found.tables[NETWORK.name], np.zeros(len(network.segments))
    for row, shape in enumerate(areas.geometry):
        places, total = np.zeros(len(area_m2)), 0
        for points in places_in(shape, STEP_M / found.unit_m):
            located = network.locate(points)
            _hit(cells, located)
            places += np.bincount(located.segment[located.segment >= 0], minlength=len(places))
            total += len(points)
        area_m2 += places * (shape.area * found.unit_m**2 / max(total, 1))
        said = areas.loc[row, "segment_id"]
        if edited[row] or not (places[ids == said].any() or pd.isna(said)):
            areas.loc[row, "segment_id"] = ids[places.argmax()] if places.any() else None
    return area_m2


def _hit(cells: dict[int, SurveyCells], located: Locations) -> None:
    for index in np.intersect1d(located.segment, list(cells)).tolist():
        own = located.segment == index
        cells[index].hit(located.along_m[own], located.across_m[own])


def _homes(total: pd.DataFrame) -> pd.DataFrame:
    """Return the segment with most of each crack, the first of equals, as the map was made."""
    whole = total.assign(um=np.rint(total["meters"] * UM))
    ordered = whole.sort_values(["um", "segment"], ascending=[True, False])
    return ordered.drop_duplicates("crack", keep="last")


def _name_edited(
    found: EditedMap, total: pd.DataFrame, home: pd.DataFrame, edited: BoolArray, road_deg: Any
) -> None:
    """Give edited cracks, and those that no longer lie where they say, their segment and type."""
    cracks = found.tables[CRACK.name]
    ids = found.tables[ROAD_SEGMENT.name]["segment_id"].to_numpy(object)
    main, most, there = np.full(len(cracks), -1), np.zeros(len(cracks)), np.zeros(len(cracks))
    main[home["crack"]], most[home["crack"]] = home["segment"], home["meters"]
    where = np.array([*ids, None], object)
    said = cracks["segment_id"].to_numpy(object)
    own = total[ids[total["segment"]] == said[total["crack"]]]
    there[own["crack"]] = own["meters"]
    left = cracks["segment_id"].notna().to_numpy() & (there == 0)
    number = np.flatnonzero(edited | left | (most - there > 2 * STEP_M))
    names = crack_types(
        cracks["orientation_deg"].to_numpy(float)[number],
        cracks["length_m"].to_numpy(float)[number],
        np.where(main >= 0, road_deg, np.nan)[number],
        found.rules.types,
    )
    cracks.loc[cracks.index[number], "segment_id"] = where[main[number]]
    cracks.loc[cracks.index[number], "type"] = names


def _samples(lines: Any, unit_m: float) -> tuple[FloatArray, Any, FloatArray]:
    """Return points (P, 2) along cracks, their crack, and the meters that each stands for."""
    parts, owner = shapely.get_parts(lines, return_index=True)
    length = shapely.length(parts)
    count = np.maximum(np.ceil(length * unit_m / STEP_M), 1).astype(np.int64)
    part, step = ramps(count)
    each = (length / count)[part]
    points = shapely.line_interpolate_point(parts[part], (step + 0.5) * each)
    return shapely.get_coordinates(points), owner[part], each * unit_m


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
    return result | {"width_p95_mm": width_p95(width_mm, meters, segment, count)}
