"""Pixel <-> world, meters, windows."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from geo.grid import Grid, Window

UTM = CRS.from_epsg(25832)
sizes = st.floats(1e-3, 10)
angles = st.floats(0, 360)


@given(sizes, sizes, angles, st.integers(-50, 50), st.integers(-50, 50))
def test_to_pixel_inverts_to_world(width, height, angle, row, col):
    turn = Affine(width, 0, 0, 0, -height, 0)
    rotated = np.radians(angle)
    a, b = np.cos(rotated), np.sin(rotated)
    transform = Affine(a * turn.a, b * turn.e, 5e5, b * turn.a, -a * turn.e, 5.8e6)
    grid = Grid(transform, UTM, (10, 10))
    points = np.array([[col + 0.25, row + 0.5]])
    assert np.allclose(grid.to_pixel(grid.to_world(points)), points, atol=1e-4)


def test_meters_hold_for_oblong_pixels_and_feet():
    oblong = Grid(Affine(0.02, 0, 0, 0, -0.005, 0), UTM, (4, 4))
    assert oblong.pixel_m == pytest.approx((0.02, 0.005))
    assert oblong.pixel_area_m2 == pytest.approx(1e-4)
    assert oblong.gsd_m == pytest.approx(0.01)
    feet = Grid(Affine(1, 0, 0, 0, -1, 0), CRS.from_epsg(2263), (4, 4))
    assert feet.gsd_m == pytest.approx(0.3048006, abs=1e-6)


def test_a_subgrid_covers_its_window():
    grid = Grid(Affine(0.5, 0.1, 100, 0.1, -0.5, 200), UTM, (20, 30))
    window = Window(3, 7, 5, 6)
    assert grid.subgrid(window).footprint().equals_exact(grid.footprint(window), 1e-9)
    assert grid.footprint(window).area == pytest.approx(30 * grid.pixel_area_m2)


windows = st.builds(
    Window, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9), st.integers(1, 9)
)


@given(windows, windows)
def test_intersection_and_slices_agree_with_sets_of_pixels(one, other):
    def pixels(window):
        rows, cols = range(window.row_off, window.row_end), range(window.col_off, window.col_end)
        return {(row, col) for row in rows for col in cols}

    common = one.intersection(other)
    assert (pixels(common) if common else set()) == pixels(one) & pixels(other)
    if common:
        marked = np.zeros((one.height, one.width), int)
        marked[common.slices_in(one)] = 1
        assert marked.sum() == common.area_px
