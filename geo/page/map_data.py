"""What map.html shows: segments, cracks, coverage, as plain JSON values by column."""

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
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from geo.layers.run_rows import MapTerms
from geo.layers.schema import CENTERLINE, CRACK, INSPECTED, ROAD_SEGMENT, Layer
from geo.layers.style import STATUS, Entry, condition_legend, severity_legend
from geo.options import Rules

DEGREES = "EPSG:4326"

FEW_VALUES = 0.1
"""Columns of text with fewer different values per row are stored as numbers of a list."""

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

    max_cracks: int = 100_000
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
    terms = MapTerms.read(package)
    return {
        "summary": summary + shown,
        "note": terms.not_claimed,
        "legend": legend(terms.rules),
        "failures": _failures(inspected),
        "bounds": _bounds(placed),
        "image": None,
        "cracks": records(cracks, CRACK, _first(cracks)),
        "segments": _NOTHING if segments is None else _segments(segments),
        "inspected": records(placed, INSPECTED, []),
    }


def _bounds(placed: geopandas.GeoDataFrame) -> list[list[float]]:
    if placed.empty:
        return [[0.0, 0.0], [1.0, 1.0]]
    return bounds_in_degrees(placed.crs.to_wkt(), *placed.total_bounds)


def bounds_in_degrees(
    crs: CRS | str, left: float, bottom: float, right: float, top: float
) -> list[list[float]]:
    """Southwestern and northeastern corner, latitude before longitude."""
    west, south, east, north = transform_bounds(crs, DEGREES, left, bottom, right, top)
    return [[south, west], [north, east]]


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
    "columns": [],
    "shapes": {"parts": [], "points": [], "steps": []},
    "ranked": [],
}


def _read(package: Path, layer: str) -> geopandas.GeoDataFrame:
    return geopandas.read_file(package, layer=layer)


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
    place = pd.Index(chosen["crack_id"]).get_indexer(lines["crack_id"])
    drawn = np.flatnonzero(place >= 0)
    by_crack = drawn[np.argsort(place[drawn], kind="stable")]
    shapes = shapely.multilinestrings(lines.geometry.to_numpy()[by_crack], indices=place[by_crack])
    worst = chosen[list(CRACK_COLUMNS)]
    return geopandas.GeoDataFrame(worst, geometry=shapes, crs=lines.crs), table


def _failures(inspected: geopandas.GeoDataFrame) -> list[list[str]]:
    """File or block, and reason; also of tiles that have no place on the map."""
    failed = inspected[inspected["status"].isin(["failed", "partial"])].head(TABLE_ROWS)
    where = failed["block_id"].fillna(failed["tiles_failed"])
    return [[str(place), str(why)] for place, why in zip(where, failed["reason"], strict=True)]


def _blocks(inspected: geopandas.GeoDataFrame) -> str:
    blocks = int(inspected["block_id"].notna().sum())
    failed = int(inspected["status"].isin(["failed", "partial"]).sum())
    if not failed:
        return f"Nothing failed in {blocks} {'block' if blocks == 1 else 'blocks'}."
    return f"Failed, wholly or in part: {failed} of {blocks} blocks and the files behind them."


def _first(cracks: geopandas.GeoDataFrame) -> list[int]:
    return list(range(min(len(cracks), TABLE_ROWS)))  # they are sorted already


def _by_rank(segments: geopandas.GeoDataFrame) -> list[int]:
    ranked = segments["rank"].reset_index(drop=True).dropna().sort_values()
    return [int(place) for place in ranked.index[:TABLE_ROWS]]


def _segments(segments: geopandas.GeoDataFrame) -> dict[str, Any]:
    return records(segments, ROAD_SEGMENT, _by_rank(segments))


def records(frame: geopandas.GeoDataFrame, layer: Layer, ranked: list[int]) -> dict[str, Any]:
    """Attributes by column, shapes and the rows of the table beside the map, worst first."""
    meanings = {column.name: column.described for column in layer.columns}
    names = [str(column) for column in frame.columns if column != frame.geometry.name]
    return {
        "columns": [{"name": n, "meaning": meanings[n]} | _values(frame[n]) for n in names],
        "shapes": encoded(frame.geometry),
        "ranked": ranked,
    }


def _values(column: pd.Series) -> dict[str, list[Any]]:
    """A column's values, or codes into its levels where few texts occur often."""
    plain = [_plain(value) for value in column]
    if not isinstance(next(filter(None, plain), None), str):
        return {"values": plain}
    levels = {text: code for code, text in enumerate(dict.fromkeys(plain))}
    if len(levels) > max(1, FEW_VALUES * len(plain)):
        return {"values": plain}
    return {"levels": list(levels), "codes": [levels[text] for text in plain]}


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


# ==== geo.page.map_data: Geometries for map.html: whole numbers, each vertex as its step from the one before. Nested lists of degrees take a browser seconds to read and to project; a flat list of small numbers in the projection of the screen takes it a few hundredths.


SCREEN_CRS = "EPSG:3857"
"""What web maps draw in; nothing is measured in it."""

STEPS_PER_M = 1000
"""Units of a meter of the screen's projection: below half a pixel at any zoom of the page."""


def encoded(shapes: geopandas.GeoSeries) -> dict[str, list[int]]:
    """Lines, or the outer rings of polygons, for `geo/page/static/shapes.js`.

    Args:
        shapes: N (Multi)LineStrings or (Multi)Polygons with a CRS.

    Returns:
        parts: (N,) number of lines of each; points: vertices of each line; steps: x and y of each
        vertex minus those of the one before it, of whatever line, in STEPS_PER_M.

    >>> street = shapely.LineString([(0, 0), (0.002, 0.003)])
    >>> encoded(geopandas.GeoSeries([street], crs=SCREEN_CRS))
    {'parts': [1], 'points': [2], 'steps': [0, 0, 2, 3]}
    """
    screen = shapes.to_crs(SCREEN_CRS).to_numpy()
    parts, owner = shapely.get_parts(screen, return_index=True)
    areas = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    parts[areas] = shapely.get_exterior_ring(parts[areas])
    vertices, line = shapely.get_coordinates(parts, return_index=True)
    places = np.rint(vertices * STEPS_PER_M).astype(np.int64)
    return {
        "parts": np.bincount(owner, minlength=len(screen)).tolist(),
        "points": np.bincount(line, minlength=len(parts)).tolist(),
        "steps": np.diff(places, axis=0, prepend=0).ravel().tolist(),
    }
