"""Headers of raster files: described, or refused with the reason and the remedy."""

from __future__ import annotations

import math
import os
import stat
import time
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from shapely.geometry import Polygon

from geo.addresses import without_secrets
from geo.archives import archive_of
from geo.errors import InputError, reason_of
from geo.files import NOT_UTF8, is_utf8, readable
from geo.grid import Grid
from geo.imagery.opening import (
    RETRY_DELAY_S,
    ForeignFile,
    driver_by_suffix,
    driver_of,
    driver_of_bytes,
    end_of_pixels,
    has_end,
    is_remote,
    middle_of_pixels,
    open_dataset,
    remedy_of,
)
from geo.imagery.scale import MOST_ERROR, is_metric, length_error
from geo.imagery.sidecars import crs_beside, no_crs, no_place, prj_file, world_file, world_transform
from geo.imagery.web import NO_STAMP, WEB, look_at
from geo.options import ReadOptions

WGS84 = CRS.from_epsg(4326)

ZONE = 1_000_000
"""Eastings that begin with the number of their zone have this beside it."""

ZONED = {31: "EPSG:5649", 32: "EPSG:4647", 33: "EPSG:5650"}
"""ETRS89 UTM zones with such eastings."""

MOST_DEG = 90.0
"""No latitude is larger."""

SAME_PLACE = 1e-6
"""To degrees and back moves a point by no more than this share of its coordinates."""

COMPOUND = ("COMPD_CS", "COMPOUNDCRS")
"""How the description of a CRS with heights begins."""

PIXEL_TYPES = ("uint8", "uint16")

_FOREIGN_FORMAT = (
    "is not a GeoTIFF, JPEG 2000, PNG or JPEG; convert it: gdal_translate -of COG in out.tif"
)

_LASTING = (FileNotFoundError, PermissionError, ValueError, ForeignFile)
"""Errors that another try does not mend (ValueError: undecodable metadata, a private address)."""

SMALLEST_PIXEL_M = 5e-5
"""Smaller pixels are none of the ground: 0.05 mm."""


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
        stamp: (bytes, mtime in ns), to notice another file under the same name; the time is that
            of a world file or .prj that was read and is newer. Of an object store's TIFF, which is
            asked for neither: end and checksum of its pixels, see `middle_of_pixels`.
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

    @property
    def center(self) -> tuple[float, float]:
        """x, y of the middle."""
        rows, cols = self.shape
        x, y = self.grid.to_world(np.array([[cols / 2, rows / 2]]))[0]
        return float(x), float(y)

    @cached_property
    def is_true(self) -> bool:
        """Whether lengths may be measured in its own CRS, where it lies."""
        if not is_metric(self.crs):
            return False
        return bool(abs(length_error(self.crs, np.array([self.center]))[0]) <= MOST_ERROR)


@dataclass(frozen=True)
class ListedTile:
    """A raster that a tile index places; its header is read with its first window."""

    path: str
    footprint: Polygon
    crs: CRS
    stamp: tuple[int, int] = NO_STAMP
    valid_only: bool = False
    """Whether the footprint is that of its valid pixels, and the raster may be larger."""


@dataclass(frozen=True)
class TileProblem:
    """A file that cannot be used, or not wholly.

    Attributes:
        path: the file; of an address what may be shown.
        reason: what is wrong and what to do, without the file's name.
        footprint: the area that it should have covered, in ``crs``; None where unknown.
        crs: of the footprint.
    """

    path: str
    reason: str
    footprint: Polygon | None = None
    crs: CRS | None = None

    def __post_init__(self) -> None:
        for name in ("path", "reason"):
            object.__setattr__(self, name, without_secrets(getattr(self, name)))


def inspect(path: str | Path, options: ReadOptions | None = None) -> Tile | TileProblem:
    """Describe one raster, or say why it cannot be used.

    What may pass (a busy server, a file still being copied) is tried again.

    Args:
        path: file or URL.
        options: number of tries.
    """
    if not is_utf8(path):
        return TileProblem(readable(path), NOT_UTF8)
    patience = options or ReadOptions()
    for attempt in range(patience.retries + 1):
        if attempt:
            time.sleep(RETRY_DELAY_S * 2 ** (attempt - 1))
        try:
            if is_remote(str(path)):
                return _inspect_url(str(path), patience)
            return _inspect_file(Path(path), patience)
        except (OSError, RasterioError, CPLE_BaseError, ValueError) as error:
            last = error
            if isinstance(error, _LASTING):
                break
    return TileProblem(str(path), f"cannot be opened ({reason_of(last)}); {remedy_of(str(path))}")


