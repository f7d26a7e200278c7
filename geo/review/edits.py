"""A map that people have edited -> the same map with its totals, ranks and segments made again.

What was deleted, or has the verdict `wrong`, is gone; lines that were drawn or moved are measured
by their geometry. Only the layers are read: no imagery, no work folder. Segments whose cracks did
not change keep every figure. In others lengths, counts, areas and ranks are added up anew; widths
are those of the cracks as wholes there, and `zeb_cell_pct` takes the share that was seen as evenly
spread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyogrio
import shapely
from rasterio.crs import CRS

from geo import packages
from geo.cracks.branches import FloatArray
from geo.cracks.measure import orientations
from geo.errors import InputError
from geo.layers.classes import D6433_CLASSES, NOT_MEASURABLE, TYPES, crack_types
from geo.layers.geopackage import LayerData, publish
from geo.layers.roads import RoadNetwork, Segment
from geo.layers.run_rows import MapTerms, not_claimed
from geo.layers.schema import (
    CRACK,
    GEOMETRY,
    INSPECTED,
    NETWORK,
    OUTLINE,
    ROAD_SEGMENT,
    RUN,
    Layer,
)
from geo.layers.segment_rows import priority_of, ranks, write_csv
from geo.layers.segments import STEP_M, SurveyCells
from geo.layers.style import styles
from geo.options import Rules, TypeOptions
from geo.review.estimate import Accuracy

WRONG = ("wrong", "reject", "rejected", "false")
"""Verdicts, in small letters, by which a person takes a crack out of the map."""

SAME = 0.01
"""Change of a length, as a share, that is rounding."""

LANE_M = 3.5
"""Width of a lane, where cells of ZEB are counted again."""


@dataclass(frozen=True)
class Applied:
    """What was done.

    Attributes:
        wrong: cracks and networks with such a verdict.
        drawn, moved: cracks that people have drawn or changed.
        changes: what differs from the map as it was written, in words.
        cracks, length_m: of the new map.
        kept: where the edited file is kept.
    """

    wrong: int
    drawn: int
    moved: int
    changes: tuple[str, ...]
    cracks: int
    length_m: float
    kept: Path | None


@dataclass(frozen=True, eq=False)
class _Map:
    """The layers of a map as tables."""

    tables: dict[str, geopandas.GeoDataFrame]
    rules: Rules
    crs: CRS
    unit_m: float

    @classmethod
    def read(cls, package: Path) -> _Map:
        names = {str(name) for name, _ in pyogrio.list_layers(package)}
        wanted = (CRACK, NETWORK, OUTLINE, ROAD_SEGMENT, INSPECTED, RUN)
        tables = {
            x.name: pyogrio.read_dataframe(package, layer=x.name) for x in wanted if x.name in names
        }
        system = tables[CRACK.name].crs
        if system is None:
            raise InputError(f"{package} has no coordinate system; give a map of `wpcrack infer`")
        unit_m = float(system.axis_info[0].unit_conversion_factor)
        crs = CRS.from_wkt(system.to_wkt())
        return cls(tables, MapTerms.read(package).rules, crs, unit_m)


def apply_edits(package: Path, segments_csv: Path) -> Applied | None:
    """Make an edited map whole again; the edited file is kept under another name.

    Args:
        package: the map; the new one takes its place.
        segments_csv: the table of the segments, written if there are any.

    Returns:
        None if nothing was edited.

    Raises:
        InputError: a layer is missing.
        OutputError: the map is open in another program, or cannot be written.
    """
    packages.require_closed(package)
    changes = packages.additions(package)
    found = _Map.read(package)
    cracks, networks = found.tables[CRACK.name], found.tables[NETWORK.name]
    wrong = [_is_wrong(table) for table in (cracks, networks)]
    cracks, networks = cracks[~wrong[0]], networks[~wrong[1]]
    if not changes and not any(mask.any() for mask in wrong):
        return None
    cracks, drawn, moved = _measured(_placed(cracks, "MultiLineString"), found)
    networks = _placed(networks, "MultiPolygon")
    outlines = found.tables[OUTLINE.name]
    alive = outlines["crack_id"].isin(cracks["crack_id"]) & outlines["crack_id"].notna()
    alive |= outlines["network_id"].isin(networks["network_id"]) & outlines["network_id"].notna()
    tables = found.tables | {
        CRACK.name: cracks,
        NETWORK.name: networks,
        OUTLINE.name: outlines[alive],
    }
    now = replace(found, tables=tables)
    kept = packages.kept_name(package) if changes else None
    applied = Applied(
        wrong=int(sum(mask.sum() for mask in wrong)),
        drawn=drawn,
        moved=moved,
        changes=tuple(changes),
        cracks=len(cracks),
        length_m=float(cracks["length_m"].sum()),
        kept=kept,
    )
    tables[RUN.name] = _run(now, applied)
    layers = [CRACK, NETWORK, OUTLINE, INSPECTED, RUN]
    rows = _segment_rows(now) if ROAD_SEGMENT.name in tables else None
    batches = {layer.name: _batch(layer, tables[layer.name]) for layer in layers}
    if rows is not None:
        batches[ROAD_SEGMENT.name] = rows
        layers.append(ROAD_SEGMENT)
        write_csv(segments_csv, rows)
    about = {name: str(tables[RUN.name][name].iloc[0] or "") for name in ("model", "run_id")}
    data = [LayerData(layer, iter([batches[layer.name]])) for layer in layers]
    publish(package, found.crs, data, about, looks=styles(found.rules))
    return applied


def _is_wrong(table: geopandas.GeoDataFrame) -> pd.Series:
    if "verdict" not in table:
        return pd.Series(False, index=table.index)
    return table["verdict"].fillna("").astype(str).str.strip().str.lower().isin(WRONG)


def _placed(table: geopandas.GeoDataFrame, kind: str) -> geopandas.GeoDataFrame:
    """Return the rows with a shape, in the type of their layer."""
    table = table[table.geometry.notna() & ~table.geometry.is_empty].reset_index(drop=True)
    make = shapely.multilinestrings if kind == "MultiLineString" else shapely.multipolygons
    parts, owner = shapely.get_parts(shapely.force_2d(table.geometry.to_numpy()), return_index=True)
    shapes = make(parts, indices=owner) if len(parts) else np.empty(0, object)
    return table.set_geometry(geopandas.GeoSeries(shapes, index=table.index, crs=table.crs))


def _measured(
    cracks: geopandas.GeoDataFrame, found: _Map
) -> tuple[geopandas.GeoDataFrame, int, int]:
    """Give lines that people have drawn their columns; scale those of lines that they have moved.

    Returns:
        the cracks, how many were drawn, how many moved.
    """
    cracks = cracks.copy()
    line_m = shapely.length(cracks.geometry.to_numpy()) * found.unit_m
    drawn = cracks["crack_id"].isna().to_numpy() | cracks["length_m"].isna().to_numpy()
    stored = (cracks["length_m"] - cracks["gap_m"].fillna(0)).to_numpy(float)
    moved = ~drawn & (np.abs(line_m - stored) > SAME * np.maximum(stored, STEP_M))
    scale = np.where(moved, line_m / np.maximum(stored, 1e-9), 1.0)
    meters = [f"{name}_m" for name in D6433_CLASSES]
    for name in (*meters, "area_m2"):
        cracks[name] = cracks[name].to_numpy(float) * scale
    cracks.loc[moved, "length_m"] = line_m[moved] + cracks.loc[moved, "gap_m"]
    if drawn.any():
        zero = {name: 0.0 for name in (*meters, "gap_m", "area_m2")}
        parts = shapely.get_num_geometries(cracks.geometry.to_numpy())[drawn]
        new = zero | {"branches": parts, "pieces": parts, "type": "unknown"}
        new |= {name: NOT_MEASURABLE for name in ("severity_d6433", "severity_ltpp")}
        new |= {"length_m": line_m[drawn], f"{NOT_MEASURABLE}_m": line_m[drawn]}
        new |= {"orientation_deg": _directions(cracks.geometry.to_numpy()[drawn])}
        for name, value in new.items():
            cracks.loc[drawn, name] = value
        middles = shapely.get_coordinates(
            shapely.line_interpolate_point(
                shapely.get_geometry(cracks.geometry.to_numpy()[drawn], 0), 0.5, normalized=True
            )
        )
        cracks.loc[drawn, "crack_id"] = [f"drawn-{x:.2f}-{y:.2f}" for x, y in middles]
    return cracks, int(drawn.sum()), int(moved.sum())


def _directions(lines: Any) -> FloatArray:
    points, owner = shapely.get_coordinates(lines, return_index=True)
    inner = np.flatnonzero(np.diff(owner) == 0)
    return orientations(np.diff(points, axis=0)[inner], owner[inner], len(lines))


def _run(found: _Map, applied: Applied) -> pd.DataFrame:
    """Return the layer run of the new map."""
    run = found.tables[RUN.name].copy()
    meters = float(found.tables[CRACK.name][f"{NOT_MEASURABLE}_m"].fillna(0).sum())
    inputs = json.loads(run["inputs"].iloc[0] or "{}")
    edits = {"wrong": applied.wrong, "drawn": applied.drawn, "moved": applied.moved}
    run["inputs"] = json.dumps(inputs | {"edits": {**edits, "changes": applied.changes}})
    run["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    run["not_claimed"] = not_claimed(found.rules.severity, meters)
    if run["accuracy"].iloc[0]:
        known = Accuracy.of_values(json.loads(run["accuracy"].iloc[0]))
        note = f"{known.estimator}; of the map before it was edited"
        run["accuracy"] = json.dumps(replace(known, estimator=note).values())
    return run


def _batch(layer: Layer, table: pd.DataFrame) -> pa.RecordBatch:
    schema = layer.arrow()
    arrays = []
    for field in schema:
        if field.name == GEOMETRY:
            values: Any = shapely.to_wkb(table.geometry.to_numpy())
        else:
            values = table[field.name] if field.name in table else [None] * len(table)
        if pa.types.is_date(field.type) and len(table):
            days = pd.to_datetime(values)
            values = [None if pd.isna(day) else day.date() for day in days]
        arrays.append(pa.array(values, field.type, from_pandas=True))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


# -- segments ----------------------------------------------------------------------------------


def _segment_rows(found: _Map) -> pa.RecordBatch:
    """Return the rows of the segments, ranked again."""
    table = found.tables[ROAD_SEGMENT.name]
    options = found.rules.segments
    rows = _batch(ROAD_SEGMENT, table).to_pylist()
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


def _share_out(found: _Map, network: RoadNetwork, table: pd.DataFrame) -> _Sums:
    """Add up cracks and networks on segments; names the types and segments of drawn cracks."""
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


def _name_drawn(found: _Map, home: pd.DataFrame, crack: Any, road_deg: FloatArray) -> None:
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
        TypeOptions(),
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
