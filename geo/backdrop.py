"""The reduced imagery of a job as a file, for maps that are drawn again without the tiles."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from geo.errors import OutputError
from geo.grid import Grid
from geo.reduce import Overview, reduced_grid


def save_backdrop(path: Path, overview: Overview) -> None:
    """Write an overview as a GeoTIFF of RGB and alpha; it appears complete or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    height, width = overview.valid.shape
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 4, "dtype": "uint8"}
    place = {"crs": overview.grid.crs, "transform": overview.grid.transform}
    try:
        with rasterio.open(temporary, "w", compress="DEFLATE", **profile, **place) as dataset:
            dataset.write(overview.image.transpose(2, 0, 1), (1, 2, 3))
            dataset.write(overview.valid * np.uint8(255), 4)
        os.replace(temporary, path)
    except (OSError, RasterioError) as error:
        raise OutputError(f"{path} could not be written ({error}); check the folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_backdrop(path: Path) -> Overview | None:
    """The overview that `save_backdrop` wrote; None if there is none that can be read."""
    try:
        with rasterio.open(path, driver="GTiff") as dataset:
            bands = dataset.read()
            grid = Grid(dataset.transform, dataset.crs, dataset.shape)
    except RasterioError:
        return None
    return Overview(bands[:3].transpose(1, 2, 0), bands[3] > 0, grid)


def blank_backdrop(grid: Grid, longest_px: int) -> Overview:
    """An overview without any imagery."""
    small = reduced_grid(grid, longest_px)
    return Overview(np.zeros((*small.shape, 3), np.uint8), np.zeros(small.shape, bool), small)
