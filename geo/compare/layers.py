"""A comparison -> the rows of its layers, and their file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from rasterio.crs import CRS

from geo.compare.changes import Comparison
from geo.compare.maps import SurveyMap, names_of
from geo.compare.segments import SegmentChanges
from geo.files import output_errors
from geo.layers.geopackage import LayerData, publish
from geo.layers.schema import (
    CHANGE,
    CHANGE_LAYERS,
    CHANGE_NETWORK,
    CHANGE_RUN,
    CHANGE_SEGMENT,
    COMPARED,
    GEOMETRY,
    REGISTRATION,
)
from geo.layers.style import change_styles

SIGMAS = 3.0
"""Standard deviations beyond which a segment has more or fewer cracks."""

TITLE = "Changes of cracks"
"""Of the project that QGIS opens."""

NOT_CLAIMED = (
    "A crack that is gone or shorter may be sealed, covered, or missed by the new survey; one that "
    "is new may have been missed by the old one. Differences below the stated uncertainty are not "
    "reported. Cracks inside networks are compared by area only. Widths are means of whole cracks."
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
        CHANGE_NETWORK: iter([network_rows(new, result, sums)]),
        COMPARED: iter([_ground_rows(new, result)]),
        REGISTRATION: iter([registration_rows(new, result)]),
        CHANGE_RUN: iter([pa.RecordBatch.from_pylist([run], schema=CHANGE_RUN.arrow())]),
    }
    if sums is not None:
        tables[CHANGE_SEGMENT] = iter([segment_rows(new, sums)])
    ordered = [LayerData(one, tables[one]) for one in CHANGE_LAYERS if one in tables]
    crs = CRS.from_wkt(new.crs.to_wkt())
    with output_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        publish(
            out,
            crs,
            ordered,
            {"old": names_of(maps[0].path, new.path)[0]},
            looks=change_styles(),
            title=TITLE,
        )


def change_rows(
    maps: tuple[SurveyMap, SurveyMap], result: Comparison, sums: SegmentChanges | None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the layer change."""
    lines = result.lines
    old, new = (one.survey for one in maps)
    width, growth_m, low = lines.width_mm, lines.growth_m, 0
    for shapes in lines.lines.shapes():
        rows = slice(low, low + len(shapes))
        low = rows.stop
        segment = None if sums is None else sums.line_segment[rows]
        columns = {
            "change": lines.kind[rows],
            "old_id": _ids_at(old.crack_ids, lines.old[rows]),
            "new_id": _ids_at(new.crack_ids, lines.new[rows]),
            "before_m": lines.before_m[rows],
            "after_m": lines.after_m[rows],
            "growth_m": growth_m[rows],
            "growth_sd_m": lines.sd_m[rows],
            "width_before_mm": width[rows, 0],
            "width_after_mm": width[rows, 1],
            "width_change_mm": width[rows, 1] - width[rows, 0],
            "width_sd_mm": lines.width_sd_mm[rows],
            "segment_id": _segment(maps[1], segment, len(shapes)),
            GEOMETRY: _wkb(shapes, maps[1]),
        }
        yield CHANGE.batch(columns)


def network_rows(new: SurveyMap, result: Comparison, sums: SegmentChanges | None) -> pa.RecordBatch:
    """Return rows of the layer change_network."""
    areas = result.areas
    columns = {
        "area_change": areas.kind,
        "old_ids": [text or None for text in areas.old_ids],
        "new_ids": [text or None for text in areas.new_ids],
        "before_m2": areas.before_m2,
        "after_m2": areas.after_m2,
        "growth_m2": areas.after_m2 - areas.before_m2,
        "growth_sd_m2": areas.sd_m2,
        "segment_id": _segment(new, None if sums is None else sums.area_segment, len(areas.kind)),
        GEOMETRY: _wkb(areas.shape, new),
    }
    return CHANGE_NETWORK.batch(columns)


def segment_rows(new: SurveyMap, sums: SegmentChanges) -> pa.RecordBatch:
    """Return rows of the layer change_segment."""
    segments = new.segments
    assert segments is not None
    change = sums.after_m - sums.before_m
    trends = [change > SIGMAS * sums.sd_m, change < -SIGMAS * sums.sd_m]
    columns = {
        "segment_id": segments.ids,
        "name": segments.names,
        "inspected_pct": sums.both_pct,
        "before_m": sums.before_m,
        "after_m": sums.after_m,
        "change_m": change,
        "change_sd_m": sums.sd_m,
        "trend": np.select(trends, ["more", "fewer"], "none").astype(object),
        "width_change_mm": sums.width_change_mm,
        "width_sd_mm": sums.width_sd_mm,
        "network_before_m2": sums.network_before_m2,
        "network_after_m2": sums.network_after_m2,
        "network_change_m2": sums.network_after_m2 - sums.network_before_m2,
        "network_sd_m2": sums.network_sd_m2,
        GEOMETRY: _wkb(segments.lines, new),
    }
    return CHANGE_SEGMENT.batch(columns | {f"{k}_m": v for k, v in sums.meters.items()})


def registration_rows(new: SurveyMap, result: Comparison) -> pa.RecordBatch:
    """Return rows of the layer registration."""
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
    return REGISTRATION.batch(columns)


def _ground_rows(new: SurveyMap, result: Comparison) -> pa.RecordBatch:
    parts = shapely.get_parts(result.both)
    shapes = shapely.multipolygons(parts, indices=np.arange(len(parts)))
    return COMPARED.batch({"area_m2": shapely.area(parts), GEOMETRY: _wkb(shapes, new)})


def _ids_at(ids: np.ndarray[Any, Any], index: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return ids by index; None where it is -1."""
    return np.asarray(np.append(ids, np.array([None], object))[index])


def _segment(
    new: SurveyMap, index: np.ndarray[Any, Any] | None, count: int
) -> np.ndarray[Any, Any]:
    if index is None or new.segments is None:
        return np.full(count, None)
    return _ids_at(new.segments.ids, index)


def _wkb(shapes: np.ndarray[Any, Any], new: SurveyMap) -> np.ndarray[Any, Any]:
    """Return geometries in the units of the map."""
    if new.unit_m != 1.0:
        shapes = shapely.transform(shapes, lambda xy: xy / new.unit_m)
    return np.asarray(shapely.to_wkb(shapes))
