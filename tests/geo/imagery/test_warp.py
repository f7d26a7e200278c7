"""Tiles of other systems, rotations, pixel sizes and phases, resampled on reading."""

from __future__ import annotations

import os

import numpy as np
import pytest
import rasterio
from affine import Affine
from factories import GSD_M as GSD
from factories import write_tile
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import Resampling, reproject

from geo.errors import InputError
from geo.grid import Window
from geo.imagery.find import scan
from geo.imagery.mosaic import Mosaic

X, Y = 500000.0, 5800000.0
UTM32 = CRS.from_epsg(25832)


def north_up(gsd=GSD, x=X, y=Y):
    return Affine(gsd, 0, x, 0, -gsd, y)


def turned(degrees, gsd=GSD, x=X, y=Y):
    return Affine.translation(x, y) @ Affine.rotation(degrees) @ Affine.scale(gsd, -gsd)


def waves(height, width, length=40.0):
    """A smooth color picture that any good resampling reproduces, (H, W, 3) uint8."""
    y, x = np.mgrid[:height, :width] + 0.5
    phases = (x / length, y / length, (x + y) / length)
    return np.stack([127 + 100 * np.sin(2 * np.pi * p) for p in phases], -1).round().astype("u1")


def mosaic_of(folder, **options):
    return Mosaic.build(scan(str(folder)), **options)


def whole(mosaic):
    return mosaic.read(mosaic.grid.window)


def scattered(folder):
    """Tiles of every kind around one place: aligned, shifted, turned, coarse, fine, in degrees."""
    write_tile(folder / "a.tif", waves(300, 300), transform=north_up())
    write_tile(folder / "b.tif", waves(300, 300), transform=north_up(x=X + 1.4 + GSD * 0.37))
    write_tile(folder / "c.tif", waves(200, 300), transform=turned(33, x=X, y=Y + 1))
    write_tile(folder / "d.tif", waves(150, 150), transform=north_up(gsd=0.012, y=Y - 1.5))
    write_tile(
        folder / "e.tif", waves(600, 500), transform=north_up(gsd=0.0021, x=X + 1.5, y=Y - 1.5)
    )
    degrees = Affine(7e-8, 0, 9 - 3e-5, 0, -4.5e-8, 52.35003)
    write_tile(folder / "f.tif", waves(300, 300), transform=degrees, crs="EPSG:4326")
    return mosaic_of(folder)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    mosaic = scattered(tmp_path_factory.mktemp("mixed"))
    return mosaic, whole(mosaic)


def test_the_grid_is_that_of_most_pixels_and_nothing_is_left_out(mixed):
    mosaic, raster = mixed
    assert mosaic.grid.crs == UTM32
    assert mosaic.grid.gsd_m == pytest.approx(0.0021)  # 600 x 500 pixels: most of them
    assert (len(mosaic.tiles), mosaic.problems, raster.failures) == (6, (), ())
    assert raster.gsd_m == pytest.approx(0.012)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_pixel_is_the_same_whatever_window_reads_it(mixed, data):
    mosaic, full = mixed
    rows, cols = mosaic.grid.shape
    row, col = data.draw(st.integers(-40, rows)), data.draw(st.integers(-40, cols))
    height, width = data.draw(st.integers(1, 700)), data.draw(st.integers(1, 700))
    window = Window(row, col, height, width)
    seen, part = mosaic.read(window), window.intersection(mosaic.grid.window)
    expected = np.zeros((height, width, 3), np.uint8)
    valid = np.zeros((height, width), bool)
    if part:
        here, there = part.slices_in(window), part.slices_in(mosaic.grid.window)
        expected[here], valid[here] = full.image[there], full.valid[there]
    assert np.array_equal(seen.valid, valid)
    assert np.array_equal(seen.image, expected)


