"""The layers of a comparison: their columns, their looks, their rows, their file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from rasterio.crs import CRS

from geo.compare.changes import Comparison
from geo.compare.maps import SurveyMap
from geo.compare.segments import SegmentChanges
from geo.files import output_errors
from geo.layers.geopackage import LayerData, publish
from geo.layers.schema import GEOMETRY, Column, GeometryType, Layer
from geo.layers.style import Entry, Rule, Style, rgba

LINES: GeometryType = "MultiLineString"

LEGEND = (
    Entry("new", "new", "#d55e00"),
    Entry("grown", "grown", "#e69f00"),
    Entry("widened", "wider", "#f0e442"),
    Entry("unchanged", "unchanged", "#0072b2"),
    Entry("narrowed", "narrower", "#56b4e9"),
    Entry("shrunk", "shorter, or sealed in part", "#009e73"),
    Entry("gone", "gone or sealed", "#44aa99"),
    Entry("in_network", "in a network in one survey", "#cc79a7"),
    Entry("unsure", "too small to tell", "#999999"),
    Entry("not_inspected", "seen by one survey only", "#666666"),
)
"""Kinds of change, worst first; colors after Okabe and Ito."""

CHANGED = ("new", "grown", "widened", "shrunk", "gone")
"""Kinds that are drawn wide."""

CHANGE = Layer(
    "change",
    LINES,
    "Cracks of both surveys, one feature per kind of change and pair of cracks; meters before add "
    "up to the old survey, meters after to the new one.",
    (
        Column("kind", "text", "", "; ".join(f"{e.key}: {e.label}" for e in LEGEND)),
        Column("old_id", "text", "", "crack_id in the old survey; of a growth, the crack it is of"),
        Column("new_id", "text", "", "crack_id in the new survey"),
        Column("before_m", "real", "m", "length of the stretch in the old survey"),
        Column("after_m", "real", "m", "length of the stretch in the new survey"),
        Column("growth_m", "real", "m", "of new, grown, shrunk and gone ones; 0 for others"),
        Column("growth_sd_m", "real", "m", "standard deviation of after - before"),
        Column("width_before_mm", "real", "mm", "mean width of the old crack"),
        Column("width_after_mm", "real", "mm", "mean width of the new crack"),
        Column("width_change_mm", "real", "mm", "after - before"),
        Column("width_sd_mm", "real", "mm", "standard deviation of the change"),
        Column("segment_id", "text", "", "road segment it lies on; empty if none"),
    ),
)

CHANGE_NETWORK = Layer(
    "change_network",
    "MultiPolygon",
    "Networks of both surveys; those that overlap are one feature.",
    (
        Column("kind", "text", "", "new, grown, unchanged, shrunk, gone, unsure or not_inspected"),
        Column("old_ids", "text", "", "network_id of the old survey, separated by ;"),
        Column("new_ids", "text", "", "network_id of the new survey, separated by ;"),
        Column("before_m2", "real", "m2", "area in the old survey, where both looked"),
        Column("after_m2", "real", "m2", "area in the new survey, where both looked"),
        Column("growth_m2", "real", "m2", "after - before"),
        Column("growth_sd_m2", "real", "m2", "standard deviation of it"),
        Column("segment_id", "text", "", "road segment it lies on; empty if none"),
    ),
)

CHANGE_SEGMENT = Layer(
    "change_segment",
    "LineString",
    "Changes per road segment, if the new map has roads; where both surveys looked.",
    (
        Column("segment_id", "text", "", "as in the new map"),
        Column("name", "text", "", "street name"),
        Column("inspected_pct", "real", "%", "share of its ground that both surveys saw"),
        Column("before_m", "real", "m", "cracks in the old survey"),
        Column("after_m", "real", "m", "cracks in the new survey"),
        Column("change_m", "real", "m", "after - before"),
        Column("change_sd_m", "real", "m", "standard deviation of it"),
        *(Column(f"{entry.key}_m", "real", "m", f"cracks: {entry.label}") for entry in LEGEND),
        Column("width_change_mm", "real", "mm", "mean over cracks that both surveys measured"),
        Column("width_sd_mm", "real", "mm", "standard deviation of it"),
        Column("network_before_m2", "real", "m2", "networks in the old survey"),
        Column("network_after_m2", "real", "m2", "networks in the new survey"),
        Column("network_change_m2", "real", "m2", "after - before"),
        Column("network_sd_m2", "real", "m2", "standard deviation of it"),
    ),
)

COMPARED = Layer(
    "inspected",
    "MultiPolygon",
    "Ground that both surveys saw.",
    (Column("area_m2", "real", "m2", "of the ground"),),
)

REGISTRATION = Layer(
    "registration",
    "MultiPolygon",
    "How the old survey was moved to lie on the new one, per neighborhood with cracks.",
    (
        Column("east_m", "real", "m", "shift to the east"),
        Column("north_m", "real", "m", "shift to the north"),
        Column("rotation_deg", "real", "deg", "about its center, counterclockwise"),
        Column("sd_m", "real", "m", "standard deviation of the shift"),
        Column("support_m", "real", "m", "meters of cracks that agree on it"),
        Column("source", "text", "", "own cracks, neighbors, or none (known too badly)"),
    ),
)

RUN = Layer(
    "run",
    "none",
    "One row: what was compared, how, and what is not claimed.",
    (
        Column("old", "text", "", "file of the old map"),
        Column("new", "text", "", "file of the new map"),
        Column("old_run_id", "text", "", "run that made it"),
        Column("new_run_id", "text", "", "run that made it"),
        Column("old_date", "date", "", "day of the old survey, where configured"),
        Column("new_date", "date", "", "day of the new survey"),
        Column("old_gsd_mm", "real", "mm", "coarsest pixels of the old survey"),
        Column("new_gsd_mm", "real", "mm", "coarsest pixels of the new survey"),
        Column("old_crs", "text", "", "where it was another one than the new map's"),
        Column("shift_m", "real", "m", "median shift of the old survey"),
        Column("residual_m", "real", "m", "distance of agreeing lines that is left (sd)"),
        Column("tolerance_m", "real", "m", "median distance up to which lines are the same"),
        Column("rules", "text", "JSON", "limits"),
        Column("versions", "text", "JSON", "of the software"),
        Column("started", "text", "ISO 8601", "begin"),
        Column("finished", "text", "ISO 8601", "when this file was complete"),
        Column("not_claimed", "text", "", "what must not be read into the layers"),
    ),
)

LAYERS = (CHANGE, CHANGE_NETWORK, CHANGE_SEGMENT, COMPARED, REGISTRATION, RUN)

NOT_CLAIMED = (
    "A crack that is gone or shorter may be sealed, covered, or missed by the new survey; one that "
    "is new may have been missed by the old one. Differences below the stated uncertainty are not "
    "reported. Cracks inside networks are compared by area only. Widths are means of whole cracks."
)


def styles() -> tuple[Style, ...]:
    """Return the looks of the layers."""
    kinds = tuple(
        Rule(f"\"kind\" = '{e.key}'", e.label, rgba(e.color, 255), 0.9 if e.key in CHANGED else 0.3)
        for e in LEGEND
    )
    areas = tuple(Rule(f"\"kind\" = '{e.key}'", e.label, rgba(e.color, 90), 0.4) for e in LEGEND)
    certain = '"change_m" {} 3 * "change_sd_m"'
    segments = (
        Rule(certain.format(">"), "more cracks", rgba("#d55e00", 255), 1.6),
        Rule(certain.format("< -"), "fewer cracks", rgba("#009e73", 255), 1.6),
        Rule("ELSE", "no certain change", rgba("#0072b2", 255), 1.0),
    )
    ground = (Rule("ELSE", "seen by both surveys", rgba("#009e73", 30), 0.2),)
    cells = (
        Rule("\"source\" = 'own'", "from its own cracks", rgba("#0072b2", 30), 0.2),
        Rule("\"source\" = 'neighbors'", "from its neighbors", rgba("#e69f00", 30), 0.2),
        Rule("ELSE", "not known", rgba("#d55e00", 30), 0.2),
    )
    return (
        Style(CHANGE, "kind", kinds),
        Style(CHANGE_NETWORK, "kind", areas),
        Style(CHANGE_SEGMENT, "change", segments),
        Style(COMPARED, "ground", ground),
        Style(REGISTRATION, "source", cells),
    )


def write_changes(
    out: Path,
    maps: tuple[SurveyMap, SurveyMap],
    result: Comparison,
    sums: SegmentChanges | None,
    run: dict[str, Any],
) -> None:
    """Write the GeoPackage of a comparison; an existing one stays until the new one is complete.

    Args:
        out: the file.
        maps: the old and the new one.
        result: of `compare`.
        sums: per segment of the new map; None without roads.
        run: the row of the layer run.

    Raises:
        OutputError: the folder or the disk does not take the file.
    """
    new = maps[1]
    tables = {
        CHANGE: change_rows(maps, result, sums),
        CHANGE_NETWORK: network_rows(new, result, sums),
        COMPARED: _ground_rows(new, result),
        REGISTRATION: registration_rows(new, result),
        RUN: pa.RecordBatch.from_pylist([run], schema=RUN.arrow()),
    }
    if sums is not None:
        tables[CHANGE_SEGMENT] = segment_rows(new, sums)
    ordered = [LayerData(one, iter([tables[one]])) for one in LAYERS if one in tables]
    crs = CRS.from_wkt(new.crs.to_wkt())
    with output_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        publish(out, crs, ordered, {"old": maps[0].path.name}, looks=styles())


def change_rows(
    maps: tuple[SurveyMap, SurveyMap], result: Comparison, sums: SegmentChanges | None
) -> pa.RecordBatch:
    """Rows of the layer change."""
    lines = result.lines
    old, new = (one.survey for one in maps)
    width = lines.width_mm
    columns = {
        "kind": lines.kind,
        "old_id": _named(old.crack_ids, lines.old),
        "new_id": _named(new.crack_ids, lines.new),
        "before_m": lines.before_m,
        "after_m": lines.after_m,
        "growth_m": lines.growth_m,
        "growth_sd_m": lines.sd_m,
        "width_before_mm": width[:, 0],
        "width_after_mm": width[:, 1],
        "width_change_mm": width[:, 1] - width[:, 0],
        "width_sd_mm": lines.width_sd_mm,
        "segment_id": _segment(
            maps[1], None if sums is None else sums.line_segment, len(lines.kind)
        ),
        GEOMETRY: _wkb(lines.shape, maps[1]),
    }
    return _batch(CHANGE, columns)


def network_rows(new: SurveyMap, result: Comparison, sums: SegmentChanges | None) -> pa.RecordBatch:
    """Rows of the layer change_network."""
    areas = result.areas
    columns = {
        "kind": areas.kind,
        "old_ids": [text or None for text in areas.old_ids],
        "new_ids": [text or None for text in areas.new_ids],
        "before_m2": areas.before_m2,
        "after_m2": areas.after_m2,
        "growth_m2": areas.after_m2 - areas.before_m2,
        "growth_sd_m2": areas.sd_m2,
        "segment_id": _segment(new, None if sums is None else sums.area_segment, len(areas.kind)),
        GEOMETRY: _wkb(areas.shape, new),
    }
    return _batch(CHANGE_NETWORK, columns)


def segment_rows(new: SurveyMap, sums: SegmentChanges) -> pa.RecordBatch:
    """Rows of the layer change_segment."""
    segments = new.segments
    assert segments is not None
    columns = {
        "segment_id": segments.ids,
        "name": segments.names,
        "inspected_pct": sums.both_pct,
        "before_m": sums.before_m,
        "after_m": sums.after_m,
        "change_m": sums.after_m - sums.before_m,
        "change_sd_m": sums.sd_m,
        "width_change_mm": sums.width_change_mm,
        "width_sd_mm": sums.width_sd_mm,
        "network_before_m2": sums.network_before_m2,
        "network_after_m2": sums.network_after_m2,
        "network_change_m2": sums.network_after_m2 - sums.network_before_m2,
        "network_sd_m2": sums.network_sd_m2,
        GEOMETRY: _wkb(segments.lines, new),
    }
    return _batch(CHANGE_SEGMENT, columns | {f"{k}_m": v for k, v in sums.meters.items()})


def registration_rows(new: SurveyMap, result: Comparison) -> pa.RecordBatch:
    """Rows of the layer registration."""
    found = result.registration
    shapes = shapely.multipolygons(found.boxes, indices=np.arange(len(found.cell)))
    columns = {
        "east_m": found.shift_m[:, 0],
        "north_m": found.shift_m[:, 1],
        "rotation_deg": np.degrees(found.rotation_rad),
        "sd_m": found.sd_m,
        "support_m": found.support_m,
        "source": found.source,
        GEOMETRY: _wkb(shapes, new),
    }
    return _batch(REGISTRATION, columns)


def _ground_rows(new: SurveyMap, result: Comparison) -> pa.RecordBatch:
    parts = shapely.get_parts(result.both)
    shapes = shapely.multipolygons(parts, indices=np.arange(len(parts)))
    return _batch(COMPARED, {"area_m2": shapely.area(parts), GEOMETRY: _wkb(shapes, new)})


def _batch(layer: Layer, columns: dict[str, Any]) -> pa.RecordBatch:
    """Columns in the layer's order and types; nan is empty."""
    schema = layer.arrow()
    arrays = [pa.array(columns[f.name], f.type, from_pandas=True) for f in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _named(ids: np.ndarray[Any, Any], index: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Ids by index; None where it is -1."""
    return np.asarray(np.append(ids, np.array([None], object))[index])


def _segment(
    new: SurveyMap, index: np.ndarray[Any, Any] | None, count: int
) -> np.ndarray[Any, Any]:
    if index is None or new.segments is None:
        return np.full(count, None)
    return _named(new.segments.ids, index)


def _wkb(shapes: np.ndarray[Any, Any], new: SurveyMap) -> np.ndarray[Any, Any]:
    """Geometries in the units of the map."""
    if new.unit_m != 1.0:
        shapes = shapely.transform(shapes, lambda xy: xy / new.unit_m)
    return np.asarray(shapely.to_wkb(shapes))
