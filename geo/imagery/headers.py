"""Headers of raster files: described, or refused with the reason and the remedy."""

from __future__ import annotations

import os
import stat
import time
import urllib.request
import warnings
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property, lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError, RasterioIOError
from shapely.geometry import Polygon

from geo.addresses import without_secrets
from geo.errors import first_line
from geo.grid import Grid
from geo.imagery.reading import RETRY_DELAY_S, driver_of, driver_of_bytes, is_remote, open_dataset
from geo.imagery.scale import MOST_ERROR, length_error
from geo.options import ReadOptions

WEB_MERCATOR = frozenset({3857, 900913, 3785, 102100})
"""EPSG codes whose lengths are off by 1 / cos(latitude): fit to show, not to measure in."""

NO_STAMP = (0, 0)
"""Of a file whose size and time are not known."""

PIXEL_TYPES = ("uint8", "uint16")

_FOREIGN_FORMAT = (
    "is not a GeoTIFF, JPEG 2000, PNG or JPEG; convert it: gdal_translate -of COG in out.tif"
)

_DRIVERS = {".jp2": "JP2OpenJPEG", ".j2k": "JP2OpenJPEG", ".png": "PNG", ".jpg": "JPEG"}

_LASTING = (FileNotFoundError, PermissionError, ValueError)
"""Errors that another try does not mend (ValueError: undecodable metadata)."""

TIMEOUT_S = 10.0
"""A server that does not answer by then has files without a stamp."""

SMALLEST_PIXEL_M = 5e-5
"""Smaller pixels are none of the ground: 0.05 mm."""

HEAD_BYTES = 16


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
    patience = options or ReadOptions()
    for attempt in range(patience.retries + 1):
        if attempt:
            time.sleep(RETRY_DELAY_S * 2 ** (attempt - 1))
        try:
            if is_remote(str(path)):
                return _inspect_url(str(path), patience.timeout_s)
            return _inspect_file(Path(path))
        except (OSError, RasterioError, ValueError) as error:
            last = error
            if isinstance(error, _LASTING):
                break
    return TileProblem(str(path), f"cannot be opened ({first_line(last)}); replace or remove it")


@lru_cache(maxsize=64)
def crs_name(crs: CRS) -> str:
    """Name a CRS for people: its authority code, else its own name."""
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.to_dict(projjson=True).get("name", crs))


def same_crs(one: CRS, other: CRS) -> bool:
    """Return whether two systems are one; a scan keeps equal ones as one object, which is quick."""
    return one is other or bool(one == other)


@lru_cache(maxsize=64)
def is_metric(crs: CRS) -> bool:
    """Return whether lengths may be true in a CRS: projected, and not Web Mercator."""
    return bool(crs.is_projected) and crs.to_epsg() not in WEB_MERCATOR


def _inspect_file(path: Path) -> Tile | TileProblem:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        return TileProblem(str(path), "is not a regular file; remove it")
    if status.st_size == 0:
        return TileProblem(str(path), "is empty; copy it again or remove it")
    driver = driver_of(path)
    if driver is None:
        return TileProblem(str(path), _FOREIGN_FORMAT)
    with _open_quietly(str(path), driver) as dataset:
        stamp = (status.st_size, status.st_mtime_ns)
        return _describe(str(path), dataset, stamp, dataset.crs or _prj_beside(path))


def _inspect_url(url: str, timeout_s: float) -> Tile | TileProblem:
    try:
        dataset = _open_quietly(url, "GTiff")
    except RasterioIOError as error:
        if "not recognized" not in str(error):
            raise
        driver = _driver_by_suffix(url)
        if url.startswith("http"):
            driver = driver_of_bytes(first_bytes(url, timeout_s))
        if driver is None:
            return TileProblem(url, _FOREIGN_FORMAT)
        dataset = _open_quietly(url, driver)
    with dataset:
        return _describe(url, dataset, stamp_of_url(url), dataset.crs)


def _driver_by_suffix(url: str) -> str | None:
    return _DRIVERS.get(os.path.splitext(without_secrets(url))[1].lower())


