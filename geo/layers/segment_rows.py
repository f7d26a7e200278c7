"""What was gathered per road segment -> rows of the layer with ranks, and the same as a table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import shapely

from geo.files import write_text
from geo.layers.classes import D6433_CLASSES, TYPES
from geo.layers.schema import ROAD_SEGMENT
from geo.layers.segments import RoadSurvey
from geo.options import SegmentOptions
from geo.outputs import seal_csv

CSV_DIGITS = 6
"""Millimeters on a road of a kilometer."""

CONCRETE = ("concrete", "beton", "pcc", "jpcp", "crcp")
"""Words in the surface of roads that are rated by slabs."""

ASPHALT = ("asphalt", "asfalt", "bitum")
"""Words in that of roads that are not, such as asphalt concrete."""

FORMULA = "=+-@\t\r"
"""A spreadsheet runs a text that begins with one of these."""


def segment_rows(roads: RoadSurvey, options: SegmentOptions) -> pa.RecordBatch:
    """Return the rows of the layer road_segment, in the order of the roads."""
    rows = [_row(roads, index, options) for index in range(len(roads.segments))]
    for row, width in zip(rows, roads.width_p95_mm().tolist(), strict=True):
        row["width_p95_mm"] = None if math.isnan(width) else width
    for row, rank in zip(rows, ranks(rows, options), strict=True):
        row["rank"] = rank
        row["priority"] = None if rank is None else priority_of(row[options.rank_by], options)
    return pa.RecordBatch.from_pylist(rows, schema=ROAD_SEGMENT.arrow())


def _row(roads: RoadSurvey, index: int, options: SegmentOptions) -> dict[str, Any]:
    segment = roads.segments[index]

    def total(name: str) -> float:
        return float(roads.total(name)[index])

    area, surveyed = total("area_m2"), total("surveyed_area_m2")
    length, network = total("crack_length_m"), total("network_area_m2")
    cracked = network + options.crack_band_m * length
    no_cells = segment.lanes is None or has_slabs(segment.surface)
    return {
        "segment_id": segment.segment_id,
        "road_id": segment.road_id,
        "name": segment.name or None,
        "surface": segment.surface or None,
        "district": segment.district or None,
        "from_m": segment.from_m,
        "to_m": segment.to_m,
        "length_m": segment.to_m - segment.from_m,
        "width_m": segment.width_m,
        "lanes": segment.lanes,
        "surveyed_area_m2": surveyed,
        "coverage_pct": 100.0 * surveyed / area if area > 0 else 0.0,
        "crack_length_m": length,
        "crack_count": int(total("crack_count")),
        "transverse_count": int(total("transverse_count")),
        "network_area_m2": network,
        "density_m_per_m2": length / surveyed if surveyed > 0 else None,
        "cracking_pct": min(100.0, 100.0 * cracked / surveyed) if surveyed > 0 else None,
        "zeb_cell_pct": None if no_cells else roads.cells[index].hit_pct,
        **{f"{name}_m": total(f"{name}_m") for name in (*D6433_CLASSES, *TYPES)},
        **{f"{name}_width_mm": _mean(total, name) for name in TYPES if name != "unknown"},
        "geom": shapely.to_wkb(segment.line),
    }


def has_slabs(surface: str) -> bool:
    """Return whether a road of such a surface is rated by slabs.

    >>> [has_slabs(name) for name in ("PCC slabs", "Beton", "Asphaltbeton", "asphalt concrete")]
    [True, True, False, False]
    """
    concrete, asphalt = (
        any(word in surface.lower() for word in words) for words in (CONCRETE, ASPHALT)
    )
    return concrete and not asphalt


def _mean(total: Callable[[str], float], name: str) -> float | None:
    """Return the mean width of a type, by length."""
    meters = total(f"{name}_wide_m")
    return total(f"{name}_mm_m") / meters if meters > 0 else None


def priority_of(value: float, options: SegmentOptions) -> str:
    """Return the class of a value of the column by which segments are ranked."""
    medium, high = options.limits
    if value > high:
        return "high"
    return "medium" if value >= medium else "low"


def ranks(rows: Sequence[dict[str, Any]], options: SegmentOptions) -> list[int | None]:
    """Rank segments by a column, density, id; None if one was seen too little or has no value."""
    keys = {}
    for index, row in enumerate(rows):
        value = row[options.rank_by]
        if value is not None and row["coverage_pct"] >= options.min_coverage_pct:
            keys[index] = (-value, -(row["density_m_per_m2"] or 0.0), row["segment_id"])
    order = sorted(keys, key=lambda index: keys[index])
    place = {index: rank for rank, index in enumerate(order, start=1)}
    return [place.get(index) for index in range(len(rows))]


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
    write_text(path, seal_csv(text.getvalue()), "utf-8-sig")


def _short(value: Any) -> Any:
    """Return a cell: few digits, and no text that a spreadsheet would run."""
    if isinstance(value, str) and value.startswith(tuple(FORMULA)):
        return f"'{value}"
    return f"{value:.{CSV_DIGITS}g}" if isinstance(value, float) else value