@pytest.mark.parametrize(
    ("transform", "crs", "least"),
    [
        (north_up(x=X + GSD * 0.4, y=Y + GSD * 0.3), UTM32, 0.99),
        (turned(20), UTM32, 0.99),
        (Affine(0, GSD, X, GSD, 0, Y), UTM32, 0.99),  # transposed
        (Affine(7.3e-8, 0, 9, 0, -4.5e-8, 52.35), CRS.from_epsg(4326), 0.98),
        (Affine(0.0082, 0, 1001875, 0, -0.0082, 6860000), CRS.from_epsg(3857), 0.98),
    ],
)
def test_resampling_agrees_with_gdal(tmp_path, transform, crs, least):
    image = waves(220, 260)
    write_tile(tmp_path / "a.tif", image, transform=transform, crs=crs)
    mosaic = mosaic_of(tmp_path, crs="EPSG:25832", gsd_m=GSD)
    raster = whole(mosaic)
    reference = np.zeros((3, *mosaic.grid.shape), np.uint8)
    inside = np.zeros(mosaic.grid.shape, np.uint8)
    place = {"src_transform": transform, "src_crs": crs, "dst_crs": mosaic.grid.crs}
    place |= {"dst_transform": mosaic.grid.transform, "tolerance": 0.0}
    bands = image.transpose(2, 0, 1).copy()
    reproject(bands, reference, resampling=Resampling.bilinear, **place)
    reproject(np.full(image.shape[:2], 255, "u1"), inside, resampling=Resampling.nearest, **place)
    assert (raster.valid == (inside > 0)).mean() > 0.999
    both = raster.valid & (inside > 0)
    off = np.abs(raster.image.astype(int) - reference.transpose(1, 2, 0))[both]
    assert (off <= 1).mean() > least
    assert off.mean() < 0.2


def test_a_coarser_grid_averages_whole_pixels(tmp_path):
    fine = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    write_tile(tmp_path / "a.tif", fine, transform=north_up(gsd=0.001, x=499998.0, y=5799999.0))
    raster = whole(mosaic_of(tmp_path, gsd_m=0.003))
    blocks = fine.reshape(100, 3, 100, 3, 3).mean(axis=(1, 3))
    assert raster.valid.all()
    assert np.abs(raster.image - blocks).max() <= 0.5 + 1e-4


def test_invalid_pixels_lend_no_color_to_their_neighbors(tmp_path):
    image = np.full((60, 60, 3), 200, np.uint8)
    image[:20, 20:40] = 0
    write_tile(tmp_path / "a.tif", image, transform=turned(10), nodata=0)
    raster = whole(mosaic_of(tmp_path, crs="EPSG:25832", gsd_m=0.004))
    assert raster.valid.mean() == pytest.approx(
        3200 * GSD**2 / (raster.valid.size * 0.004**2), rel=0.01
    )
    assert (raster.image[raster.valid] == 200).all()


def test_abutting_tiles_in_degrees_leave_no_gap_between_them(tmp_path):
    picture = waves(200, 400)
    step = 7e-8
    for number, col in enumerate((0, 130, 257)):
        part = picture[:, col : (130, 257, 400)[number]]
        write_tile(
            tmp_path / f"{number}.tif",
            part,
            transform=Affine(step, 0, 9.1 + col * step, 0, -step, 52.3),
            crs="EPSG:4326",
        )
    mosaic = mosaic_of(tmp_path)
    raster = whole(mosaic)
    assert mosaic.grid.crs.to_epsg() == 32632
    assert raster.valid[3:-3, 3:-3].all()


def test_of_overlapping_tiles_the_smaller_pixel_is_seen_then_the_later_path(tmp_path):
    for name, value, gsd, crs in (
        ("a.tif", 10, GSD, UTM32),
        ("b.tif", 20, GSD, UTM32),
        ("c.tif", 30, 2 * GSD, UTM32),
    ):
        image = np.full((100, 100, 3), value, np.uint8)
        write_tile(tmp_path / name, image, transform=north_up(gsd=gsd), crs=crs)
    seen = whole(mosaic_of(tmp_path)).image[..., 0]
    assert (seen[:100, :100] == 20).all()
    assert (seen[100:, 100:] == 30).all()
    fine = np.full((50, 50, 3), 5, np.uint8)
    write_tile(tmp_path / "0.tif", fine, transform=north_up(gsd=GSD / 2))
    assert (whole(mosaic_of(tmp_path)).image[:25, :25] == 5).all()


