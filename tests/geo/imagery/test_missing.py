"""What counts as imagery where a pixel value, or a fourth band, means missing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from affine import Affine
from factories import EAST, GSD_M, NORTH, write_tile
from numpy.typing import NDArray
from rasterio.crs import CRS

from geo.grid import Window
from geo.imagery.find import scan
from geo.imagery.missing import MARGIN, THICK_PX, gaps
from geo.imagery.mosaic import Mosaic
from geo.imagery.suspect import shift_error_m, suspicions
from geo.options import ReadOptions

SIDE = 400


def pavement(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(60, 200, (SIDE, SIDE, 3)).astype(np.uint8)


def open_mosaic(path: Path, **options: object) -> Mosaic:
    return Mosaic.build(scan(str(path)), reading=ReadOptions(**options))


def valid(path: Path, **options: object) -> NDArray[np.bool_]:
    mosaic = open_mosaic(path, **options)
    return mosaic.read(mosaic.grid.window).valid


def test_black_cracks_are_imagery_while_gaps_and_collars_are_missing(tmp_path: Path) -> None:
    image = pavement()
    cv2.polylines(image, [np.array([(60, 350), (200, 200), (330, 60)])], False, (0, 0, 0), 5)
    crack = (image == 0).all(axis=2)
    missing = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(missing, [np.array([(0, 0), (SIDE - 1, 0), (0, 40)])], 1)  # a turned tile's wedge
    missing[300:350, 200:260] = 1  # a hole
    image[missing == 1] = 0
    found = valid(write_tile(tmp_path / "a.tif", image, nodata=0))
    assert found[crack].all()
    assert not found[missing == 1].any()
    assert found.mean() == 1 - missing.mean()


@pytest.mark.parametrize("seed", range(4))
def test_the_answer_does_not_depend_on_the_window_that_is_read(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = pavement(seed)
    for _ in range(12):
        points = rng.integers(0, SIDE, (3, 2)).astype(np.int32)
        cv2.polylines(image, [points], False, (0, 0, 0), int(rng.choice([3, 9, 40])))
    mosaic = open_mosaic(write_tile(tmp_path / "a.tif", image, nodata=0))
    whole = mosaic.read(mosaic.grid.window).valid
    for _ in range(8):
        row, col = (int(v) for v in rng.integers(0, SIDE - 60, 2))
        window = Window(row, col, 60, 60)
        here = window.slices_in(mosaic.grid.window)
        assert np.array_equal(mosaic.read(window).valid, whole[here])


def test_a_square_is_a_gap_from_its_stated_side_on() -> None:
    for side, is_gap in ((THICK_PX - 1, False), (THICK_PX, True)):
        absent = np.zeros((2 * MARGIN, 2 * MARGIN), bool)
        absent[MARGIN : MARGIN + side, MARGIN : MARGIN + side] = True
        assert gaps(absent, (True,) * 4).any() == is_gap


def test_a_collar_without_a_tag_is_told_and_a_key_leaves_it_out(tmp_path: Path) -> None:
    image = pavement()
    image[:100] = 0
    path = write_tile(tmp_path / "a.tif", image)
    (sentence,) = suspicions(open_mosaic(path))
    assert "1 of 1 sampled tiles have edges of exactly 0" in sentence
    assert "nodata=0" in sentence
    assert valid(path).all()
    assert valid(path, nodata=0).mean() == 0.75
    assert suspicions(open_mosaic(path, nodata=0)) == []


def test_a_collar_does_not_enter_the_stretch_of_16_bits(tmp_path: Path) -> None:
    image = (pavement().astype(np.uint16) + 1000) * 10
    image[:200] = 0
    mosaic = open_mosaic(write_tile(tmp_path / "a.tif", image), nodata=0)
    assert mosaic.stretch is not None
    assert mosaic.stretch.low > 10_000


def test_a_fourth_band_that_is_infrared_is_told_and_a_key_ignores_it(tmp_path: Path) -> None:
    infrared = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 1)).astype(np.uint8)
    image = np.concatenate((pavement(), infrared), axis=2)
    path = write_tile(tmp_path / "a.tif", image, alpha="yes")
    (sentence,) = suspicions(open_mosaic(path))
    assert "band4=ignore" in sentence
    assert not valid(path).all()
    assert valid(path, band4="ignore").all()
    image[..., 3] = np.where(infrared[..., 0] > 9, 255, 0)
    assert suspicions(open_mosaic(write_tile(tmp_path / "b.tif", image, alpha="yes"))) == []


def test_alpha_that_a_nodata_value_puts_out_of_use_is_told(tmp_path: Path) -> None:
    alpha = np.full((SIDE, SIDE, 1), 255, np.uint8)
    alpha[:100] = 0
    image = np.concatenate((pavement(), alpha), axis=2)
    path = write_tile(tmp_path / "a.tif", image, alpha="yes", nodata=0)
    (sentence,) = suspicions(open_mosaic(path))
    assert "gdal_edit.py -unsetnodata" in sentence
    assert valid(path).all()
    image[:100] = 0
    assert suspicions(open_mosaic(write_tile(path, image, alpha="yes", nodata=0))) == []
    image[..., 3] = pavement()[..., 0]  # infrared, which counts for nothing here
    assert suspicions(open_mosaic(write_tile(path, image, alpha="yes", nodata=0))) == []


def test_an_overview_among_the_tiles_is_told(tmp_path: Path) -> None:
    write_tile(tmp_path / "a.tif", pavement())
    write_tile(tmp_path / "b.tif", pavement()[:50, :50], gsd=3 * GSD_M, col=SIDE)
    assert suspicions(open_mosaic(tmp_path)) == []
    write_tile(tmp_path / "overview.tif", pavement()[:50, :50], gsd=100 * GSD_M)
    (sentence,) = suspicions(open_mosaic(tmp_path))
    assert "1 of 3 tiles have pixels of more than 3 x the map's 5 mm" in sentence
    assert "overview.tif with 500 mm" in sentence


def test_a_mask_in_a_file_beside_a_tile_is_told(tmp_path: Path) -> None:
    path = write_tile(tmp_path / "a.tif", pavement())
    (tmp_path / "a.tif.msk").touch()
    (sentence,) = suspicions(open_mosaic(path))
    assert "1 of 1 sampled tiles have their mask in a file .msk" in sentence
    assert "GDAL_TIFF_INTERNAL_MASK" in sentence
    assert suspicions(open_mosaic(path, nodata=0)) == [sentence]


@pytest.mark.parametrize(("epsg", "most"), [(31467, 3.0), (32632, 1.0), (25833, 0.0)])
def test_the_accuracy_of_a_datum_shift_is_that_of_proj(epsg: int, most: float) -> None:
    """With its grids PROJ may state less."""
    error_m = shift_error_m(CRS.from_epsg(epsg), CRS.from_epsg(25832))
    assert error_m is not None
    assert min(most, 0.01) <= error_m <= most


def test_a_coarse_datum_shift_is_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tile(tmp_path / "a.tif", np.vstack((pavement(), pavement())))
    place = Affine(GSD_M, 0, 3_500_000, 0, -GSD_M, NORTH + 2000)
    write_tile(tmp_path / "b.tif", pavement(), crs="EPSG:31467", transform=place)
    monkeypatch.setattr(
        "geo.imagery.suspect.shift_error_m", lambda one, other: 3.0 * (one != other)
    )
    (sentence,) = suspicions(open_mosaic(tmp_path))
    assert "tiles in EPSG:31467 are brought to EPSG:25832 with an accuracy of 3 m" in sentence
    assert sentence.endswith("(projsync), or map in the system of the tiles (crs=EPSG:31467)")
    place = Affine(7e-8, 0, 9.0, 0, -4.5e-8, 51.46)
    write_tile(tmp_path / "b.tif", pavement(), crs="EPSG:4314", transform=place)
    (sentence,) = suspicions(open_mosaic(tmp_path))
    assert "tiles in EPSG:4314 are brought to EPSG:25832" in sentence
    assert sentence.endswith("install its grid (projsync)")  # no map is made in degrees


def test_tiles_of_one_system_in_other_words_are_not_suspected(tmp_path: Path) -> None:
    words = "+proj=utm +zone=32 +ellps=GRS80 +towgs84=0,0,0 +units=m"  # GDAL: EPSG:25832, unequal
    other = CRS.from_string(words)
    assert other != CRS.from_epsg(25832)
    write_tile(tmp_path / "a.tif", np.vstack((pavement(), pavement())))
    path = write_tile(tmp_path / "b.tif", pavement(), col=400, crs=None)
    path.with_suffix(".prj").write_text(other.to_wkt())
    assert suspicions(open_mosaic(tmp_path)) == []


def test_ordinary_tiles_are_not_suspected(tmp_path: Path) -> None:
    image = pavement()
    image[::7, ::5] = 0
    assert suspicions(open_mosaic(write_tile(tmp_path / "a.tif", image))) == []


def test_a_tile_far_from_the_others_is_told_and_one_in_kilometers_is_left_out(
    tmp_path: Path,
) -> None:
    for number in range(3):
        write_tile(tmp_path / f"{number}.tif", pavement(), 0, SIDE * number)
    assert suspicions(open_mosaic(tmp_path)) == []
    x, y = EAST / 1000, NORTH / 1000
    scaled = Affine(GSD_M / 1000, 0, x, 0, -GSD_M / 1000, y)
    write_tile(tmp_path / "km.tif", pavement(), transform=scaled)
    write_tile(tmp_path / "off.tif", pavement(), transform=Affine(GSD_M, 0, x, 0, -GSD_M, y))
    mosaic = open_mosaic(tmp_path)
    (problem,) = mosaic.problems
    assert problem.path.endswith("km.tif")
    assert "seem to be in kilometers" in problem.reason
    (sentence,) = suspicions(mosaic)
    assert "1 of 4 tiles lie more than 100 km from the others" in sentence
    assert "off.tif" in sentence
