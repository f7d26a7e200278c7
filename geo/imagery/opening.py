"""Which files are rasters, under which names GDAL knows them, and with which settings."""

from __future__ import annotations

import logging
import os
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.windows import Window as RasterWindow

from geo.addresses import without_secrets
from geo.options import ReadOptions

GDAL_CACHE_BYTES = 128 * 2**20
"""Block cache of a process; at least two block rows of an 8k-wide RGB raster need 64 MB."""

GDAL_OPTIONS: dict[str, Any] = {
    "GDAL_CACHEMAX": GDAL_CACHE_BYTES,
    "GDAL_NUM_THREADS": "1",
    "GDAL_ERROR_ON_LIBJPEG_WARNING": True,  # a cut JPEG is else filled with gray, with a warning
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": False,  # which gives noise for what a cut PNG lacks, in silence
}

OPEN_OPTIONS: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no sidecar is looked for, here or on a server
    "GDAL_PAM_ENABLED": False,  # nor an .aux.xml
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": True,
    "VSI_CACHE": True,
}
"""Settings while a raster is opened."""

RETRY_DELAY_S = 0.1
"""Pause before a second try; the next ones wait twice as long each."""

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"II*\x00", "GTiff"),
    (b"MM\x00*", "GTiff"),
    (b"II+\x00", "GTiff"),
    (b"MM\x00+", "GTiff"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x00\x00\x00\x0cjP  ", "JP2OpenJPEG"),
    (b"\xff\x4f\xff\x51", "JP2OpenJPEG"),
)

_BY_SUFFIX = {
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".j2c", ".jpc"), "JP2OpenJPEG"),
    **dict.fromkeys((".jpg", ".jpeg", ".jfif"), "JPEG"),
    ".png": "PNG",
}

STREAM_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
"""What stands at the end of a whole file of formats that are decoded from the beginning.

Their drivers tell of a fault once, and give gray or noise for what follows.
"""

MIDDLE_BYTES = 2**22
"""A larger block is not read for a checksum."""

TAIL_BYTES = 2**16
"""Where that is looked for: something may stand behind it."""

DAMAGE = ("Corrupt JPEG data", "Premature end of JPEG file", "PackBitsDecode:Discarding")
"""What is in a warning of GDAL if it gives gray or noise for a damaged block of a TIFF."""

_REMOTE_PREFIXES = {
    "https://": "/vsicurl/https://",
    "http://": "/vsicurl/http://",
    "s3://": "/vsis3/",
}


class ForeignFile(RasterioIOError):  # type: ignore[misc]
    """A raster that names another file, which GDAL would open, wherever it lies."""


def open_dataset(path: str, driver: str) -> Any:
    """Open a data set for reading with one driver and no other, and without its sidecars.

    Raises:
        RasterioIOError: it cannot be opened, or makes GDAL open another file.
    """
    with rasterio.Env(**OPEN_OPTIONS), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a world file may give its place
        dataset = rasterio.open(gdal_path(path), driver=driver, sharing=False)
        other = dataset.get_tag_item("OVERVIEW_FILE", "OVERVIEWS")
    if other:
        dataset.close()
        raise ForeignFile(f"it takes overviews from {other}, and other files are never opened")
    return dataset


@contextmanager
def gdal_settings(options: ReadOptions) -> Iterator[None]:
    """Set up GDAL as every raster of a job is read."""
    http = {
        "GDAL_HTTP_TIMEOUT": options.timeout_s,
        "GDAL_HTTP_CONNECTTIMEOUT": options.timeout_s,
        "GDAL_HTTP_MAX_RETRY": options.retries,
        "GDAL_HTTP_RETRY_DELAY": RETRY_DELAY_S,
    }
    with rasterio.Env(**GDAL_OPTIONS, **http):
        yield


