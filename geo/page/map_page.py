"""map.html: one self-contained page that opens by double click and asks no server.

It shows segments, cracks and coverage. Attributes are plain JSON values by column. Geometries are
whole numbers, each vertex as its step from the one before: nested lists of degrees take a browser
seconds to read and to project, a flat list of small numbers in the projection of the screen takes
it a few hundredths.
"""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import shapely
from rasterio.crs import CRS
from rasterio.transform import array_bounds
from rasterio.warp import Resampling, calculate_default_transform, reproject, transform_bounds

from geo.errors import count_of
from geo.files import write_text
from geo.imagery.overview import Overview
from geo.layers.run_rows import MapTerms, failures
from geo.layers.schema import CRACK, INSPECTED, NETWORK, ROAD_SEGMENT, Column, Layer
from geo.layers.sound_map import has_shape
from geo.layers.style import CASING, STATUS, priority_legend, severity_legend
from geo.layers.words import CLASS_WORDS
from geo.options import Rules
from geo.outputs import seal_text
from geo.page.crops import DEGREES, SEAM_DEG, Crop, beyond_seam, worst_first
from geo.page.kinds import MAP_FILTER, map_kinds
from geo.page.preview import WEBP_METHOD, encode_picture
from geo.paths import layer_names, literal
from geo.review.record import read_accuracy

SCREEN_CRS = "EPSG:3857"
"""What web maps draw in; nothing is measured in it."""

AROUND_M = 2 * math.pi * 6_378_137
"""Its width."""

BEYOND_180 = f"+proj=merc +R=6378137 +lon_0=180 +x_0={AROUND_M / 2} +nadgrids=@null +no_defs"
"""The same, but that it goes on where the other begins anew."""

STEPS_PER_M = 1000
"""Units of a meter of the screen's projection: below half a pixel at any zoom of the page."""

FEW_VALUES = 0.1
"""Columns of text with fewer different values per row are stored as numbers of a list."""

TABLE_ROWS = 500
"""Longest table beside the map."""

MAX_CRACKS = 100_000
"""Cracks that a page draws: more make a browser slow."""

SHAPES_AT_ONCE = 10_000
"""Shapes that are encoded together: copies of them all would take 100 MB."""

MAX_IMAGE_BYTES = 8_000_000
"""Larger imagery is left out of a page."""

IMAGE_QUALITY = 75
"""Of the WebP imagery, percent."""

CRACK_COLUMNS = (
    "crack_id",
    "type",
    "severity_d6433",
    "length_m",
    "gap_m",
    "width_mean_mm",
    "width_max_mm",
    "low_m",
    "medium_m",
    "high_m",
    "not_measurable_m",
    "severity_ltpp",
    "area_m2",
    "confidence",
    "segment_id",
)


NOTHING: dict[str, Any] = {
    "columns": [],
    "shapes": {"parts": [], "points": [], "steps": []},
    "ranked": [],
}
"""Records of a layer that is not there."""


def write_map(
    package: Path,
    out: Path,
    backdrop: Overview | None = None,
    crops: Iterable[Crop] = (),
    *,
    max_cracks: int = MAX_CRACKS,
) -> None:
    """Write map.html from a finished GeoPackage.

    Args:
        package: the GeoPackage.
        out: the page.
        backdrop: reduced imagery for the background; None leaves it out.
        crops: imagery at full resolution, shown with what is chosen.
        max_cracks: the worst ones (by severity, then length) are drawn, if there are more.

    Raises:
        OutputError: the page cannot be written.
    """
    data = map_data(package, max_cracks)
    if backdrop is not None:
        data["image"] = _image(backdrop)
    data["crops"] = [crop.record() for crop in crops]
    write_text(out, seal_text(page(data)))


def page(data: dict[str, Any]) -> str:
    """Put the page together; "<" in the data cannot end the script that holds it."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    parts = {
        "title": html.escape(data["title"]),
        "leaflet.css": re.sub(r"url\(.*?\)", "none", _static("leaflet.css")),
        "map.css": _static("map.css"),
        "data": text.replace("<", "\\u003c"),
        "leaflet.js": _static("leaflet.js"),
        "shapes.js": _static("shapes.js"),
        "map.js": _static("map.js"),
    }
    return re.sub(r"\{\{([\w.]+)\}\}", lambda match: parts[match[1]], _static("map.html"))


def _static(name: str) -> str:
    return files("geo.page").joinpath("static", name).read_text(encoding="utf-8")


def _image(overview: Overview) -> dict[str, Any] | None:
    """Bring imagery to the screen's projection; None if it is too large for a page."""
    rgba = np.dstack((overview.image, overview.valid * np.uint8(255))).transpose(2, 0, 1)
    grid = overview.grid
    rows, cols = grid.shape
    bounds = array_bounds(rows, cols, grid.transform)
    goes_on = bounds_in_degrees(grid.crs, *bounds)[1][1] > 180
    screen = BEYOND_180 if goes_on else SCREEN_CRS
    transform, width, height = calculate_default_transform(grid.crs, screen, cols, rows, *bounds)
    warped = np.zeros((4, height, width), np.uint8)
    reproject(
        rgba,
        warped,
        src_transform=grid.transform,
        src_crs=grid.crs,
        dst_transform=transform,
        dst_crs=screen,
        resampling=Resampling.bilinear,
    )
    picture = encode_picture(warped, "WEBP", QUALITY=IMAGE_QUALITY, METHOD=WEBP_METHOD)
    if len(picture) > MAX_IMAGE_BYTES:
        return None
    url = "data:image/webp;base64," + base64.b64encode(picture).decode("ascii")
    bounds = bounds_in_degrees(screen, *array_bounds(height, width, transform))
    return {"url": url, "bounds": bounds}


