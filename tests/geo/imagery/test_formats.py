"""16 bits, alpha, masks, and the real rasters of ../shared/data/geo."""

from __future__ import annotations

import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
import rasterio
from factories import grid_of, write_tile
from rasterio.enums import ColorInterp

from geo import read_tiles
from geo.errors import InputError
from geo.grid import Window
from geo.imagery.find import scan
from geo.imagery.mosaic import Mosaic
from geo.imagery.reading import Stretch
from geo.imagery.writing import write_raster

DATA = Path(__file__).parents[4] / "shared" / "data" / "geo"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}")


def whole(mosaic):
    return mosaic.read(mosaic.grid.window)


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_a_full_disk_leaves_the_earlier_raster_and_is_not_silent(tmp_path, driver):
    noise = np.random.default_rng(0).integers(0, 255, (1, 99, 99)).astype(np.uint8)
    path, most = tmp_path / "a.tif", resource.getrlimit(resource.RLIMIT_FSIZE)
    write_raster(path, noise, grid_of((99, 99)), driver)
    before = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - 1, most[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_raster(path, noise, grid_of((99, 99)), driver)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [before]


def sixteen_bits(seed=0, high=4000, shape=(64, 64, 3)):
    return np.random.default_rng(seed).integers(1000, high, shape).astype(np.uint16)


def test_16_bits_are_stretched_between_the_percentiles_of_all_tiles(tmp_path):
    one, other = sixteen_bits(1), sixteen_bits(2, high=9000)
    write_tile(tmp_path / "a.tif", one)
    write_tile(tmp_path / "b.tif", other, col=64)
    mosaic = pickle.loads(pickle.dumps(read_tiles(tmp_path)))
    low, high = np.percentile(np.stack((one, other)), (1, 99))
    assert (mosaic.stretch.low, mosaic.stretch.high) == pytest.approx((low, high))
    both = np.concatenate((one, other), axis=1)
    expected = np.clip((both - low) / (high - low) * 255, 0, 255)
    raster = whole(mosaic)
    assert raster.valid.all()
    assert np.abs(raster.image - expected).max() <= 0.51


def test_a_stretch_that_is_given_is_used_and_8_bits_stay_as_they_are(tmp_path):
    image = np.array([[1000, 1255, 2000]], np.uint16)
    write_tile(tmp_path / "a.tif", image)
    write_tile(tmp_path / "b.tif", np.full((1, 3), 99, np.uint8), col=3)
    mosaic = Mosaic.build(scan(str(tmp_path)), stretch=Stretch(1000, 1510))
    assert whole(mosaic).image[0, :, 0].tolist() == [0, 128, 255, 99, 99, 99]
    assert read_tiles(tmp_path / "b.tif").stretch is None
    with pytest.raises(InputError, match="rising order"):
        Stretch(5, 5)


def test_missing_pixels_do_not_enter_the_stretch_and_are_invalid(tmp_path):
    image = sixteen_bits()
    image[:32] = 65535
    write_tile(tmp_path / "a.tif", image, nodata=65535)
    mosaic = read_tiles(tmp_path)
    assert mosaic.stretch.high < 4000
    assert np.array_equal(whole(mosaic).valid, np.arange(64)[:, None].repeat(64, 1) >= 32)


def test_of_many_16_bit_tiles_a_sample_is_read(tmp_path):
    for number in range(70):
        shade = np.full((4, 4), 100 + number, np.uint16)
        write_tile(tmp_path / f"{number:02}.tif", shade, col=4 * number)
    opened = []
    original = rasterio.open

    def counted(path, *args, **kwargs):
        opened.append(path)
        return original(path, *args, **kwargs)

    found = scan(str(tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rasterio, "open", counted)
        stretch = Mosaic.build(found).stretch
    assert len(opened) == 64
    assert (stretch.low, stretch.high) == pytest.approx((100, 169), abs=2)


def test_a_large_16_bit_raster_is_sampled_in_patches(tmp_path, monkeypatch):
    monkeypatch.setattr("geo.imagery.reading.WHOLE_PX", 100)
    ramp = np.arange(120 * 500, dtype=np.uint16).reshape(120, 500)
    write_tile(tmp_path / "a.tif", ramp)
    stretch = read_tiles(tmp_path).stretch
    assert stretch.low < 2000
    assert stretch.high > 58000


def test_a_16_bit_tile_that_cannot_be_read_does_not_end_the_job(tmp_path):
    path = write_tile(tmp_path / "a.tif", sixteen_bits())
    found = scan(str(tmp_path))
    path.unlink()
    mosaic = Mosaic.build(found)
    assert (mosaic.stretch.low, mosaic.stretch.high) == (0, 65535)
    assert whole(mosaic).failures


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colors", [1, 3])
def test_alpha_hides_pixels_of_any_depth(tmp_path, dtype, colors):
    top = np.iinfo(dtype).max
    alpha = np.full((16, 16), top, dtype)
    alpha[4:9, 2:7] = 0
    image = np.random.default_rng(0).integers(1, top, (16, 16, colors)).astype(dtype)
    path = write_tile(tmp_path / "a.tif", np.dstack((image, alpha)), photometric="minisblack")
    with rasterio.open(path, "r+") as tiff:
        tiff.colorinterp = [*tiff.colorinterp[:colors], ColorInterp.alpha]
    assert np.array_equal(whole(read_tiles(tmp_path)).valid, alpha > 0)


def test_islands_of_transparency_are_holes_and_nothing_else(tmp_path):
    image = np.random.default_rng(0).integers(1, 256, (40, 40, 3)).astype(np.uint8)
    holes = np.random.default_rng(1).random((40, 40)) < 0.2
    alpha = np.where(holes, 0, 255).astype(np.uint8)
    write_tile(tmp_path / "a.tif", np.dstack((image, alpha)), alpha="yes")
    assert np.array_equal(whole(read_tiles(tmp_path)).valid, ~holes)


@pytest.mark.data
@needs_data
def test_a_real_16_bit_raster_in_degrees_is_mapped_in_utm():
    mosaic = read_tiles(DATA / "roads_image.tif")
    assert mosaic.grid.crs.to_epsg() == 32611
    assert 0.2 < mosaic.grid.gsd_m < 0.35
    assert mosaic.stretch.low < mosaic.stretch.high
    side = min(mosaic.grid.shape)
    raster = mosaic.read(Window(side // 4, side // 4, side // 2, side // 2))
    assert raster.valid.all()
    assert raster.image.std() > 20
    assert not raster.failures


@pytest.mark.data
@needs_data
def test_a_real_rgb_raster_is_read_as_it_is():
    mosaic = read_tiles(DATA / "village_rgb.tif")
    assert mosaic.grid.crs.to_epsg() == 32737
    assert mosaic.grid.gsd_m == pytest.approx(0.07748, rel=1e-3)
    with rasterio.open(DATA / "village_rgb.tif") as tiff:
        assert np.array_equal(whole(mosaic).image, tiff.read().transpose(1, 2, 0))
