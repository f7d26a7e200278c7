"""Lengths of a map are true on the ground, whatever system its tiles come in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from factories import write_tile
from pyproj import CRS as ProjCRS
from pyproj import Transformer
from rasterio.crs import CRS

import geo
from geo.errors import InputError
from geo.imagery.mosaic import read_tiles
from geo.imagery.scale import length_error

MUNICH, NORTH_SEA, GREENLAND = (11.6, 48.1), (9.0, 50.0), (-45.0, 60.0)

SYSTEMS = [  # place, EPSG code, error of lengths there by the formulas of the projections
    (NORTH_SEA, 25832, -0.0004),
    (NORTH_SEA, 3395, 1 / np.cos(np.radians(50)) * np.sqrt(1 - 0.00669438 * 0.5868) - 1),
    (NORTH_SEA, 4087, 1 / np.cos(np.radians(50)) * np.sqrt(1 - 0.00669438 * 0.5868) - 1),
    (NORTH_SEA, 2154, None),
    (MUNICH, 31468, 0.0),
    (GREENLAND, 3413, 0.038),
    ((-74.0, 40.7), 2263, 0.0),
]


def world(place: tuple[float, float], epsg: int) -> tuple[float, float]:
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(*place)
    return float(x), float(y)


def tile(path: Path, place: tuple[float, float], epsg: int, side: float = 0.01) -> Path:
    """A tile of 40 x 40 pixels in the middle of which a place lies."""
    x, y = world(place, epsg)
    side /= ProjCRS(epsg).axis_info[0].unit_conversion_factor
    transform = Affine(side, 0, x - 20 * side, 0, -side, y + 20 * side)
    return write_tile(path, np.full((40, 40, 3), 90, np.uint8), crs=epsg, transform=transform)


@pytest.mark.parametrize(("place", "epsg", "expected"), SYSTEMS)
def test_the_error_of_a_length_is_that_of_the_projection(
    place: tuple[float, float], epsg: int, expected: float | None
) -> None:
    found = length_error(CRS.from_epsg(epsg), np.array([world(place, epsg)]))[0]
    if expected is None:
        assert abs(found) < 0.01
    else:
        assert found == pytest.approx(expected, abs=0.002)


@pytest.mark.parametrize(("place", "epsg", "_"), SYSTEMS)
def test_the_map_of_a_tile_has_its_area_on_the_ground(
    place: tuple[float, float], epsg: int, _: float | None, tmp_path: Path
) -> None:
    mosaic = read_tiles(tile(tmp_path / "a.tif", place, epsg))
    x, y = (np.array(v) for v in mosaic.tiles[0].grid.footprint().exterior.xy)
    lon, lat = Transformer.from_crs(epsg, 4326, always_xy=True).transform(x, y)
    true_m2 = abs(ProjCRS(4326).get_geod().polygon_area_perimeter(lon, lat)[0])
    valid = mosaic.read(mosaic.grid.window).valid
    assert valid.sum() * mosaic.grid.pixel_area_m2 == pytest.approx(true_m2, rel=0.02)


def test_a_system_of_false_lengths_is_refused_with_another_one(tmp_path: Path) -> None:
    path = tile(tmp_path / "a.tif", NORTH_SEA, 25832)
    with pytest.raises(InputError, match=r"3395 shows lengths 55\.\d % too long .* EPSG:32632"):
        read_tiles(path, "EPSG:3395")
    x, y = world(NORTH_SEA, 3395)
    with pytest.raises(InputError, match=r"lengths 55\.\d % too long at this place"):
        geo.polygonize(np.zeros((9, 9)), Affine(1, 0, x, 0, -1, y), "EPSG:3395")


def test_a_tile_too_far_for_the_maps_system_is_named(tmp_path: Path) -> None:
    for name in "ab":
        tile(tmp_path / f"{name}.tif", NORTH_SEA, 25832)
    tile(tmp_path / "far.tif", (40.0, 50.0), 25832)
    mosaic = read_tiles(tmp_path)
    assert [Path(problem.path).name for problem in mosaic.problems] == ["far.tif"]
    assert "too long, far from the other tiles" in mosaic.problems[0].reason
    assert mosaic.grid.shape == (40, 40)


def test_around_a_pole_the_map_is_polar(tmp_path: Path) -> None:
    assert read_tiles(tile(tmp_path / "a.tif", (0.0, 85.0), 3395)).grid.crs.to_epsg() == 32661