def map_data(package: Path, max_cracks: int) -> dict[str, Any]:
    """Collect a finished GeoPackage for the page."""
    cracks, total = _cracks(package, max_cracks)
    segments = NOTHING
    if ROAD_SEGMENT.name in layer_names(package):
        found = geopandas.read_file(literal(package), layer=ROAD_SEGMENT.name)
        segments = records(found, ROAD_SEGMENT, _by_rank(found))
    inspected = geopandas.read_file(literal(package), layer=INSPECTED.name)
    placed = inspected[has_shape(inspected)]
    networks = geopandas.read_file(literal(package), layer=NETWORK.name)
    summary = (
        f"{count_of(len(total), 'crack')}, {float(total['length_m'].sum()):.1f} m. "
        f"{count_of(len(networks), 'network')}, {float(networks['area_m2'].sum()):.2f} m². "
        f"{_blocks(inspected)}"
    )
    worst = f" The worst {len(cracks)} cracks are drawn, by severity and length."
    shown = worst if len(cracks) < len(total) else ""
    terms, accuracy, failed = MapTerms.read(package), read_accuracy(package), failures(inspected)
    judged = f" {accuracy.text()}" if accuracy else ""
    kinds = map_kinds(terms.rules.segments.rank_by)
    return {
        "title": "Crack map",
        "kinds": {name: asdict(kind) for name, kind in kinds.items()},
        "filter": asdict(MAP_FILTER),
        "header": _header(package, inspected, terms),
        "summary": summary + shown + judged,
        "note": terms.not_claimed,
        "legend": legend(terms.rules),
        "failures": failed[:TABLE_ROWS],
        "failed": len(failed),
        "bounds": bounds_of(placed),
        "image": None,
        "crops": [],
        "cracks": records(cracks, CRACK, list(range(min(len(cracks), TABLE_ROWS)))),
        "networks": records(networks, NETWORK, _by_area(networks)),
        "segments": segments,
        "inspected": records(placed, INSPECTED, []),
    }


def _header(
    package: Path, inspected: geopandas.GeoDataFrame, terms: MapTerms
) -> list[tuple[str, str]]:
    """Return what the page says of its origin: words and values."""
    cracks = pyogrio.read_dataframe(
        literal(package),
        layer=CRACK.name,
        columns=["survey_date"],
        read_geometry=False,
        max_features=1,
    )
    return terms.origin(inspected, cracks)


def legend(rules: Rules) -> dict[str, Any]:
    """Return the keys, labels and colors of what the page draws, and the border of lines."""
    legends = {
        "priority": priority_legend(rules.segments),
        "severity": severity_legend(rules.severity),
        "status": STATUS,
    }
    return {
        "casing": CASING,
        **{what: [asdict(entry) for entry in entries] for what, entries in legends.items()},
    }


def _cracks(package: Path, most: int) -> tuple[geopandas.GeoDataFrame, pd.DataFrame]:
    """Read the worst cracks, and the table of all."""
    table = pyogrio.read_dataframe(
        literal(package),
        layer=CRACK.name,
        columns=list(CRACK_COLUMNS),
        read_geometry=False,
        fid_as_index=True,
    )
    chosen = worst_first(table.sort_values("crack_id"), "length_m").head(most)
    lines = pyogrio.read_dataframe(
        literal(package), layer=CRACK.name, columns=["crack_id"], fid_as_index=True
    )
    worst = chosen[list(CRACK_COLUMNS)]
    return geopandas.GeoDataFrame(
        worst, geometry=lines.geometry.loc[worst.index], crs=lines.crs
    ).reset_index(drop=True), table


def _by_area(networks: geopandas.GeoDataFrame) -> list[int]:
    """Return the rows of networks, largest first."""
    order = networks.sort_values(["area_m2", "network_id"], ascending=[False, True]).index
    return [int(place) for place in order[:TABLE_ROWS]]


def _by_rank(segments: geopandas.GeoDataFrame) -> list[int]:
    """Return the rows of ranked segments, worst first."""
    ranked = segments["rank"].reset_index(drop=True).dropna().sort_values()
    return [int(place) for place in ranked.index[:TABLE_ROWS]]


