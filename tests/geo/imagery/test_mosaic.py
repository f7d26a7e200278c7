"""Listing, checking and reading rasters as one mosaic."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from factories import GSD_M, write_tile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.enums import ColorInterp

from geo import read_tiles
from geo.errors import InputError
from geo.grid import Window
from geo.imagery.find import scan
from geo.imagery.headers import inspect
from geo.imagery.mosaic import Mosaic
from geo.imagery.web import NO_STAMP
from geo.options import ReadOptions


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def four(tmp_path):
    """One 90 x 70 picture in four unequal tiles; returns (folder, picture)."""
    picture = noise(90, 70)
    for row, row_end in ((0, 50), (50, 90)):
        for col, col_end in ((0, 30), (30, 70)):
            part = picture[row:row_end, col:col_end]
            write_tile(tmp_path / f"t{row}_{col}.tif", part, row, col)
    return tmp_path, picture


def test_four_tiles_read_as_the_one_picture_they_were(four):
    folder, picture = four
    mosaic = pickle.loads(pickle.dumps(read_tiles(folder)))
    assert mosaic.grid.shape == (90, 70)
    raster = mosaic.read(mosaic.grid.window)
    assert np.array_equal(raster.image, picture)
    assert raster.valid.all()
    assert not raster.failures


@settings(max_examples=40, deadline=None)
@given(st.integers(-20, 95), st.integers(-20, 75), st.integers(1, 60), st.integers(1, 60))
def test_any_window_equals_the_padded_picture(tmp_path_factory, row, col, height, width):
    folder = tmp_path_factory.getbasetemp() / "any_window"
    picture = noise(90, 70)
    if not folder.exists():
        folder.mkdir()
        write_tile(folder / "a.tif", picture[:50], 0, 0)
        write_tile(folder / "b.tif", picture[50:], 50, 0)
    raster = read_tiles(folder).read(Window(row, col, height, width))
    padded = np.pad(picture, ((20, 90), (20, 90), (0, 0)))
    expected = padded[row + 20 : row + 20 + height, col + 20 : col + 20 + width]
    assert np.array_equal(raster.image, expected)
    assert np.array_equal(raster.valid, expected.any(axis=2))


@settings(max_examples=25, deadline=None)
@given(st.integers(7, 120))
def test_blocks_cover_every_pixel_of_the_tiles_once(tmp_path_factory, block_px):
    folder = tmp_path_factory.getbasetemp() / "l_shape"
    if not folder.exists():
        folder.mkdir()
        write_tile(folder / "a.tif", noise(40, 100), 0, 0)
        write_tile(folder / "b.tif", noise(60, 30), 40, 70)
    mosaic = read_tiles(folder)
    seen = np.zeros(mosaic.grid.shape, int)
    for block in mosaic.blocks(block_px):
        assert block.window.row_off % block_px == block.window.col_off % block_px == 0
        assert mosaic.touching(block.window)
        seen[block.window.slices_in(mosaic.grid.window)] += 1
    assert seen.max() == 1
    for tile in mosaic.windows:
        assert seen[tile.slices_in(mosaic.grid.window)].all()


def test_folder_glob_list_and_single_file_name_the_same_tile(tmp_path):
    path = write_tile(tmp_path / "deep.tif", noise(8, 8))
    (tmp_path / "list.txt").write_text("# tiles\n\ndeep.tif\n")
    for tiles in (str(tmp_path), str(tmp_path / "*.tif"), str(tmp_path / "list.txt"), [str(path)]):
        assert [tile.path for tile in scan(tiles).tiles] == [str(path)]


def test_what_cannot_be_used_is_a_problem_with_its_remedy(tmp_path):
    good = write_tile(tmp_path / "good.tif", noise(64, 64))
    write_tile(tmp_path / "no_crs.tif", noise(8, 8), crs=None)
    write_tile(tmp_path / "local.tif", noise(8, 8), crs='LOCAL_CS["site",UNIT["metre",1]]')
    write_tile(tmp_path / "float.tif", noise(8, 8).astype(np.float32))
    write_tile(tmp_path / "five.tif", np.zeros((8, 8, 5), np.uint8))
    write_tile(tmp_path / "gray_and_red.tif", np.zeros((8, 8, 2), np.uint8))
    (tmp_path / "cut.tif").write_bytes(good.read_bytes()[:6000])
    (tmp_path / "torn_head.tif").write_bytes(good.read_bytes()[:20])
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "virtual.vrt").write_text("<VRTDataset/>")
    (tmp_path / "disguised.tif").write_text("<VRTDataset/>")
    found = scan(str(tmp_path))
    assert [tile.path for tile in found.tiles] == [str(good)]
    reasons = {os.path.basename(problem.path): problem.reason for problem in found.problems}
    words = {
        "no_crs.tif": "tiles_crs=",
        "local.tif": "not tied to the Earth",
        "float.tif": "float32",
        "five.tif": "5 bands",
        "gray_and_red.tif": "2 bands",
        "cut.tif": "truncated",
        "torn_head.tif": "cannot be opened",
        "empty.tif": "empty",
        "virtual.vrt": "convert it",
        "disguised.tif": "convert it",
    }
    assert reasons.keys() == words.keys()
    for name, word in words.items():
        assert word in reasons[name]


def test_a_cut_tile_still_says_where_it_should_have_been(tmp_path):
    good = write_tile(tmp_path / "good.tif", noise(64, 64), 10, 20)
    (tmp_path / "cut.tif").write_bytes(good.read_bytes()[:6000])
    (problem,) = scan(str(tmp_path)).problems
    assert problem.footprint.equals_exact(inspect(good).grid.footprint(), 1e-9)


def test_the_map_lies_where_its_tiles_do_in_a_crs_of_kilometers_too(tmp_path):
    crs = "+proj=utm +zone=32 +datum=WGS84 +units=km"
    place = Affine(5e-6, 0, 500.1234567, 0, -5e-6, 5700.7654321)
    write_tile(tmp_path / "a.tif", np.full((8, 8, 3), 90, np.uint8), crs=crs, transform=place)
    assert read_tiles(tmp_path).grid.transform.almost_equals(place, 1e-9)


def test_nothing_found_or_nothing_usable_names_the_folder(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        scan(str(tmp_path))
    write_tile(tmp_path / "no_crs.tif", noise(8, 8), crs=None)
    with pytest.raises(InputError, match="no coordinate system"):
        scan(str(tmp_path))
    for absent in ("absent", "absent/*.tif"):
        with pytest.raises(InputError, match="absent"):
            scan(str(tmp_path / absent))
    for nothing in ([], "", ["", str(tmp_path)]):
        with pytest.raises(InputError, match="no tiles given"):
            scan(nothing)


@pytest.mark.parametrize("crs", ["EPSG:4326", "nonsense", "EPSG:3857"])
def test_a_crs_in_which_lengths_cannot_be_measured_is_refused(tmp_path, crs):
    write_tile(tmp_path / "a.tif", noise(8, 8))
    with pytest.raises(InputError, match=crs):
        read_tiles(tmp_path, crs)


@pytest.mark.parametrize(
    ("factor", "allowed"), [(3, True), (1 / 3, True), (3.1, False), (0.3, False)]
)
def test_a_grid_of_quite_another_pixel_size_than_most_of_the_imagery_is_refused(
    tmp_path, factor, allowed
):
    write_tile(tmp_path / "a.tif", noise(90, 90))
    write_tile(tmp_path / "odd.tif", noise(60, 60, 1), 0, 90, gsd=GSD_M * factor)
    found = scan(str(tmp_path))
    assert len(Mosaic.build(found).tiles) == 2
    if allowed:
        mosaic = Mosaic.build(found, gsd_m=GSD_M * factor)
        assert mosaic.grid.gsd_m == pytest.approx(GSD_M * factor)
    else:
        with pytest.raises(InputError, match=r"most of the imagery has 5 mm.*leave gsd_mm out"):
            Mosaic.build(found, gsd_m=GSD_M * factor)


def test_nodata_alpha_and_internal_masks_are_invalid(tmp_path):
    image, hole = noise(16, 16), np.zeros((16, 16), bool)
    hole[0:2, 6:9] = True
    image[hole] = 0
    write_tile(tmp_path / "nodata.tif", image, 0, 0, nodata=0)
    alpha = np.dstack((image, np.where(hole, 0, 255).astype(np.uint8)))
    write_tile(tmp_path / "rgba.tif", alpha, 0, 16)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write_tile(tmp_path / "masked.tif", image, 0, 32)
        with rasterio.open(path, "r+") as tiff:
            tiff.write_mask(~hole)
    raster = read_tiles(tmp_path).read(Window(0, 0, 16, 48))
    assert np.array_equal(raster.valid, ~np.hstack((hole, hole, hole)))


def test_a_fourth_band_that_is_no_alpha_hides_nothing(tmp_path):
    infrared = np.dstack((noise(8, 8), np.zeros((8, 8), np.uint8)))
    path = write_tile(tmp_path / "rgbi.tif", infrared)
    with rasterio.open(path, "r+") as tiff:
        tiff.colorinterp = [*tiff.colorinterp[:3], ColorInterp.undefined]
    assert read_tiles(path).read(Window(0, 0, 8, 8)).valid.all()


def test_one_band_is_repeated_and_a_palette_expanded(tmp_path):
    gray = noise(8, 8)[..., 0]
    write_tile(tmp_path / "gray.tif", gray)
    raster = read_tiles(tmp_path / "gray.tif").read(Window(0, 0, 8, 8))
    assert np.array_equal(raster.image, np.dstack((gray, gray, gray)))
    path = write_tile(tmp_path / "turned.tif", gray, photometric="miniswhite")
    raster = read_tiles(path).read(Window(0, 0, 8, 8))
    assert np.array_equal(raster.image, 255 - np.dstack((gray, gray, gray)))
    path = write_tile(tmp_path / "palette.tif", gray % 2, photometric="palette")
    with rasterio.open(path, "r+") as tiff:
        tiff.write_colormap(1, {0: (1, 2, 3, 255), 1: (40, 50, 60, 255)})
    raster = read_tiles(path).read(Window(0, 0, 8, 8))
    assert np.array_equal(raster.image, np.array([[1, 2, 3], [40, 50, 60]])[gray % 2])


def test_16_bits_of_which_0_is_white_are_stretched_and_turned(tmp_path):
    deep = noise(8, 8)[..., 0] * np.uint16(16)
    images = []
    for kind in ("minisblack", "miniswhite"):
        mosaic = read_tiles(write_tile(tmp_path / f"{kind}.tif", deep, photometric=kind))
        images.append(mosaic.read(mosaic.grid.window).image)
    assert np.array_equal(images[1], 255 - images[0])


def test_transparent_colors_of_a_palette_are_missing(tmp_path):
    values = noise(8, 8)[..., 0] % 4
    picture = Image.fromarray(values)
    picture.putpalette([*range(12)])
    picture.save(tmp_path / "a.png", transparency=bytes([255, 0, 90, 0]))
    (tmp_path / "a.pgw").write_text("0.005\n0\n0\n-0.005\n500000\n5700000\n")
    mosaic = read_tiles(tmp_path / "a.png", reading=ReadOptions(tiles_crs="EPSG:25832"))
    raster = mosaic.read(mosaic.grid.window)
    assert np.array_equal(raster.valid, values % 2 == 0)
    assert np.array_equal(raster.image[values == 2], np.full(((values == 2).sum(), 3), [6, 7, 8]))


def test_bands_are_taken_by_their_colors_where_the_file_names_them(tmp_path):
    image = noise(8, 8)
    path = write_tile(tmp_path / "a.tif", image[..., ::-1], photometric="minisblack")
    with rasterio.open(path, "r+") as tiff:
        tiff.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    assert np.array_equal(read_tiles(path).read(Window(0, 0, 8, 8)).image, image)


def test_of_overlapping_tiles_the_last_path_is_seen_where_it_is_valid(tmp_path):
    under, over = noise(8, 8, seed=1), noise(8, 8, seed=2)
    over[0, 3] = 0
    write_tile(tmp_path / "a.tif", under)
    write_tile(tmp_path / "b.tif", over, nodata=0)
    raster = read_tiles(tmp_path).read(Window(0, 0, 8, 8))
    expected = over.copy()
    expected[0, 3] = under[0, 3]
    assert np.array_equal(raster.image, expected)
    assert raster.valid.all()


@pytest.mark.filterwarnings("error")
def test_a_png_with_world_file_and_prj_is_a_tile(tmp_path):
    image = noise(8, 8)
    with rasterio.open(write_tile(tmp_path / "a.tif", image)) as tiff:
        wkt = tiff.crs.to_wkt()
        options = {"driver": "PNG", "height": 8, "width": 8, "count": 3, "dtype": "uint8"}
        with rasterio.open(tmp_path / "b.png", "w", transform=tiff.transform, **options) as png:
            png.write(tiff.read())
    (tmp_path / "b.png.aux.xml").unlink()
    (tmp_path / "b.pgw").write_text("0.005\n0\n0\n-0.005\n500000.0025\n5699999.9975\n")
    (tmp_path / "b.prj").write_text(wkt)
    tile = inspect(tmp_path / "b.png")
    assert tile.driver == "PNG"
    raster = Mosaic.build([tile]).read(Window(0, 0, 8, 8))
    assert np.array_equal(raster.image, image)
    (tmp_path / "b.prj").unlink()
    assert "no coordinate system" in inspect(tmp_path / "b.png").reason


@pytest.mark.parametrize("whole", [Window(0, 0, 128, 64), Window(40, 3, 60, 30)])
@pytest.mark.parametrize(("compress", "sound"), [("deflate", 0), ("JPEG", 1000), ("packbits", 0)])
def test_a_corrupt_block_costs_its_own_pixels_only(tmp_path, whole, compress, sound):
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": compress}
    path = write_tile(tmp_path / "a.tif", noise(128, 64), nodata=0, **layout)
    image = read_tiles(path).read(Window(0, 0, 128, 64)).image
    with rasterio.open(path) as tiff:
        offset = int(tiff.get_tag_item("BLOCK_OFFSET_0_1", "TIFF", bidx=1))
    with path.open("r+b") as stream:
        stream.seek(offset + sound)
        stream.write(b"\xff" * 200)
    mosaic = read_tiles(path)
    mosaic.read(whole)
    raster = mosaic.read(whole)  # again: no cache has what the block seemed to hold
    rows = np.arange(whole.row_off, whole.row_end)
    assert np.array_equal(raster.valid, np.repeat((rows < 64)[:, None], whole.width, axis=1))
    expected = np.where(
        (rows < 64)[:, None, None], image[whole.slices_in(Window(0, 0, 128, 64))], 0
    )
    assert np.array_equal(raster.image, expected)
    assert [os.path.basename(failure.path) for failure in raster.failures] == ["a.tif"]


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_of_a_png_or_jpeg_nothing_counts_behind_a_fault_whatever_window_reads_it(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(noise(128, 64)).save(path)
    path.with_suffix(f".{name[2]}gw").write_text("0.005\n0\n0\n-0.005\n500000\n5700000\n")
    mosaic = read_tiles(path, reading=ReadOptions(tiles_crs="EPSG:25832", retries=0))
    whole = mosaic.read(mosaic.grid.window)
    assert whole.valid.all()
    assert not whole.failures
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "truncated" in inspect(path, mosaic.reading).reason
    mosaic = replace(mosaic, tiles=(replace(mosaic.tiles[0], stamp=NO_STAMP),))  # as if found so
    cut = mosaic.read(mosaic.grid.window)
    count = cut.valid.all(axis=1).sum()
    assert 30 < count < 100
    assert not cut.valid[count:].any()
    assert np.array_equal(cut.image[:count], whole.image[:count])
    for row in (0, 40, 80, 112):
        window = Window(row, 8, 16, 24)
        part = mosaic.read(window)
        assert np.array_equal(part.valid, cut.valid[window.slices_in(mosaic.grid.window)])
        assert bool(part.failures) is not part.valid.all()


def test_a_tile_that_vanishes_after_listing_is_a_failure_not_an_exception(four):
    folder, picture = four
    mosaic = read_tiles(folder)
    (folder / "t0_0.tif").unlink()
    raster = mosaic.read(mosaic.grid.window)
    assert [os.path.basename(failure.path) for failure in raster.failures] == ["t0_0.tif"]
    assert not raster.valid[:50, :30].any()
    assert np.array_equal(raster.image[50:], picture[50:])


@pytest.mark.parametrize("listed", [False, True])
def test_a_tile_that_is_changed_after_listing_is_a_failure(four, tmp_path_factory, listed):
    folder, picture = four
    tiles = folder
    if listed:
        tiles = tmp_path_factory.mktemp("index") / "index.gpkg"
        found = scan(str(folder)).tiles
        shapes = [tile.grid.footprint() for tile in found]
        names = {"location": [tile.path for tile in found]}
        geopandas.GeoDataFrame(names, geometry=shapes, crs=found[0].crs.to_wkt()).to_file(tiles)
    mosaic, tile = read_tiles(tiles), folder / "t0_0.tif"
    old = tile.stat().st_mtime_ns
    os.utime(tile, ns=(old + 1, old + 1))  # a copy on another node, made before the job
    assert np.array_equal(mosaic.read(mosaic.grid.window).image, picture)
    for change in (
        lambda: os.utime(tile, ns=(old, mosaic.begun_ns + 1)),
        lambda: write_tile(tile, np.zeros((50, 30, 3), np.uint8)),
    ):
        change()
        raster = mosaic.read(mosaic.grid.window)
        (failure,) = raster.failures
        assert "was changed after the job had begun" in failure.reason
        assert "give the same command again" in failure.reason
        assert not raster.valid[:50, :30].any()
        assert np.array_equal(raster.image[50:], picture[50:])