def _open_quietly(path: str, driver: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # becomes a problem below
        return open_dataset(path, driver)


def _describe(
    path: str, dataset: Any, stamp: tuple[int, int], crs: CRS | None
) -> Tile | TileProblem:
    if not crs:
        remedy = f"gdal_edit.py -a_srs EPSG:25832 {os.path.basename(path)}, or a .prj beside it"
        return TileProblem(path, f"has no coordinate system; set the right one ({remedy})")
    if dataset.transform.is_identity:
        return TileProblem(path, "has no position; add a geotransform or a world file")
    if not abs(dataset.transform.determinant) > 0:
        return TileProblem(path, "has pixels of size zero; correct its geotransform")
    tile = Tile(
        path=path,
        driver=dataset.driver,
        transform=dataset.transform,
        crs=crs,
        shape=(dataset.height, dataset.width),
        bands=dataset.count,
        dtype=dataset.dtypes[0],
        nodata=dataset.nodata,
        stamp=stamp,
    )
    reason = _bad_crs(tile) or _bad_size(tile) or _bad_bands(dataset) or _cut_short(dataset, stamp)
    return tile if reason is None else TileProblem(path, reason, tile.grid.footprint(), crs)


def _prj_beside(path: Path) -> CRS | None:
    """Read the CRS in a .prj of the same stem, if there is one: PNG and JPEG cannot hold one."""
    prj = path.with_suffix(".prj")
    if not prj.is_file():
        return None
    try:
        return CRS.from_wkt(prj.read_text(encoding="utf-8"))
    except (CRSError, UnicodeDecodeError):
        return None


def _bad_crs(tile: Tile) -> str | None:
    if tile.crs.is_geographic or tile.crs.is_projected:
        return None
    return f"is in {crs_name(tile.crs)}, which is not tied to the Earth; give it a projected system"


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
    if len(types) > 1 or types[0] not in PIXEL_TYPES:
        remedy = "gdal_translate -ot Byte -scale in.tif out.tif"
        return f"has {' and '.join(types)} pixels, expected uint8 or uint16; convert it: {remedy}"
    gray_alpha = dataset.count == 2 and dataset.colorinterp[1] == ColorInterp.alpha
    if dataset.count not in (1, 3, 4) and not gray_alpha:
        remedy = "gdal_translate -b 1 -b 2 -b 3 in.tif out.tif"
        return f"has {dataset.count} bands, expected 1, 3 or 4; pick red, green, blue: {remedy}"
    return None


def _cut_short(dataset: Any, stamp: tuple[int, int]) -> str | None:
    """Compare the file's size with the end of its last blocks; None where either is unknown."""
    if stamp == NO_STAMP:
        return None
    rows, cols = dataset.block_shapes[-1]
    row, col = (dataset.height - 1) // rows, (dataset.width - 1) // cols
    for band in {1, dataset.count}:
        for y, x in {(0, 0), (row, 0), (row, col)}:
            offset = dataset.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=band)
            size = dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=band)
            end = int(offset or 0) + int(size or 0)
            if end > stamp[0]:
                return f"is truncated ({stamp[0]} of at least {end} bytes); copy it again"
    return None


def first_bytes(url: str, timeout_s: float) -> bytes:
    """Ask a web server for the first bytes of a file.

    Raises:
        OSError: the server does not give them, with its reason (which GDAL does not pass on).
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes=0-{HEAD_BYTES - 1}"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            head: bytes = answer.read(HEAD_BYTES)
            return head
    except HTTPException as error:
        raise OSError(f"the server gives no valid HTTP answer: {type(error).__name__}") from error


def stamp_of_url(url: str) -> tuple[int, int]:
    """Ask a server for (bytes, mtime in ns) of a file; zeros where it states none."""
    if not url.startswith(("http://", "https://")):
        return NO_STAMP
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
            date = answer.headers.get("Last-Modified")
        return size, round(parsedate_to_datetime(date).timestamp() * 1e9) if date else 0
    except (OSError, HTTPException, ValueError):  # URLError is an OSError
        return NO_STAMP
