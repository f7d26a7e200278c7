"""The demo's input: an image-level training set and a city as GeoTIFF tiles, with its truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import numpy.typing as npt
import shapely
from rasterio.crs import CRS as RasterCrs
from rasterio.transform import Affine

from geo.grid import Grid
from geo.imagery.writing import write_raster
from geo.layers.geopackage import GPKG_VERSION
from geo.paths import literal
from wpcrack.data.images import write_png
from wpcrack.data.surroundings import MARGIN_SHARE, write_surroundings
from wpcrack.synthetic import (
    City,
    DrawnWindow,
    Frame,
    Street,
    WindowConfig,
    draw_training_street,
    draw_window,
)
from wpcrack.synthetic.street import paint

CRS = "EPSG:25832"
ORIGIN_M = (565_000.0, 5_935_000.0)
"""Easting and northing of the city's top left corner."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class TrainingSetSize:
    """How many windows are drawn; streets are the sources that a split holds out."""

    streets: int = 80
    per_street: int = 5
    """Windows of each class that a street gives."""


@dataclass(frozen=True)
class DrawnSet:
    """Windows written."""

    crack: int
    road: int
    streets: int


@dataclass(frozen=True)
class DrawnCity:
    """Where a city was written: a folder of tiles, and truth that only the score may read."""

    tiles: Path
    n_tiles: int
    masks: Path
    centerlines: Path
    roads: Path


def write_training_set(
    root: Path, config: WindowConfig, size: TrainingSetSize, seed: np.random.SeedSequence
) -> DrawnSet:
    """Draw windows into root/crack and root/road as `<street>_r<row>_c<col>.png`.

    The class of a window is all that is written about it: no mask leaves this function.
    """
    counts = {"crack": 0, "road": 0}
    sources = set()
    for label in counts:
        (root / label).mkdir(parents=True)
    for label, window, street in _windows(config, size, seed):
        path = root / label / f"{window.source}_r{window.row:05d}_c{window.col:05d}.png"
        if not path.exists():
            write_png(path, window.image)
            if label == "crack" and window.source == street.name:
                _write_around(root, f"{label}/{path.name}", window, street)
            counts[label] += 1
            sources.add(window.source)
    return DrawnSet(counts["crack"], counts["road"], len(sources))


def write_city(city: City, tiles: Path, truth: Path) -> DrawnCity:
    """Write tiles as GeoTIFF (8-bit RGB, nodata 0) and the truth: masks, centerlines, roads."""
    masks = truth / "masks"
    for folder in (tiles, masks):
        folder.mkdir(parents=True)
    count = 0
    for tile in city.tiles():
        transform = tile_transform(city, tile.row_off, tile.col_off)
        write_tile(tiles / f"{tile.name}.tif", tile.image, transform, nodata=0)
        mask = tile.mask.astype(np.uint8)[:, :, None] * np.uint8(255)
        write_tile(masks / f"{tile.name}.tif", mask, transform, nodata=None)
        count += 1
    centerlines, roads = truth / "centerlines.gpkg", truth / "roads.gpkg"
    form = {"driver": "GPKG", "VERSION": GPKG_VERSION}
    _centerline_table(city).to_file(literal(centerlines), layer="centerline", **form)
    _road_table(city).to_file(literal(roads), layer="road", **form)
    return DrawnCity(tiles, count, masks, centerlines, roads)


def tile_transform(city: City, row_off: int, col_off: int) -> Affine:
    """Return the transform from pixels of a window of the city's canvas to easting and northing."""
    east, north = ORIGIN_M
    gsd = city.gsd_m
    return Affine(gsd, 0.0, east + col_off * gsd, 0.0, -gsd, north - row_off * gsd)


def city_grid(city: City) -> Grid:
    """Return the pixels of the city's canvas in the world."""
    return Grid(tile_transform(city, 0, 0), RasterCrs.from_string(CRS), city.shape)


def write_tile(path: Path, image: Pixels, transform: Affine, *, nodata: int | None) -> None:
    """Write (H, W, bands) uint8 as a tiled, deflated GeoTIFF."""
    height, width, bands = image.shape
    write_raster(
        path,
        np.moveaxis(image, 2, 0),
        Grid(transform, RasterCrs.from_string(CRS), (height, width)),
        nodata=nodata,
        predictor=2,
        tiled=True,
        blockxsize=256,
        blockysize=256,
        photometric="rgb" if bands == 3 else "minisblack",
        interleave="pixel",
    )


def _windows(
    config: WindowConfig, size: TrainingSetSize, seed: np.random.SeedSequence
) -> Iterator[tuple[str, DrawnWindow, Street]]:
    for k, child in enumerate(seed.spawn(size.streets)):
        rng = np.random.default_rng(child)
        street = draw_training_street(rng, config, name=f"street{k:03d}")
        for _ in range(size.per_street):
            yield "crack", draw_window(rng, config, True, street), street
            yield "road", draw_window(rng, config, False, street), street


def _write_around(root: Path, file: str, window: DrawnWindow, street: Street) -> None:
    """Write what lies around a window of a street."""
    height, width = window.mask.shape
    frame = Frame(window.row, window.col, height, width).grow(height // MARGIN_SHARE)
    write_surroundings(root, file, paint([street], frame)[0])


def _centerline_table(city: City) -> geopandas.GeoDataFrame:
    cracks, grid = city.cracks, city_grid(city)
    width_mm = [crack.width_px * city.gsd_m * 1000 for crack in cracks]
    return geopandas.GeoDataFrame(
        {
            "crack_id": [crack.crack_id for crack in cracks],
            "kind": [crack.kind for crack in cracks],
            "width_mean_mm": [float(width.mean()) for width in width_mm],
            "width_max_mm": [float(width.max()) for width in width_mm],
        },
        geometry=[shapely.LineString(grid.to_world(crack.points_px)) for crack in cracks],
        crs=CRS,
    )


def _road_table(city: City) -> geopandas.GeoDataFrame:
    streets, grid = city.streets, city_grid(city)
    return geopandas.GeoDataFrame(
        {
            "road_id": [street.street_id for street in streets],
            "name": [street.name for street in streets],
            "width_m": [street.width_m for street in streets],
            "lanes": [1 for _ in streets],
        },
        geometry=[shapely.LineString(grid.to_world(street.centerline_px)) for street in streets],
        crs=CRS,
    )
