"""Rows of the layers inspected and run: what was looked at, what made the map, its limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyogrio
import shapely
from rasterio.warp import transform as warp
from shapely.geometry import MultiPolygon, Polygon

from geo.cracks.parts import InspectedRow
from geo.grid import Grid
from geo.imagery.headers import TileProblem
from geo.layers.schema import INSPECTED, RUN
from geo.layers.words import UNKNOWN
from geo.options import AssembleOptions, Rules, SeverityOptions
from geo.paths import literal


@dataclass(frozen=True)
class RunRecord:
    """Provenance of a run; texts, JSON where the schema says so."""

    model_hash: str = ""
    config: str = ""
    inputs: str = ""
    versions: str = ""
    started: str = ""
    finished: str = ""
    accuracy: str = ""


@dataclass(frozen=True)
class MapTerms:
    """What the layer run of a finished GeoPackage says to readers of the map."""

    rules: Rules
    not_claimed: str
    model: str
    run_id: str

    @classmethod
    def read(cls, package: Path) -> MapTerms:
        """Read the terms of a finished GeoPackage."""
        row = pyogrio.read_dataframe(literal(package), layer=RUN.name).iloc[0]
        return cls(
            Rules.of_text(row["rules"]),
            *(str(row[name] or "") for name in ("not_claimed", "model", "run_id")),
        )

    def origin(self, *tables: pd.DataFrame) -> list[tuple[str, str]]:
        """List when cracks or blocks of tables were surveyed, and what mapped them, with words."""
        days = ", ".join(survey_days(*tables))
        named = (("surveyed", days), ("model", self.model), ("run", self.run_id))
        return [(what, value or UNKNOWN) for what, value in named]


def survey_days(*tables: pd.DataFrame) -> list[str]:
    """List the days in the columns survey_date of tables, in order; nothing where all are empty."""
    return sorted({str(day)[:10] for table in tables for day in table["survey_date"].dropna()})


def inspected_rows(
    blocks: Sequence[InspectedRow],
    problems: Sequence[TileProblem],
    grid: Grid,
    survey_date: date | None,
) -> pa.RecordBatch:
    """Return the rows of the blocks by id, then of the tiles left out."""
    about = {"survey_date": survey_date}
    rows = [_block_row(row, grid) | about for row in sorted(blocks, key=lambda row: row.block_id)]
    rows += [_tile_row(problem, grid) for problem in problems]
    return pa.RecordBatch.from_pylist(rows, schema=INSPECTED.arrow())


def _block_row(row: InspectedRow, grid: Grid) -> dict[str, Any]:
    imagery = row.imagery()
    if imagery is None and row.status == "failed":
        imagery = MultiPolygon([row.window.polygon()])  # where nobody has looked
    return {
        "block_id": row.block_id,
        "status": row.status,
        "reason": row.reason or None,
        "tiles_failed": ";".join(row.tiles_failed) or None,
        "valid_pct": row.valid_pct,
        "gsd_mm": row.gsd_mm,
        "seconds": row.seconds,
        "geom": None
        if imagery is None
        else shapely.to_wkb(shapely.transform(imagery, grid.to_world)),
    }


def _tile_row(problem: TileProblem, grid: Grid) -> dict[str, Any]:
    place = _footprint(problem, grid)
    return {
        "status": "failed",
        "reason": problem.reason,
        "tiles_failed": problem.path,
        "geom": None if place is None else shapely.to_wkb(MultiPolygon([place])),
    }


def failures(inspected: geopandas.GeoDataFrame) -> list[tuple[str, str]]:
    """List what failed of a layer inspected: block, or files without one, and reason."""
    failed = inspected[inspected["status"].isin(["failed", "partial"])]
    where = failed["block_id"].fillna(failed["tiles_failed"])
    return [(str(place), str(why)) for place, why in zip(where, failed["reason"], strict=True)]


def _footprint(problem: TileProblem, grid: Grid) -> Polygon | None:
    """Return the footprint of a tile left out, in the mosaic's CRS."""
    if problem.footprint is None or problem.crs is None:
        return None
    x, y = np.array(problem.footprint.exterior.coords).T
    warped = np.column_stack(warp(problem.crs, grid.crs, x, y))
    return Polygon(warped) if np.isfinite(warped).all() else None


def run_rows(run: RunRecord, options: AssembleOptions, not_measurable_m: float) -> pa.RecordBatch:
    """Return the one row of the layer run."""
    row = {
        "run_id": options.run_id,
        "model": options.model,
        "model_hash": run.model_hash,
        "config": run.config,
        "inputs": run.inputs,
        "versions": run.versions,
        "started": run.started,
        "finished": run.finished,
        "rules": options.rules.text(),
        "accuracy": run.accuracy or None,
        "not_claimed": not_claimed(options.severity, not_measurable_m),
    }
    return pa.RecordBatch.from_pylist([row], schema=RUN.arrow())


def not_claimed(severity: SeverityOptions, not_measurable_m: float) -> str:
    """Say what must not be read into a map that was made with these limits."""
    return (
        "No pavement condition index: of the distresses of ASTM D6433 only cracks are mapped "
        "(longitudinal and transverse, alligator, block). "
        "Sealed cracks, joints and shadows may be confused with cracks. "
        f"Widths and severities below {severity.measurable_px:g} pixels of the imagery, or from "
        f"pixels above {severity.max_gsd_mm:g} mm, are not given: {not_measurable_m:.1f} m of "
        "cracks. Areas without imagery were not looked at (layer inspected)."
    )
