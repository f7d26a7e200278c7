"""16-bit imagery seen as 8-bit: one linear stretch for the whole job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from geo.imagery.reading import OpenRaster, Stretch, open_raster
from geo.imagery.tile import Tile

PERCENTILES = (1.0, 99.0)
"""Of all sampled values; what lies beyond becomes 0 or 255."""

MOST_OVERVIEWS = 64
"""Rasters that are sampled."""

OVERVIEW_PX = 256
"""Longest side of a raster's sample."""

WHOLE_PX = 8192
"""A raster without overviews is read whole up to this side, a larger one in patches."""

PATCHES = 4
"""Patches along each axis of a large raster."""


def measure_stretch(tiles: Sequence[Tile]) -> Stretch | None:
    """Take the percentiles 1 and 99 of the 16-bit imagery, all bands together so that hues stay.

    Args:
        tiles: of a job; up to 64 of those with 16 bits, evenly spread, are sampled.

    Returns:
        The stretch, or None if no tile has 16 bits. A tile that cannot be read is passed over (it
        is reported when it is mapped); of none is the whole range taken.
    """
    deep = [tile for tile in tiles if tile.dtype == "uint16"]
    if not deep:
        return None
    chosen = np.unique(np.linspace(0, len(deep) - 1, MOST_OVERVIEWS).round().astype(int))
    values = [part for index in chosen for part in _overview(deep[index])]
    if not sum(part.size for part in values):
        return Stretch(0, np.iinfo(np.uint16).max)
    low, high = (float(v) for v in np.percentile(np.concatenate(values), PERCENTILES))
    return Stretch(low, max(high, low + 1))


def _overview(tile: Tile) -> Iterator[NDArray[np.uint16]]:
    """Valid values of a reduced raster, or of patches of a large one; none if it is unreadable."""
    try:
        raster = open_raster(tile.path, tile.driver)
        if max(tile.shape) <= WHOLE_PX or raster.dataset.overviews(1):
            factor = max(1.0, max(tile.shape) / OVERVIEW_PX)
            rows, cols = (max(1, round(side / factor)) for side in tile.shape)
            yield _values(raster, RasterWindow(0, 0, *tile.shape[::-1]), (rows, cols))
            return
        for window in _patches(tile.shape):
            yield _values(raster, window, (window.height, window.width))
    except (OSError, RasterioError):
        return


def _patches(shape: tuple[int, int]) -> Iterator[RasterWindow]:
    height, width = (min(side, OVERVIEW_PX // PATCHES) for side in shape)
    for row in np.linspace(0, shape[0] - height, PATCHES).astype(int):
        for col in np.linspace(0, shape[1] - width, PATCHES).astype(int):
            yield RasterWindow(int(col), int(row), width, height)


def _values(raster: OpenRaster, window: RasterWindow, shape: tuple[int, int]) -> NDArray[np.uint16]:
    bands = raster.dataset.read(raster.bands, window=window, out_shape=(len(raster.bands), *shape))
    valid = raster.dataset.dataset_mask(window=window, out_shape=shape) > 0
    values: NDArray[np.uint16] = bands[:, valid].ravel()
    return values