def test_the_system_of_the_job_is_the_wish_or_most_pixels_or_utm(tmp_path):
    write_tile(tmp_path / "a.tif", waves(90, 90), transform=north_up())
    write_tile(tmp_path / "b.tif", waves(50, 50), transform=north_up(x=91000), crs="EPSG:25833")
    assert mosaic_of(tmp_path).grid.crs.to_epsg() == 25832
    assert mosaic_of(tmp_path, crs="EPSG:25833").grid.crs.to_epsg() == 25833
    assert mosaic_of(tmp_path, crs="EPSG:25833").grid.gsd_m == pytest.approx(GSD)
    write_tile(
        tmp_path / "c.tif",
        waves(200, 200),
        transform=Affine(1e-7, 0, -70, 0, -1e-7, -33),
        crs="EPSG:4326",
    )
    (tmp_path / "a.tif").unlink()
    (tmp_path / "b.tif").unlink()
    assert mosaic_of(tmp_path).grid.crs.to_epsg() == 32719


def test_tiles_on_both_sides_of_180_degrees_are_not_mapped_at_0(tmp_path):
    for name, x in (("a.tif", 179.99), ("b.tif", -179.995)):
        write_tile(
            tmp_path / name,
            waves(9, 9),
            transform=Affine(1e-5, 0, x, 0, -1e-5, -17),
            crs="EPSG:4326",
        )
    assert mosaic_of(tmp_path).grid.crs.to_epsg() in (32701, 32760)


@pytest.mark.parametrize("x", [179.9999, -180.0001, 190.0])
def test_a_tile_in_degrees_that_goes_on_beyond_180_is_seen_whole(tmp_path, x):
    place = Affine(1e-5, 0, x, 0, -1e-5, -17)
    write_tile(tmp_path / "a.tif", waves(60, 60), transform=place, crs="EPSG:4326")
    mosaic = mosaic_of(tmp_path)
    seen_m2 = whole(mosaic).valid.sum() * mosaic.grid.pixel_area_m2
    degree_m = 111_320.0
    assert seen_m2 == pytest.approx((60e-5 * degree_m) ** 2 * np.cos(np.radians(17)), rel=0.02)


def test_one_column_and_ten_rows_are_read_on_any_grid(tmp_path):
    write_tile(tmp_path / "column.tif", waves(50, 1), transform=north_up(x=X + 0.2 + GSD / 3))
    write_tile(tmp_path / "rows.tif", waves(10, 300), transform=north_up())
    mosaic = mosaic_of(tmp_path)
    raster = whole(mosaic)
    assert raster.valid[:10, :40].all()
    tilted = mosaic_of(tmp_path, gsd_m=GSD * 0.7)
    assert whole(tilted).valid.sum() * 0.49 == pytest.approx(raster.valid.sum(), rel=0.1)


def test_a_corrupt_block_costs_its_own_pixels_also_on_another_grid(tmp_path):
    image = waves(256, 256)
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    path = write_tile(tmp_path / "a.tif", image, transform=turned(7), **layout)
    mosaic = mosaic_of(tmp_path, gsd_m=0.0043)
    before = whole(mosaic)
    with rasterio.open(path) as tiff:
        offset = int(tiff.get_tag_item("BLOCK_OFFSET_1_2", "TIFF", bidx=1))
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(b"\xff" * 200)
    raster = whole(mosaic_of(tmp_path, gsd_m=0.0043))
    lost = (before.valid.sum() - raster.valid.sum()) * 0.0043**2
    assert lost == pytest.approx(64 * 64 * GSD**2, rel=0.02)
    assert [os.path.basename(failure.path) for failure in raster.failures] == ["a.tif"]
    far = raster.valid & (np.abs(np.indices(raster.valid.shape).sum(0) - 250) > 200)
    assert np.array_equal(raster.image[far], before.image[far])


def test_a_tile_beyond_the_reach_of_the_system_is_a_problem(tmp_path):
    write_tile(tmp_path / "a.tif", waves(9, 9), transform=north_up())
    write_tile(
        tmp_path / "b.tif", waves(9, 9), transform=Affine(1e-5, 0, 99, 0, -1e-5, 0), crs="EPSG:4326"
    )
    mosaic = mosaic_of(tmp_path)
    assert "give another crs=" in mosaic.problems[0].reason
    with pytest.raises(InputError, match="is not defined"):
        Mosaic.build(scan(str(tmp_path / "b.tif")), crs="EPSG:25832")
