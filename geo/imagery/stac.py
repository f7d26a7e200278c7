"""Lists of tiles in the form of STAC: an ItemCollection as JSON, or the same as GeoParquet.

Each item names its rasters as assets. One of them is the tile: the only one that is imagery, or
that with the role visual or data. Nothing is opened here, and no link of an item is followed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from geo.errors import InputError, first_line

ASSETS, GEOMETRY = "assets", "geometry"
"""Columns of STAC as GeoParquet."""

IMAGERY = ("image/tiff", "image/jp2", "image/png", "image/jpeg", "image/vnd.stac.geotiff")
"""Media types of rasters that are read, without their parameters."""

ENDINGS = (".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg")
"""Of rasters whose asset has no type."""

PREFERRED = ("visual", "data")
"""Roles that tell the tile among several rasters."""

ASIDE = frozenset({"thumbnail", "overview", "metadata"})
"""Roles of what is no tile."""

_UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)


@dataclass(frozen=True)
class StacTile:
    """A raster that an item names, and what holds the item's footprint, in degrees."""

    href: str
    outline: shapely.Polygon


def read_stac(path: Path) -> list[StacTile] | None:
    """Read the items of a file; None if it is no STAC.

    Args:
        path: JSON or GeoParquet.

    Raises:
        InputError: an item has no footprint, or not one raster that could be the tile; without the
            file's name.
    """
    items = _in_parquet(path) if path.suffix.lower().endswith("parquet") else _in_json(path)
    if items is None:
        return None
    return [_tile(number, item) for number, item in enumerate(items)]


def _in_json(path: Path) -> Sequence[Mapping[str, Any]] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        items = content["features"] if content["type"] == "FeatureCollection" else [content]
        is_stac = all(
            item["type"] == "Feature" and isinstance(item[ASSETS], dict) for item in items
        )
    except _UNREADABLE:
        return None
    return items if items and is_stac else None


def _in_parquet(path: Path) -> Sequence[Mapping[str, Any]] | None:
    try:
        with pq.ParquetFile(path.absolute()) as file:
            if not {ASSETS, GEOMETRY} <= set(file.schema_arrow.names):
                return None
            rows = file.read([ASSETS, GEOMETRY]).to_pylist()
    except (*_UNREADABLE, pa.ArrowException):
        return None
    return [{ASSETS: _assets(row[ASSETS]), GEOMETRY: row[GEOMETRY]} for row in rows]


def _assets(value: Any) -> Any:
    """Return assets by name: a struct with empty fields for the items that lack one, or a map."""
    pairs = value.items() if isinstance(value, dict) else value or ()
    return {name: asset for name, asset in pairs if asset is not None}


def _tile(number: int, item: Mapping[str, Any]) -> StacTile:
    name = item.get("id", number)
    try:
        outline = _outline(item[GEOMETRY])
        hrefs = _hrefs(item[ASSETS])
    except (*_UNREADABLE, shapely.errors.ShapelyError) as error:
        raise InputError(f"has a damaged item {name} ({first_line(error)})") from error
    if outline is None or not outline.area:
        raise InputError(f"has no footprint of item {name}; complete or remove it")
    if len(hrefs) != 1:
        raise InputError(
            f"names {len(hrefs)} rasters in item {name}; give one of them the role visual or data"
        )
    return StacTile(hrefs[0], outline.convex_hull)


def _outline(value: Any) -> shapely.Geometry | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        return shapely.from_wkb(value)
    return shapely.from_geojson(json.dumps(value))


def _hrefs(assets: Mapping[str, Any]) -> list[str]:
    """Return the rasters of an item that may be the tile."""
    rasters = {name: asset for name, asset in assets.items() if _is_raster(asset)}
    for role in PREFERRED:
        chosen = [a for name, a in rasters.items() if name == role or role in _roles(a)]
        if len(chosen) == 1:
            return [str(chosen[0]["href"])]
    return [str(asset["href"]) for asset in rasters.values()]


def _is_raster(asset: Mapping[str, Any]) -> bool:
    if _roles(asset) & ASIDE:
        return False
    kind = str(asset.get("type") or "").partition(";")[0].strip().lower()
    ending = str(asset["href"]).partition("?")[0].lower().endswith(ENDINGS)
    return kind in IMAGERY if kind else ending


def _roles(asset: Mapping[str, Any]) -> set[str]:
    return set(asset.get("roles") or ())