class _Listener(logging.Handler):
    """Note what GDAL warns of while a thread decodes blocks."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if any(sign in text for sign in DAMAGE):
            _noted.damage = text.partition(":")[2]  # behind the class of the warning


_noted = threading.local()
logging.getLogger("rasterio").addHandler(_Listener(logging.WARNING))


def take_damage() -> str | None:
    """Return the last damage that GDAL warned this thread of; None if it was taken before."""
    damage: str | None = _noted.__dict__.pop("damage", None)
    return damage


def is_remote(path: str) -> bool:
    """Return whether a path is a URL that GDAL reads by range requests."""
    return path.startswith(tuple(_REMOTE_PREFIXES))


def remedy_of(path: str) -> str:
    """Say what to do about a raster that cannot be read."""
    if is_remote(path):
        return "check the address, which must be that of one raster, your rights and the network"
    return "replace or remove it"


def gdal_path(path: str) -> str:
    """Return the name under which GDAL opens a path or URL.

    >>> gdal_path("s3://city/a.tif"), gdal_path("https://city.org/a.tif")
    ('/vsis3/city/a.tif', '/vsicurl/https://city.org/a.tif')
    """
    for prefix, virtual in _REMOTE_PREFIXES.items():
        if path.startswith(prefix):
            return virtual + path.removeprefix(prefix)
    return path


def url_of(name: str) -> str:
    """Return the URL that GDAL's own name of it means; other names as they are.

    >>> url_of("/vsis3/city/a.tif"), url_of("/data/a.tif")
    ('s3://city/a.tif', '/data/a.tif')
    """
    for prefix, virtual in _REMOTE_PREFIXES.items():
        if name.startswith(virtual):
            return prefix + name.removeprefix(virtual)
    return name


def stamp_of(path: str) -> tuple[int, int]:
    """Return (bytes, mtime in ns) of a file; zeros for a URL.

    Raises:
        OSError: there is no such file.
    """
    if is_remote(path):
        return 0, 0
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns


def driver_of(path: Path) -> str | None:
    """Return the GDAL driver that the file's first bytes call for, or None if it is not allowed.

    The content decides, not the name: an indirect format (VRT and the like) can make GDAL read
    any path or URL, and would do so under any file name.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        return driver_of_bytes(stream.read(16))


def has_end(path: Path, driver: str) -> bool:
    """Return whether a PNG or JPEG is there to its end; of other formats that is not known here."""
    if driver not in STREAM_ENDS:
        return True
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return STREAM_ENDS[driver] in stream.read()


def end_of_pixels(dataset: Any) -> int:
    """Return where the last of the blocks in the corners ends in a file; 0 where unknown."""
    rows, cols = dataset.block_shapes[-1]
    row, col = (dataset.height - 1) // rows, (dataset.width - 1) // cols
    ends = [0]
    for band in {1, dataset.count}:
        for y, x in {(0, 0), (row, 0), (row, col)}:
            offset = dataset.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=band)
            size = dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=band)
            ends.append(int(offset or 0) + int(size or 0))
    return max(ends)


def middle_of_pixels(dataset: Any) -> int:
    """Return a checksum of the block in the middle of a TIFF that is not compressed; else 0.

    Where pixels are compressed, their end (`end_of_pixels`) tells one picture from another.
    """
    rows, cols = dataset.block_shapes[0]
    size = rows * cols * dataset.count * np.dtype(dataset.dtypes[0]).itemsize
    if dataset.driver != "GTiff" or dataset.compression is not None or size > MIDDLE_BYTES:
        return 0
    row, col = dataset.height // 2 // rows * rows, dataset.width // 2 // cols * cols
    height, width = min(rows, dataset.height - row), min(cols, dataset.width - col)
    try:
        return zlib.crc32(dataset.read(window=RasterWindow(col, row, width, height)).tobytes())
    except RasterioIOError:
        return 0  # which is told when the tile is read


def driver_of_bytes(head: bytes) -> str | None:
    """Return the driver that a file's first 16 bytes call for; see `driver_of`."""
    return next((driver for magic, driver in _MAGIC if head.startswith(magic)), None)


def driver_by_suffix(url: str) -> str:
    """Return the driver that the name of a file calls for whose first bytes are not known."""
    return _BY_SUFFIX.get(os.path.splitext(without_secrets(url))[1].lower(), "GTiff")
