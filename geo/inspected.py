"""Rows of the layer inspected: blocks looked at, then tiles that could not be used."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from rasterio.warp import transform as warp
from shapely.geometry import MultiPolygon, Polygon

from geo.grid import Grid
from geo.parts import InspectedRow
from geo.schema import INSPECTED
from geo.tiles import TileProblem


def inspected_rows(
    blocks: Sequence[InspectedRow], problems: Sequence[TileProblem], grid: Grid
) -> pa.RecordBatch:
    """Rows of the blocks by id, then of the tiles left out."""
    rows = [_block_row(row, grid) for row in sorted(blocks, key=lambda row: row.block_id)]
    rows += [_tile_row(problem, grid) for problem in problems]
    return pa.RecordBatch.from_pylist(rows, schema=INSPECTED.arrow())


def _block_row(row: InspectedRow, grid: Grid) -> dict[str, Any]:
    return {
        "block_id": row.block_id,
        "status": row.status,
        "reason": row.reason or None,
        "tiles_failed": ";".join(row.tiles_failed) or None,
        "valid_pct": row.valid_pct,
        "gsd_mm": row.gsd_mm,
        "survey_date": date.fromisoformat(row.survey_date) if row.survey_date else None,
        "seconds": row.seconds,
        "geom": shapely.to_wkb(MultiPolygon([grid.footprint(row.window)])),
    }


def _tile_row(problem: TileProblem, grid: Grid) -> dict[str, Any]:
    place = _footprint(problem, grid)
    return {
        "status": "failed",
        "reason": problem.reason,
        "tiles_failed": problem.path,
        "geom": None if place is None else shapely.to_wkb(MultiPolygon([place])),
    }


def _footprint(problem: TileProblem, grid: Grid) -> Polygon | None:
    """The footprint of a tile left out, in the mosaic's CRS."""
    if problem.footprint is None or problem.crs is None:
        return None
    x, y = np.array(problem.footprint.exterior.coords).T
    warped = np.column_stack(warp(problem.crs, grid.crs, x, y))
    return Polygon(warped) if np.isfinite(warped).all() else None