def _blocks(inspected: geopandas.GeoDataFrame) -> str:
    blocks = int(inspected["block_id"].notna().sum())
    failed = int(inspected["status"].isin(["failed", "partial"]).sum())
    if not failed:
        return f"Nothing failed in {blocks} {'block' if blocks == 1 else 'blocks'}."
    files = len(inspected) - blocks
    places = count_of(blocks, "block") + (f" and {count_of(files, 'file')}" if files else "")
    return f"Failed, wholly or in part: {failed} of {places}."


def records(frame: geopandas.GeoDataFrame, layer: Layer, ranked: list[int]) -> dict[str, Any]:
    """Return attributes by column, shapes, and the rows of the table, worst first.

    Columns that people have added are left out, and from the table rows whose shape they removed.
    """
    known = {column.name: column for column in layer.columns}
    names = [column for column in frame.columns if column in known]
    shapes = encode_shapes(frame.geometry)
    return {
        "columns": [_describe(known[n]) | _values(frame[n]) for n in names],
        "shapes": shapes,
        "ranked": [row for row in ranked if shapes["parts"][row]],
    }


def _describe(column: Column) -> dict[str, Any]:
    """Return what the page says of a column: words, unit, meaning, and its classes in words."""
    about = {"name": column.name, "label": column.label, "unit": column.sign}
    return about | {"meaning": column.meaning, "words": CLASS_WORDS.get(column.name, {})}


def _values(column: pd.Series) -> dict[str, list[Any]]:
    """Return a column's values, or codes into its levels where few texts occur often."""
    plain = _plain_values(column)
    if not isinstance(next(filter(None, plain), None), str):
        return {"values": plain}
    levels = {text: code for code, text in enumerate(dict.fromkeys(plain))}
    if len(levels) > max(1, FEW_VALUES * len(plain)):
        return {"values": plain}
    return {"levels": list(levels), "codes": [levels[text] for text in plain]}


def _plain_values(column: pd.Series) -> list[Any]:
    if column.dtype == np.float64:  # most columns
        return [None if v != v else float(f"{v:.6g}") for v in column.tolist()]
    values: list[Any] = column.astype(object).where(column.notna(), None).tolist()
    if {type(value) for value in values} <= {str, type(None)}:
        return values
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    if value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, pd.Timestamp):
        return str(value.date())
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}")
    return str(value)


def encode_shapes(shapes: geopandas.GeoSeries) -> dict[str, list[int]]:
    """Encode lines, or the outer rings of polygons, for `geo/page/static/shapes.js`.

    Args:
        shapes: N (Multi)LineStrings or (Multi)Polygons with a CRS.

    Returns:
        parts: (N,) number of lines of each; points: vertices of each line; steps: x and y of each
        vertex minus those of the one before it, of whatever line, in STEPS_PER_M.

    >>> street = shapely.LineString([(0, 0), (0.002, 0.003)])
    >>> encode_shapes(geopandas.GeoSeries([street], crs=SCREEN_CRS))
    {'parts': [1], 'points': [2], 'steps': [0, 0, 2, 3]}
    """
    found: dict[str, list[int]] = {"parts": [], "points": [], "steps": []}
    last = np.zeros((1, 2), np.int64)
    for low in range(0, len(shapes), SHAPES_AT_ONCE):
        screen = shapes.iloc[low : low + SHAPES_AT_ONCE].to_crs(SCREEN_CRS).to_numpy()
        parts, owner = shapely.get_parts(screen, return_index=True)
        full = ~shapely.is_empty(parts)
        parts, owner = parts[full], owner[full]
        areas = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
        parts[areas] = shapely.get_exterior_ring(parts[areas])
        vertices, line = shapely.get_coordinates(parts, return_index=True)
        vertices[vertices[:, 0] < AROUND_M * SEAM_DEG / 360, 0] += AROUND_M
        places = np.rint(vertices * STEPS_PER_M).astype(np.int64)
        found["parts"] += np.bincount(owner, minlength=len(screen)).tolist()
        found["points"] += np.bincount(line, minlength=len(parts)).tolist()
        found["steps"] += np.diff(places, axis=0, prepend=last).ravel().tolist()
        last = places[-1:] if len(places) else last
    return found


def bounds_of(placed: geopandas.GeoDataFrame) -> list[list[float]]:
    """Return the corners of what a table holds, latitude before longitude."""
    if placed.empty:
        return [[0.0, 0.0], [1.0, 1.0]]
    return bounds_in_degrees(placed.crs.to_wkt(), *placed.total_bounds)


def bounds_in_degrees(
    crs: CRS | str, left: float, bottom: float, right: float, top: float
) -> list[list[float]]:
    """Return the southwestern and northeastern corner, latitude before longitude."""
    west, south, east, north = transform_bounds(crs, DEGREES, left, bottom, right, top)
    return [[south, beyond_seam(west)], [north, beyond_seam(east)]]
