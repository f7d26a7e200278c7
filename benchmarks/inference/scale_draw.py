"""Rasters for benchmarks/inference/scale.py: as large as asked for, small on disk, quick to write.

One tile is drawn and compressed; the others are copies of its bytes with another position.
"""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import geopandas
import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.transform import from_origin

GSD_M = 0.005
X, Y = 500_000.0, 5_700_000.0
CRS = "EPSG:25832"

TEXTURE_PX = 64
"""The noise of the pavement repeats after so many pixels, which is why it compresses well."""

CRACK_GRAY = 30
CRACK_BELOW = 70
"""The stand-in network calls darker pixels cracks."""

CRACK_WIDTH_PX = 4
CRACKS_PER_MPX = 3
"""Of some 1 100 px length each: about 1 % of the pixels."""


def draw_tiles(folder: Path, shape: tuple[int, int], side: int, seed: int = 0) -> None:
    """Write (rows, cols) abutting tiles of side x side pixels, each with the same cracks."""
    folder.mkdir(parents=True)
    template = folder / "r000_c000.tif"
    _write(template, pavement(side, seed))
    content, key = template.read_bytes(), _position(0, 0)
    assert content.count(key) == 1, "the position stands once in a TIFF"
    for row in range(shape[0]):
        for col in range(shape[1]):
            moved = content.replace(key, _position(row * side, col * side))
            (folder / f"r{row:03d}_c{col:03d}.tif").write_bytes(moved)


def write_index(folder: Path, shape: tuple[int, int], side: int, path: Path) -> None:
    """Write a tile index of such a folder as GeoParquet."""
    rows, cols = (axis.ravel() for axis in np.indices(shape))
    left, top = X + cols * side * GSD_M, Y - rows * side * GSD_M
    boxes = shapely.box(left, top - side * GSD_M, left + side * GSD_M, top)
    names = [
        f"{folder.name}/r{row:03d}_c{col:03d}.tif" for row, col in zip(rows, cols, strict=True)
    ]
    geopandas.GeoDataFrame({"path": names}, geometry=boxes, crs=CRS).to_parquet(path)


def pavement(side: int, seed: int) -> NDArray[np.uint8]:
    """Draw repeating noise with drawn cracks, (3, side, side)."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(130, 170, (TEXTURE_PX, TEXTURE_PX), np.uint8)
    copies = -(-side // TEXTURE_PX)
    image = np.tile(texture, (copies, copies))[:side, :side].copy()
    for _ in range(max(1, round(CRACKS_PER_MPX * side * side / 1e6))):
        steps = rng.normal(0, 30, (12, 2)) + rng.normal(0, 70, 2)
        points = rng.uniform(0, side, 2) + np.cumsum(steps, axis=0)
        cv2.polylines(image, [points.astype(np.int32)], False, CRACK_GRAY, CRACK_WIDTH_PX)
    return np.broadcast_to(image, (3, side, side))


def darkness(windows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Stand in for a network, at a cost of next to nothing."""
    return np.where(windows[..., 1] < CRACK_BELOW, np.float32(0.9), np.float32(0.1))


def _position(row: int, col: int) -> bytes:
    """Return the TIFF tag ModelTiepoint of a tile whose corner lies at a pixel of the mosaic."""
    return struct.pack("<6d", 0, 0, 0, X + col * GSD_M, Y - row * GSD_M, 0)


def _write(path: Path, image: NDArray[np.uint8]) -> None:
    bands, height, width = image.shape
    block = 512 if min(height, width) >= 512 else 16
    tiled = {"tiled": True, "blockxsize": block, "blockysize": block, "interleave": "pixel"}
    place = from_origin(X, Y, GSD_M, GSD_M)
    with rasterio.open(
        path, "w", "GTiff", width, height, bands, CRS, place, "uint8", compress="zstd", **tiled
    ) as tiff:
        tiff.write(image)
