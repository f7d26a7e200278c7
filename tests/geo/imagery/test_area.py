"""Polygons and surroundings of lines on the pixels of a grid."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import from_origin

from geo.errors import InputError
from geo.grid import Grid, Window
from geo.imagery.area import CELL_PX, Area

GSD = 0.01
GRID = Grid(from_origin(5e5, 5.8e6, GSD, GSD), CRS.from_epsg(25832), (2600, 2600))


def on_pixels(*polygons):
    return Area((tuple(polygons),))


def star(center, radius, points=9):
    """A spiky polygon whose corners lie on pixel centers: the worst case for ties."""
    angles = np.linspace(0, 2 * np.pi, 2 * points, endpoint=False)
    reach = np.where(np.arange(2 * points) % 2, radius, radius / 3)
    corners = np.column_stack((np.cos(angles), np.sin(angles))) * reach[:, None] + center
    return shapely.Polygon(np.round(corners) + 0.5)


AREA = on_pixels(star((900, 1000), 800), star((1900, 1700), 600), shapely.box(10, 2400, 2500, 2500))


@pytest.fixture(scope="module")
def full():
    return AREA.mask(GRID.window)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_pixel_is_in_or_out_whatever_window_asks(full, data):
    row, col = data.draw(st.integers(0, 2500)), data.draw(st.integers(0, 2500))
    height, width = data.draw(st.integers(1, 2600 - row)), data.draw(st.integers(1, 2600 - col))
    window = Window(row, col, height, width)
    assert np.array_equal(AREA.mask(window), full[window.slices_in(GRID.window)])


def test_pixels_are_inside_by_their_centers(full):
    rows, cols = np.random.default_rng(0).integers(0, 2600, (2, 4000))
    outlines = shapely.unary_union(AREA.regions[0])
    points = shapely.points(cols + 0.5, rows + 0.5)
    clear = shapely.distance(shapely.boundary(outlines), points) > 1e-6
    assert np.array_equal(full[rows, cols][clear], shapely.contains(outlines, points)[clear])
    assert 0.1 < full.mean() < 0.5


def test_what_holds_pixels_is_touched(full):
    for row in range(0, 2600, 200):
        for col in range(0, 2600, 200):
            window = Window(row, col, 200, 200)
            if full[window.slices_in(GRID.window)].any():
                assert AREA.touches(window)
    assert not AREA.touches(Window(0, 2300, 100, 100))


def test_a_cell_inside_a_polygon_is_whole_and_holes_stay_open():
    ring = shapely.Polygon(
        shapely.box(-10, -10, 3000, 3000).exterior, [shapely.box(100, 100, 200, 150).exterior]
    )
    mask = on_pixels(ring).mask(Window(0, 0, CELL_PX, 2 * CELL_PX))
    assert not mask[100:150, 100:200].any()
    assert mask.sum() == mask.size - 50 * 100


def test_regions_must_all_hold_and_polygons_of_one_add_up():
    left, right = shapely.box(0, 0, 60, 100), shapely.box(40, 0, 100, 100)
    window = Window(0, 0, 100, 100)
    assert on_pixels(left, right).mask(window).all()
    assert Area(((left,), (right,))).mask(window).sum() == 20 * 100


def test_areas_of_any_file_type_and_system_are_one_area(tmp_path):
    outline = GRID.footprint(Window(500, 700, 300, 400))
    frame = geopandas.GeoDataFrame(geometry=[outline, None], crs=25832)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_file(tmp_path / "a.gpkg")
    frame.dropna().to_crs(4326).to_file(tmp_path / "a.fgb")
    masks = [
        Area.read(GRID, tmp_path / f"a.{kind}", buffer_m=1).mask(GRID.window)
        for kind in ("parquet", "gpkg", "fgb")
    ]
    for mask in masks:
        assert mask[500:800, 700:1100].mean() > 0.999
        assert mask.sum() == pytest.approx(300 * 400, rel=0.01)


def test_another_outline_has_another_digest():
    one, other = star((900, 1000), 800), star((901, 1000), 800)
    assert on_pixels(one).digest == on_pixels(one).digest != on_pixels(other).digest


def test_an_area_that_only_touches_the_tiles_is_refused(tmp_path):
    beside = shapely.box(5e5 - 5, 5.8e6 - 9, 5e5, 5.8e6)
    path = tmp_path / "beside.gpkg"
    geopandas.GeoSeries([beside], crs=25832).to_file(path)
    with pytest.raises(InputError, match=r"nothing of aoi=.* lies on the tiles"):
        Area.read(GRID, path, buffer_m=1)


def test_an_area_without_a_system_is_refused(tmp_path):
    geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no coordinate system"):
        Area.read(GRID, tmp_path / "a.parquet", buffer_m=1)
    assert Area.read(GRID, buffer_m=1) is None
