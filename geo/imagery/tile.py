"""What is known of an input raster before its pixels are read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from affine import Affine
from rasterio.crs import CRS
from shapely.geometry import Polygon

from geo.grid import Grid

WEB_MERCATOR = frozenset({3857, 900913, 3785, 102100})
"""EPSG codes whose lengths are off by 1 / cos(latitude): fit to show, not to measure in."""

NO_STAMP = (0, 0)
"""Of a file whose size and time are not known."""


@dataclass(frozen=True)
class Tile:
    """A usable input raster: 8 or 16 bits, one, three or four bands, in any known CRS.

    Attributes:
        path: absolute path or URL.
        driver: the only GDAL driver that may open it.
        transform: pixel corner (col, row) -> world in ``crs``.
        crs: projected or geographic.
        shape: (rows, cols).
        bands: number of bands, an alpha band included.
        dtype: uint8 or uint16.
        nodata: value of missing pixels, if it has one.
        stamp: (bytes, mtime in ns), to notice another file under the same name.
    """

    path: str
    driver: str
    transform: Affine
    crs: CRS
    shape: tuple[int, int]
    bands: int
    dtype: str
    nodata: float | None
    stamp: tuple[int, int] = NO_STAMP

    @property
    def grid(self) -> Grid:
        """The tile's own pixel grid."""
        return Grid(self.transform, self.crs, self.shape)

    @property
    def gsd_m(self) -> float:
        """Ground sampling distance in meters, of a tile whose lengths are true."""
        return self.grid.gsd_m


@dataclass(frozen=True)
class ListedTile:
    """A raster that a tile index places; its header is read with its first window."""

    path: str
    footprint: Polygon
    crs: CRS
    stamp: tuple[int, int] = NO_STAMP


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


@lru_cache(maxsize=64)
def crs_name(crs: CRS) -> str:
    """Name a CRS for people: its authority code, else its own name."""
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.to_dict(projjson=True).get("name", crs))


def same_crs(one: CRS, other: CRS) -> bool:
    """Whether two systems are one; a scan keeps equal systems as one object, which is quick."""
    return one is other or bool(one == other)


@lru_cache(maxsize=64)
def is_metric(crs: CRS) -> bool:
    """Whether lengths and areas may be measured in a CRS: projected, and not Web Mercator."""
    return bool(crs.is_projected) and crs.to_epsg() not in WEB_MERCATOR
