"""The pixels of a pixel-shaped polygon."""

from __future__ import annotations

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize

from geo.grid import Window


def burned(geometry: shapely.Geometry) -> tuple[NDArray[np.uint8], Window]:
    """Rasterize a polygon in mosaic pixel coordinates into its bounding window."""
    left, top, right, bottom = (int(value) for value in geometry.bounds)
    window = Window(top, left, bottom - top, right - left)
    pixels: NDArray[np.uint8] = rasterize(
        [geometry],
        out_shape=(window.height, window.width),
        transform=Affine.translation(window.col_off, window.row_off),
    )
    return pixels, window


def pixels_of(geometry: shapely.Geometry) -> NDArray[np.int64]:
    """(N, 2) mosaic row, col of a polygon's pixels."""
    marked, window = burned(geometry)
    pixels: NDArray[np.int64] = np.argwhere(marked) + np.array([window.row_off, window.col_off])
    return pixels
