"""Rasters that are written whole, or not at all and not in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from geo.files import whole_file
from geo.grid import Grid


def write_raster(
    path: Path, bands: NDArray[np.uint8], grid: Grid, driver: str = "GTiff", **options: Any
) -> None:
    """Write bands as a deflated GeoTIFF.

    It is made in memory: a disk that is full as GDAL closes a file leaves half of it, unsaid.

    Args:
        path: of the file; its folder exists.
        bands: (bands, H, W).
        grid: of its pixels.
        driver: GTiff or COG.
        options: of the driver.

    Raises:
        OSError: the disk does not take it.
    """
    count, height, width = bands.shape
    shape = {"count": count, "height": height, "width": width, "dtype": "uint8"}
    place = {"crs": grid.crs, "transform": grid.transform}
    with MemoryFile() as memory:
        with memory.open(driver, compress="DEFLATE", **shape, **place, **options) as dataset:
            dataset.write(bands)
        content = memory.read()
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