@lru_cache(maxsize=64)
def crs_name(crs: CRS) -> str:
    """Name a CRS for people: its authority code, else its own name."""
    authority = crs.to_authority()
    if authority:
        return ":".join(authority)
    described = crs.to_dict(projjson=True)
    return str(described.get("source_crs", described).get("name", crs))  # of one with TOWGS84


@lru_cache(maxsize=64)
def horizontal(crs: CRS) -> CRS:
    """Return a CRS without its heights, which imagery does not have."""
    text = crs.to_wkt()
    if not text.startswith(COMPOUND):
        return crs
    return CRS.from_wkt(pyproj.CRS.from_wkt(text).sub_crs_list[0].to_wkt())


def same_crs(one: CRS, other: CRS) -> bool:
    """Return whether two systems are one; a scan keeps equal ones as one object, which is quick."""
    return one is other or bool(one == other)


def _inspect_file(path: Path, options: ReadOptions) -> Tile | TileProblem:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        return TileProblem(str(path), "is not a regular file; remove it")
    if status.st_size == 0:
        return TileProblem(str(path), "is empty; copy it again or remove it")
    driver = driver_of(path)
    if driver is None and (kind := archive_of(path)):
        return TileProblem(str(path), f"is a {kind}; unpack it, and give the folder")
    if driver is None:
        return TileProblem(str(path), _FOREIGN_FORMAT)
    with open_dataset(str(path), driver) as dataset:
        transform, crs, beside = dataset.transform, dataset.crs, list[Path | None]()
        if transform.is_identity:
            transform = world_transform(path) or transform
            beside.append(world_file(path))
        if not crs:
            crs = crs_beside(path)
            beside.append(prj_file(path))
        times = [file.stat().st_mtime_ns for file in beside if file]
        stamp = (status.st_size, max([status.st_mtime_ns, *times]))
        return _describe(_Header(str(path), stamp, transform, crs), dataset, options)


def _inspect_url(url: str, options: ReadOptions) -> Tile | TileProblem:
    if url.startswith(WEB):
        file = look_at(url, options)
        driver, stamp = driver_of_bytes(file.head), file.stamp
    else:  # of an object store
        driver, stamp = driver_by_suffix(url), NO_STAMP
    if driver is None:
        return TileProblem(url, _FOREIGN_FORMAT)
    with open_dataset(url, driver) as dataset:
        if stamp == NO_STAMP:  # of another object under its name the pixels end elsewhere
            stamp = end_of_pixels(dataset), middle_of_pixels(dataset)
        return _describe(_Header(url, stamp, dataset.transform, dataset.crs), dataset, options)


@dataclass(frozen=True)
class _Header:
    """What is known of a raster besides its open data set."""

    path: str
    stamp: tuple[int, int]
    transform: Affine
    crs: CRS | None


def _describe(header: _Header, dataset: Any, options: ReadOptions) -> Tile | TileProblem:
    path, transform = header.path, header.transform
    crs = named_crs(options.tiles_crs) if options.tiles_crs else header.crs
    if transform.is_identity and (reason := _no_grid(dataset, path)):
        return TileProblem(path, reason)
    if not crs:
        return TileProblem(path, no_crs(path))
    crs = horizontal(crs)
    if transform.is_identity:
        return TileProblem(path, no_place(path))
    if not abs(transform.determinant) > 0 or not math.isfinite(sum(transform[:6])):
        return TileProblem(path, "has pixels of size zero; correct its geotransform")
    tile = Tile(
        path=path,
        driver=dataset.driver,
        transform=transform,
        crs=crs,
        shape=(dataset.height, dataset.width),
        bands=dataset.count,
        dtype=dataset.dtypes[0],
        nodata=dataset.nodata,
        stamp=header.stamp,
    )
    reason = _bad_crs(tile) or _bad_size(tile) or _bad_place(tile) or _bad_bands(dataset)
    reason = reason or _cut_short(dataset, header)
    return tile if reason is None else TileProblem(path, reason, tile.grid.footprint(), crs)


def named_crs(name: str) -> CRS:
    """Read the CRS that a user says the tiles have.

    Raises:
        InputError: it is none.
    """
    try:
        return CRS.from_user_input(name)
    except ValueError as error:
        raise InputError(
            f"tiles_crs={name} is not a coordinate system; give e.g. EPSG:25832"
        ) from error


@lru_cache(maxsize=64)
def _to_degrees(crs: CRS) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(crs.to_wkt(), WGS84.to_wkt(), always_xy=True)


