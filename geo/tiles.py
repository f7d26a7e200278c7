"""Raster files described and checked without reading their pixels."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from shapely.geometry import Polygon

from geo.errors import InputError
from geo.grid import Grid
from geo.listing import find_files
from geo.reading import driver_of, gdal_settings

WEB_MERCATOR = frozenset({3857, 900913, 3785, 102100})
NAMED_REASONS = 3
"""Problems that an error about a whole set of tiles spells out."""


@dataclass(frozen=True)
class Tile:
    """A usable input raster: 8-bit, one, three or four bands, in a projected CRS."""

    path: str
    driver: str
    transform: Affine
    crs: CRS
    shape: tuple[int, int]
    bands: int
    dtype: str
    nodata: float | None

    @property
    def grid(self) -> Grid:
        """The tile's own pixel grid."""
        return Grid(self.transform, self.crs, self.shape)

    @property
    def gsd_m(self) -> float:
        """Ground sampling distance in meters."""
        return self.grid.gsd_m


@dataclass(frozen=True)
class TileProblem:
    """A file that cannot be used, or not wholly.

    Attributes:
        path: the file.
        reason: what is wrong and what to do, without the file's name.
        footprint: the area that it should have covered, in ``crs``; None where unknown.
        crs: of the footprint.
    """

    path: str
    reason: str
    footprint: Polygon | None = None
    crs: CRS | None = None


@dataclass(frozen=True)
class Scan:
    """What was found under a ``tiles=`` value, in byte order of the paths."""

    tiles: tuple[Tile, ...]
    problems: tuple[TileProblem, ...]


def scan(tiles: str | Sequence[str]) -> Scan:
    """Find and check rasters; a file that cannot be used is a problem, not an exception.

    Args:
        tiles: folder (recursive), glob, one raster, text list of paths, or several of these.

    Raises:
        InputError: nothing was found, or none of it can be used.
    """
    with gdal_settings():
        checked = [inspect(path) for path in find_files(tiles)]
    usable = tuple(item for item in checked if isinstance(item, Tile))
    problems = tuple(item for item in checked if isinstance(item, TileProblem))
    if not usable:
        raise InputError(f"no usable tile in {tiles}: {summary(problems)}")
    return Scan(usable, problems)


def summary(problems: Sequence[TileProblem]) -> str:
    """Spell out the first problems in one sentence and count the rest."""
    named = "; ".join(f"{p.path} {p.reason}" for p in problems[:NAMED_REASONS])
    rest = len(problems) - NAMED_REASONS
    return f"{named}; and {rest} more" if rest > 0 else named


def inspect(path: Path) -> Tile | TileProblem:
    """Describe one file, or say why it cannot be used."""
    try:
        if path.stat().st_size == 0:
            return TileProblem(str(path), "is empty; copy it again or remove it")
        driver = driver_of(path)
        if driver is None:
            return TileProblem(
                str(path), "is not a GeoTIFF, JPEG 2000, PNG or JPEG; convert it to a GeoTIFF"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # becomes a problem below
            with rasterio.open(path, driver=driver, sharing=False) as dataset:
                return _describe(path, driver, dataset)
    except (OSError, RasterioError, ValueError) as error:  # ValueError: undecodable metadata
        return TileProblem(str(path), f"cannot be opened ({_brief(error)}); replace or remove it")


def _describe(path: Path, driver: str, dataset: Any) -> Tile | TileProblem:
    crs = dataset.crs or _prj_beside(path)
    tile = Tile(
        path=str(path),
        driver=driver,
        transform=dataset.transform,
        crs=crs,
        shape=(dataset.height, dataset.width),
        bands=dataset.count,
        dtype=dataset.dtypes[0],
        nodata=dataset.nodata,
    )
    if not crs:
        remedy = f"gdal_edit.py -a_srs EPSG:25832 {path.name}, or a .prj file beside it"
        return TileProblem(str(path), f"has no coordinate system; set the right one ({remedy})")
    if dataset.transform.is_identity:
        return TileProblem(str(path), "has no position; add a geotransform or a world file")
    if not abs(dataset.transform.determinant) > 0:
        return TileProblem(str(path), "has pixels without a size; mend its geotransform")
    reason = _bad_crs(tile) or _bad_bands(dataset) or _cut_short(path, dataset)
    if reason is None:
        return tile
    return TileProblem(str(path), reason, tile.grid.footprint(), crs)


def _prj_beside(path: Path) -> CRS | None:
    """The CRS in a .prj file of the same stem (PNG and JPEG cannot hold one), if there is one."""
    prj = path.with_suffix(".prj")
    if not prj.is_file():
        return None
    try:
        return CRS.from_wkt(prj.read_text(encoding="utf-8"))
    except (CRSError, UnicodeDecodeError):
        return None


def _bad_crs(tile: Tile) -> str | None:
    name = crs_name(tile.crs)
    if tile.crs.is_geographic:
        remedy = f"gdalwarp -t_srs EPSG:{utm_epsg(tile)} in.tif out.tif"
        return f"is in degrees ({name}), where pixels have no size in meters; warp it: {remedy}"
    if not tile.crs.is_projected:
        return f"is in {name}, which is no projected system; warp it to one with gdalwarp"
    if tile.crs.to_epsg() in WEB_MERCATOR:
        return f"is in {name}, whose lengths are not true; warp it to UTM with gdalwarp"
    return None


def _bad_bands(dataset: Any) -> str | None:
    if set(dataset.dtypes) != {"uint8"}:
        remedy = "gdal_translate -ot Byte -scale in.tif out.tif"
        return f"has {dataset.dtypes[0]} pixels, expected uint8; convert it: {remedy}"
    gray_alpha = dataset.count == 2 and dataset.colorinterp[1] == ColorInterp.alpha
    if dataset.count not in (1, 3, 4) and not gray_alpha:
        remedy = "gdal_translate -b 1 -b 2 -b 3 in.tif out.tif"
        return f"has {dataset.count} bands, expected 1, 3 or 4; pick red, green, blue: {remedy}"
    return None


def _cut_short(path: Path, dataset: Any) -> str | None:
    """Compare the file's size with the end of its last blocks; None for formats without a table."""
    rows, cols = dataset.block_shapes[-1]
    row, col = (dataset.height - 1) // rows, (dataset.width - 1) // cols
    for band in {1, dataset.count}:
        for y, x in {(0, 0), (row, 0), (row, col)}:
            offset = dataset.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=band)
            size = dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=band)
            end = int(offset or 0) + int(size or 0)
            if end > os.path.getsize(path):
                has = os.path.getsize(path)
                return f"is truncated ({has} of at least {end} bytes); copy it again"
    return None


def crs_name(crs: CRS) -> str:
    """Name a CRS for people: its authority code, else its own name."""
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.to_dict(projjson=True).get("name", crs))


def utm_epsg(tile: Tile) -> int:
    """EPSG code of the UTM zone (WGS 84) of a tile in degrees."""
    center = tile.grid.footprint().centroid
    zone = min(max(int((center.x + 180) // 6) + 1, 1), 60)
    return (32600 if center.y >= 0 else 32700) + zone


def _brief(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
