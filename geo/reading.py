"""Opening and reading single raster files: allowed formats, GDAL settings, kept handles."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioIOError
from rasterio.windows import Window as RasterWindow

from geo.grid import Window

GDAL_CACHE_BYTES = 128 * 2**20
"""Block cache of a process; at least two block rows of an 8k-wide RGB raster need 64 MB."""

MAX_OPEN = 32
"""Rasters kept open per thread: striped files reopened per window read 7 x slower."""

GDAL_OPTIONS: dict[str, Any] = {
    "GDAL_CACHEMAX": GDAL_CACHE_BYTES,
    "GDAL_NUM_THREADS": "1",
    "GDAL_ERROR_ON_LIBJPEG_WARNING": True,  # a cut JPEG is else filled with gray, with a warning
}

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


@dataclass(frozen=True, eq=False)
class OpenRaster:
    """An open raster and what reading it needs to know, asked once.

    Asking GDAL for a property after a failed read raises that read's error again, so everything
    is asked before the first read.
    """

    dataset: Any
    bands: tuple[int, ...]
    palette: NDArray[np.uint8] | None
    all_valid: bool
    block_shape: tuple[int, int]

    @classmethod
    def open(cls, path: str, driver: str) -> OpenRaster:
        """Open a raster with one driver."""
        dataset = rasterio.open(path, driver=driver, sharing=False)
        return cls(
            dataset=dataset,
            bands=(1, 2, 3) if dataset.count >= 3 else (1,),
            palette=_palette(dataset),
            all_valid=all(MaskFlags.all_valid in flags for flags in dataset.mask_flag_enums),
            block_shape=dataset.block_shapes[0],
        )


class _Handles(threading.local):
    """Open rasters of one thread (GDAL data sets must not be shared between threads)."""

    def __init__(self) -> None:
        self.open: OrderedDict[tuple[str, int, int], OpenRaster] = OrderedDict()


_handles = _Handles()


@contextmanager
def gdal_settings() -> Iterator[None]:
    """Settings under which every raster of a job is read."""
    with rasterio.Env(**GDAL_OPTIONS):
        yield


def driver_of(path: Path) -> str | None:
    """Return the GDAL driver that the file's first bytes call for, or None if it is not allowed.

    The content decides, not the name: an indirect format (VRT and the like) can make GDAL read
    any path or URL, and would do so under any file name.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(16)
    return next((driver for magic, driver in _MAGIC if head.startswith(magic)), None)


def open_raster(path: str, driver: str) -> OpenRaster:
    """Return the open raster of ``path``, kept for the next call; reopened if the file changed.

    Raises:
        OSError: the file has vanished or is not readable (RasterioIOError is one).
    """
    stat = os.stat(path)
    key = (path, stat.st_size, stat.st_mtime_ns)
    raster = _handles.open.pop(key, None) or OpenRaster.open(path, driver)
    _handles.open[key] = raster
    while len(_handles.open) > MAX_OPEN:
        _handles.open.popitem(last=False)[1].dataset.close()
    return raster


def read_window(
    raster: OpenRaster, window: Window, shape: tuple[int, int] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read a window of an open raster as RGB with its validity.

    Args:
        raster: an open raster of 8-bit bands.
        window: pixels inside the raster.
        shape: (rows, cols) to reduce to by averaging; None reads every pixel.

    Returns:
        image: (H, W, 3) uint8; one band is repeated, a palette is expanded, bands beyond the third
            are left out.
        valid: (H, W) bool; False for nodata, zero alpha and masked pixels.

    Raises:
        RasterioIOError: a block of the file cannot be decoded.
    """
    area = RasterWindow(window.col_off, window.row_off, window.width, window.height)
    rows, cols = shape or (window.height, window.width)
    bands = raster.dataset.read(
        raster.bands,
        window=area,
        out_shape=(len(raster.bands), rows, cols),
        resampling=Resampling.average if raster.palette is None else Resampling.nearest,
    )
    if raster.palette is not None:
        image = raster.palette[bands[0]]
    else:
        image = np.ascontiguousarray(np.broadcast_to(bands, (3, rows, cols)).transpose(1, 2, 0))
    if raster.all_valid:
        return image, np.ones((rows, cols), bool)
    return image, raster.dataset.dataset_mask(window=area, out_shape=(rows, cols)) > 0


def read_readable(
    raster: OpenRaster, window: Window
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], str | None]:
    """Read a window like `read_window`, but leave out what the file cannot deliver.

    A corrupt block costs its own pixels (invalid afterwards) and no others, so what is lost does
    not depend on the window that asked for it.

    Returns:
        image and valid as in `read_window`, and the reason of the first failure or None.
    """
    try:
        return *read_window(raster, window), None
    except RasterioIOError as error:
        reason = str(error.__cause__ or error)
    image = np.zeros((window.height, window.width, 3), np.uint8)
    valid = np.zeros((window.height, window.width), bool)
    for block in _file_blocks(raster, window):
        with suppress(RasterioIOError):  # the reason is already known
            here = block.slices_in(window)
            image[here], valid[here] = read_window(raster, block)
    return image, valid, reason


def _file_blocks(raster: OpenRaster, window: Window) -> Iterator[Window]:
    """The parts of a window that the blocks of the file cut out of it."""
    rows, cols = raster.block_shape
    for row in range(window.row_off // rows * rows, window.row_end, rows):
        for col in range(window.col_off // cols * cols, window.col_end, cols):
            part = Window(row, col, rows, cols).intersection(window)
            assert part is not None, "a block in the window's range meets the window"
            yield part


def _palette(dataset: Any) -> NDArray[np.uint8] | None:
    """The (256, 3) colors of a palette raster, or None for others."""
    if dataset.colorinterp[0] != ColorInterp.palette:
        return None
    table = np.zeros((256, 3), np.uint8)
    for index, color in dataset.colormap(1).items():
        table[index] = color[:3]
    return table