def _no_grid(dataset: Any, path: str) -> str | None:
    """Say how a raster that has points or coefficients instead of a pixel grid gets one."""
    if dataset.gcps[0]:
        place, option = "ground control points", "-tps"
    elif dataset.tags(ns="RPC"):
        place, option = "coefficients (RPCs)", "-rpc"
    else:
        return None
    remedy = f"gdalwarp {option} -r bilinear {os.path.basename(path)} placed.tif"
    return f"has {place}, but no pixel grid; make one: {remedy}"


def _bad_place(tile: Tile) -> str | None:
    """Say why a tile cannot lie where its coordinates are; None if it can."""
    corners = shapely.get_coordinates(tile.grid.footprint())
    degrees = _to_degrees(tile.crs)
    with np.errstate(invalid="ignore", over="ignore"):
        lon, lat = degrees.transform(*corners.T)
        back = np.column_stack(degrees.transform(lon, lat, direction="INVERSE"))
        lost = np.abs(lat) > MOST_DEG
        lost |= ~(np.abs(back - corners).max(axis=1) <= SAME_PLACE * np.abs(corners).max())
    if not lost.any():
        return None
    x, y = corners[lost][0]
    remedy = "correct its position, or say with tiles_crs= in which system it is"
    zone = int(x // ZONE)
    if zone in ZONED:
        remedy = f"its easting begins with the zone {zone}: set tiles_crs={ZONED[zone]}"
    return f"lies at {x:.0f}, {y:.0f}, where {crs_name(tile.crs)} is not defined; {remedy}"


def _bad_crs(tile: Tile) -> str | None:
    if tile.crs.is_geographic or tile.crs.is_projected:
        return None
    return (
        f"is in {crs_name(tile.crs)}, which is not tied to the Earth; give it a projected system, "
        "or say with tiles_crs= in which it is"
    )


def _bad_size(tile: Tile) -> str | None:
    """Refuse pixels that no camera has: coordinates are in kilometers, or a digit is missing."""
    if tile.crs.is_projected and tile.gsd_m < SMALLEST_PIXEL_M:
        return (
            f"has pixels of {1000 * tile.gsd_m:.2g} mm; its coordinates seem to be in kilometers, "
            f"but {crs_name(tile.crs)} has units of {tile.grid.unit_m:.3g} m: correct its position"
        )
    return None


def _bad_bands(dataset: Any) -> str | None:
    types = sorted(set(dataset.dtypes))
    name = os.path.basename(without_secrets(dataset.name))
    if len(types) > 1 or types[0] not in PIXEL_TYPES:
        remedy = f"gdal_translate -ot UInt16 -scale LOW HIGH 1 65534 {name} out.tif"
        given = f"has {' and '.join(types)} pixels, expected uint8 or uint16; convert it"
        return f"{given}, all tiles with the same LOW and HIGH: {remedy}"
    bits = int(dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8))
    if bits < 8 and dataset.colorinterp[0] != ColorInterp.palette:
        remedy = f"gdal_translate -ot Byte -scale 0 {2**bits - 1} 0 255 {name} out.tif"
        return f"has pixels of {bits} bits, expected 8 or 16; convert it: {remedy}"
    count, alphas = dataset.count, [kind == ColorInterp.alpha for kind in dataset.colorinterp]
    if any(alphas[:-1]):
        order = " ".join(f"-b {i + 1}" for i in sorted(range(count), key=alphas.__getitem__))
        return f"has alpha before other bands; put it last: gdal_translate {order} {name} out.tif"
    has_alpha, colors = any(alphas), count - any(alphas)
    if colors in (1, 3) or (count == 4 and not has_alpha):
        return None
    picked = "-b 1" if colors == 2 else "-b RED -b GREEN -b BLUE"
    given, alpha = (" and alpha", f" -b {count}") if has_alpha else ("", "")
    return (
        f"has {colors} bands{given}, expected 1, 3 or 4; pick those of the picture by their "
        f"numbers: gdal_translate {picked}{alpha} {name} out.tif"
    )


def _cut_short(dataset: Any, header: _Header) -> str | None:
    """Compare the file's size with the end of its last blocks; None where either is unknown."""
    stamp = header.stamp
    if stamp == NO_STAMP:
        return None
    if not is_remote(header.path) and not has_end(Path(header.path), dataset.driver):
        return f"is truncated (its {stamp[0]} bytes have no end); copy it again"
    end = end_of_pixels(dataset)
    if end > stamp[0]:
        return f"is truncated ({stamp[0]} of at least {end} bytes); copy it again"
    return None
