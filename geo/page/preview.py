"""One picture of a job: the imagery reduced, with the cracks drawn over it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize
from rasterio.io import MemoryFile
from scipy.ndimage import binary_dilation

from geo.files import output_errors, whole_file
from geo.grid import Grid
from geo.imagery.overview import Overview
from geo.layers.schema import GEOMETRY, OUTLINE
from geo.layers.style import OVERVIEW_BLANK, OVERVIEW_CASING, OVERVIEW_CRACK, rgb
from geo.outputs import seal_png

OVERVIEW_PX = 2000
"""Longest side of the picture."""

LINE_SHARE = 0.001
"""Width of a drawn crack as a share of the longest side: seen when the picture fits a screen."""

FEATURES_AT_ONCE = 20_000
"""Cracks drawn from memory at a time."""


def draw_overview(overview: Overview, package: Path, out: Path) -> None:
    """Write ``overview.png``: reduced imagery with the layer crack of a GeoPackage over it.

    Memory is bounded by the picture's size, not by the map's.

    Raises:
        OutputError: the picture cannot be written.
    """
    image = np.where(
        overview.valid[..., None], overview.image, np.array(rgb(OVERVIEW_BLANK), np.uint8)
    )
    radius = max(1, round(max(image.shape[:2]) * LINE_SHARE / 2))
    line = _thicken(_burn(package, overview.grid), radius)
    image[_thicken(line, 1) & ~line] = rgb(OVERVIEW_CASING)
    image[line] = rgb(OVERVIEW_CRACK)
    _write_png(out, image)


def _burn(package: Path, grid: Grid) -> NDArray[np.bool_]:
    """Mark the pixels of the reduced grid that a crack touches."""
    burned = np.zeros(grid.shape, np.uint8)
    for outlines in _outlines(package):
        in_pixels = shapely.transform(outlines, grid.to_pixel)
        rasterize(((shape, 1) for shape in in_pixels), out=burned, all_touched=True)
    return burned.astype(bool)


def _thicken(marked: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Mark every pixel within ``radius`` of a marked one."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(binary_dilation(marked, x * x + y * y <= radius * radius + 1))


def _outlines(package: Path) -> Iterator[NDArray[np.object_]]:
    """Yield the geometries of the layer outline, a bounded number at a time."""
    with pyogrio.open_arrow(
        package, layer=OUTLINE.name, columns=[], batch_size=FEATURES_AT_ONCE, use_pyarrow=True
    ) as (_, reader):
        for batch in reader:
            yield shapely.from_wkb(batch[GEOMETRY].to_numpy(zero_copy_only=False))


def _write_png(out: Path, image: NDArray[np.uint8]) -> None:
    with output_errors(out), whole_file(out) as temporary:
        temporary.write_bytes(seal_png(encode_picture(image.transpose(2, 0, 1), "PNG")))


def encode_picture(bands: NDArray[np.uint8], driver: str, **options: int) -> bytes:
    """Encode a picture (bands, H, W) as a file of GDAL's driver."""
    count, height, width = bands.shape
    profile = {"driver": driver, "height": height, "width": width, "count": count} | options
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a picture, not a map
        with memory.open(**profile, dtype="uint8") as picture:
            picture.write(bands)
        return bytes(memory.read())
