"""Rows of the layer road_segment, and the same as a table for spreadsheets."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import shapely

from geo.errors import OutputError
from geo.grid import Grid
from geo.layers.classes import TYPES
from geo.layers.schema import ROAD_SEGMENT
from geo.layers.segments import SegmentSums, ranks
from geo.options import SegmentOptions

CSV_DIGITS = 6
"""Millimeters on a road of a kilometer."""

SEVERITIES = ("low", "medium", "high", "not_measurable")


def segment_rows(
    sums: Sequence[SegmentSums], grid: Grid, options: SegmentOptions
) -> pa.RecordBatch:
    """Rows of the layer road_segment, in the order of the roads."""
    rows = [
        _row(one, rank, grid, options)
        for one, rank in zip(sums, ranks(sums, options.min_coverage_pct), strict=True)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=ROAD_SEGMENT.arrow())


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text.getvalue(), encoding="utf-8-sig", newline="")
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path} could not be written ({error}); check the folder") from error


def _short(value: Any) -> Any:
    return f"{value:.{CSV_DIGITS}g}" if isinstance(value, float) else value


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
