"""Reading windows of single rasters as 8-bit RGB with their validity."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioIOError
from rasterio.windows import Window as RasterWindow

from geo.grid import Window
from geo.opening import OpenRaster, driver_of, gdal_settings, open_raster
from geo.stretch import Stretch

__all__ = [
    "OpenRaster",
    "Stretch",
    "driver_of",
    "gdal_settings",
    "open_raster",
    "read_readable",
    "read_window",
]


def read_window(
    raster: OpenRaster,
    window: Window,
    shape: tuple[int, int] | None = None,
    *,
    stretch: Stretch | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read a window of an open raster as RGB with its validity.

    Args:
        raster: an open raster.
        window: pixels inside the raster.
        shape: (rows, cols) to reduce to by averaging; None reads every pixel.
        stretch: how 16-bit pixels become 8-bit ones.

    Returns:
        image: (H, W, 3) uint8; one band is repeated, a palette is expanded, bands beyond the third
            are left out.
        valid: (H, W) bool; False for nodata, zero alpha and masked pixels.

    Raises:
        RasterioIOError: a block of the file cannot be decoded.
    """
    area = RasterWindow(window.col_off, window.row_off, window.width, window.height)
    rows, cols = shape or (window.height, window.width)
    image = np.empty((rows, cols, len(raster.bands)), raster.dtype)
    raster.dataset.read(
        raster.bands,
        window=area,
        out=image.transpose(2, 0, 1),  # GDAL interleaves the bands itself, 3 x faster than numpy
        resampling=Resampling.average if raster.palette is None else Resampling.nearest,
    )
    if raster.palette is not None:
        image = raster.palette[image[..., 0]]
    else:
        if raster.dtype == "uint16":
            assert stretch is not None, f"{raster.dataset.name} has 16 bits"
            image = stretch.apply(image)
        if image.shape[2] == 1:
            image = image.repeat(3, axis=2)
    if raster.all_valid:
        return image, np.ones((rows, cols), bool)
    return image, raster.dataset.dataset_mask(window=area, out_shape=(rows, cols)) > 0


def read_readable(
    raster: OpenRaster, window: Window, *, stretch: Stretch | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], str | None]:
    """Read a window like `read_window`, but leave out what the file cannot deliver.

    A corrupt block costs its own pixels (invalid afterwards) and no others, so what is lost does
    not depend on the window that asked for it.

    Returns:
        image and valid as in `read_window`, and the reason of the first failure or None.
    """
    try:
        return *read_window(raster, window, stretch=stretch), None
    except RasterioIOError as error:
        reason = str(error.__cause__ or error)
    image = np.zeros((window.height, window.width, 3), np.uint8)
    valid = np.zeros((window.height, window.width), bool)
    for block in _file_blocks(raster, window):
        with suppress(RasterioIOError):  # the reason is already known
            here = block.slices_in(window)
            image[here], valid[here] = read_window(raster, block, stretch=stretch)
    return image, valid, reason


def _file_blocks(raster: OpenRaster, window: Window) -> Iterator[Window]:
    """The parts of a window that the blocks of the file cut out of it."""
    rows, cols = raster.block_shape
    for row in range(window.row_off // rows * rows, window.row_end, rows):
        for col in range(window.col_off // cols * cols, window.col_end, cols):
            part = Window(row, col, rows, cols).intersection(window)
            assert part is not None, "a block in the window's range meets the window"
            yield part
