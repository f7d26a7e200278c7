"""What map.html shows: segments, cracks, coverage, in degrees, as plain JSON values."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import shapely

from geo.legend import STATUS, Entry, condition_legend, severity_legend
from geo.rules import MapTerms, Rules
from geo.schema import CENTERLINE, CRACK, INSPECTED, ROAD_SEGMENT, Layer

DEGREES = "EPSG:4326"
DIGITS = 8
"""Decimals of a degree: about a millimeter."""

TABLE_ROWS = 500
"""Longest table beside the map."""

WORST_FIRST = ("high", "medium", "low")
"""Severities in which cracks are drawn and listed, any others after them."""

CRACK_COLUMNS = (
    "crack_id",
    "length_m",
    "width_mean_mm",
    "width_max_mm",
    "area_m2",
    "type",
    "severity_d6433",
    "severity_ltpp",
    "confidence",
    "width_reliable",
    "segment_id",
)


@dataclass(frozen=True)
class MapOptions:
    """Bounds of the page.

    Attributes:
        max_cracks: the worst ones (by severity, then length) are drawn, if there are more.
        max_image_bytes: larger imagery is left out.
    """

    max_cracks: int = 50_000
    max_image_bytes: int = 8_000_000


def map_data(package: Path, options: MapOptions) -> dict[str, Any]:
    """Collect a finished GeoPackage for the page."""
    names = {str(name) for name, _ in pyogrio.list_layers(package)}
    cracks, total = _cracks(package, options.max_cracks)
    segments = _read(package, ROAD_SEGMENT.name) if ROAD_SEGMENT.name in names else None
    inspected = _read(package, INSPECTED.name)
    placed = inspected[inspected.geometry.notna()]
    summary = f"{len(total)} cracks, {float(total['length_m'].sum()):.1f} m. {_blocks(inspected)}"
    worst = f" The worst {len(cracks)} cracks are drawn, by severity and length."
    shown = worst if len(cracks) < len(total) else ""
    left, bottom, right, top = placed.total_bounds if len(placed) else (0.0, 0.0, 1.0, 1.0)
    terms = MapTerms.read(package)
    return {
        "summary": summary + shown,
        "note": terms.not_claimed,
        "legend": legend(terms.rules),
        "bounds": [[bottom, left], [top, right]],
        "image": None,
        "cracks": _records(cracks, CRACK, _first(cracks)),
        "segments": _NOTHING if segments is None else _segments(segments),
        "inspected": _records(placed, INSPECTED, []),
    }


def legend(rules: Rules) -> dict[str, list[dict[str, str]]]:
    """Keys, labels and colors of what the page draws."""

    def listed(entries: tuple[Entry, ...]) -> list[dict[str, str]]:
        return [asdict(entry) for entry in entries]

    return {
        "condition": listed(condition_legend(rules.segments)),
        "severity": listed(severity_legend(rules.severity)),
        "status": listed(STATUS),
    }


_NOTHING: dict[str, Any] = {
    "columns": [], "meanings": [], "rows": [], "shapes": [], "ranked": [],
}  # fmt: skip


def _read(package: Path, layer: str) -> geopandas.GeoDataFrame:
    return geopandas.read_file(package, layer=layer).to_crs(DEGREES)


def _cracks(package: Path, most: int) -> tuple[geopandas.GeoDataFrame, pd.DataFrame]:
    """The worst cracks with their centerlines, and the table of all."""
    table = pyogrio.read_dataframe(
        package, layer=CRACK.name, columns=list(CRACK_COLUMNS), read_geometry=False
    )
    grade = table["severity_d6433"].map({name: k for k, name in enumerate(WORST_FIRST)})
    ranked = table.assign(grade=grade.fillna(len(WORST_FIRST)))
    by = ["grade", "length_m", "crack_id"]
    chosen = ranked.sort_values(by, ascending=[True, False, True]).head(most)
    lines = pyogrio.read_dataframe(package, layer=CENTERLINE.name, columns=["crack_id"])
    lines = lines[lines["crack_id"].isin(set(chosen["crack_id"]))].to_crs(DEGREES)
    order = {crack_id: place for place, crack_id in enumerate(chosen["crack_id"])}
    place = lines["crack_id"].map(order).to_numpy(dtype=np.int64)
    by_crack = np.argsort(place, kind="stable")
    shapes = shapely.multilinestrings(lines.geometry.to_numpy()[by_crack], indices=place[by_crack])
    return geopandas.GeoDataFrame(chosen[list(CRACK_COLUMNS)], geometry=shapes, crs=DEGREES), table


def _blocks(inspected: geopandas.GeoDataFrame) -> str:
    blocks = int(inspected["block_id"].notna().sum())
    failed = int(inspected["status"].isin(["failed", "partial"]).sum())
    if not failed:
        return f"Nothing failed in {blocks} blocks."
    return f"Of {blocks} blocks and the files behind them {failed} failed, wholly or in part."


def _first(cracks: geopandas.GeoDataFrame) -> list[int]:
    return list(range(min(len(cracks), TABLE_ROWS)))  # they are sorted already


def _by_rank(segments: geopandas.GeoDataFrame) -> list[int]:
    ranked = segments["rank"].reset_index(drop=True).dropna().sort_values()
    return [int(place) for place in ranked.index[:TABLE_ROWS]]


def _segments(segments: geopandas.GeoDataFrame) -> dict[str, Any]:
    return _records(segments, ROAD_SEGMENT, _by_rank(segments))


def _records(frame: geopandas.GeoDataFrame, layer: Layer, ranked: list[int]) -> dict[str, Any]:
    columns = [str(column) for column in frame.columns if column != frame.geometry.name]
    meanings = {column.name: column.described for column in layer.columns}
    values = [[_plain(value) for value in frame[column]] for column in columns]
    return {
        "columns": columns,
        "meanings": [meanings[name] for name in columns],
        "rows": [list(row) for row in zip(*values, strict=True)],
        "shapes": [_lat_lon(shape) for shape in frame.geometry],
        "ranked": ranked,
    }


def _plain(value: Any) -> Any:
    if value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}")
    return str(value)


def _lat_lon(shape: shapely.Geometry) -> list[Any]:
    """Nested [lat, lon] of lines, or of the outer rings of polygons."""
    parts = shapely.get_parts(shape)
    rings = [part.exterior if part.geom_type == "Polygon" else part for part in parts]
    return [np.round(np.array(ring.coords)[:, 1::-1], DIGITS).tolist() for ring in rings]
