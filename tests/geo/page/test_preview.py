"""The overview picture."""

from __future__ import annotations

import re
import threading
from dataclasses import replace

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from factories import EAST, NORTH, grid_of, write_parts, write_tile
from PIL import ImageDraw
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning

from geo import read_tiles
from geo.errors import OutputError
from geo.grid import Grid
from geo.imagery import overview as overview_module
from geo.imagery.find import scan
from geo.imagery.mosaic import Mosaic
from geo.imagery.overview import blank_backdrop, read_backdrop, reduce, save_backdrop
from geo.layers.assemble import assemble
from geo.layers.run_rows import MapTerms
from geo.layers.style import OVERVIEW_BLANK, rgb, severity_legend
from geo.options import Rules, SeverityOptions
from geo.page.preview import CAPTION_PX, caption, draw_overview


@pytest.fixture
def street(tmp_path):
    """Two tiles of 200 x 300 pixels side by side, the second half as high.

    A crack of 20 mm goes through both; a thin one lies on the first.
    """
    for name, col, height, tone in (("a.tif", 0, 200, 90), ("b.tif", 300, 100, 160)):
        write_tile(tmp_path / "tiles" / name, np.full((height, 300, 3), tone, np.uint8), col=col)
    mosaic = read_tiles(tmp_path / "tiles")
    mask = np.zeros(mosaic.grid.shape, bool)
    mask[48:52, 30:570] = mask[150, 30:200] = True
    image = np.where(mask, np.uint8(60), np.uint8(150))
    parts = write_parts(tmp_path, mosaic.grid, mask, cut=256, image=image)
    assemble(parts, tmp_path / "out.gpkg", mosaic.grid)
    return mosaic, tmp_path / "out.gpkg"


def read_png(path):
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path) as png:
        return png.read().transpose(1, 2, 0)


def test_the_overview_shows_imagery_cracks_and_nothing_elsewhere(street, tmp_path):
    mosaic, package = street
    draw_overview(reduce(mosaic, 300), package, tmp_path / "overview.png")
    picture = read_png(tmp_path / "overview.png")
    assert picture.shape == (100 + CAPTION_PX[0], CAPTION_PX[1], 3)
    picture, right = picture[:100, :300], picture[:100, 300:]
    assert (right == rgb(OVERVIEW_BLANK)).all()
    legend = {entry.key: rgb(entry.color) for entry in severity_legend(SeverityOptions())}
    thin = (picture == legend["not_measurable"]).all(axis=2)
    assert set(np.nonzero(thin)[0]) <= set(range(72, 79))
    assert thin.any(axis=0).sum() == pytest.approx(85, abs=5)
    cracks = (picture == legend["medium"]).all(axis=2)
    rows, cols = np.nonzero(cracks)
    assert rows.min() >= 22
    assert rows.max() <= 28
    assert (cols.min(), cols.max()) == pytest.approx((15, 284), abs=2)
    assert set(np.unique(cols)) == set(range(cols.min(), cols.max() + 1))
    assert (picture[90, :140] == 90).all()
    assert (picture[10, 160:] == 160).all()
    assert (picture[90, 160:] == 236).all()
    rows = geopandas.read_file(package, layer="crack")
    classes = rows["severity_d6433"].where(rows["severity_d6433"] == "medium", "hairline")
    rows.assign(severity_d6433=classes).to_file(package, layer="crack")
    draw_overview(reduce(mosaic, 300), package, tmp_path / "edited.png")
    assert (read_png(tmp_path / "edited.png")[:100, :300] == picture).all()


@pytest.mark.parametrize(("gsd", "crs"), [(0.013, 25832), (0.9, 25832), (0.5, 2263)])
def test_the_scale_bar_is_as_long_as_it_says(gsd, crs, monkeypatch):
    grid, said = grid_of((50, 60), gsd, crs=crs), []
    text = ImageDraw.ImageDraw.text

    def keep(pen, place, words, *rest, **more):
        said.append(words)
        text(pen, place, words, *rest, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", keep)
    strip = caption(grid, MapTerms(Rules(), "", "m-1", "0123"), 600)
    assert "m-1, 0123" in said
    (length,) = [float(words[:-2]) for words in said if re.fullmatch(r"[\d.]+ m", words)]
    bar = (strip[76, 300:520] == 0).all(axis=1).sum()
    assert bar * grid.gsd_m == pytest.approx(length, rel=0.02)
    assert 80 <= bar <= 202


def test_a_long_name_of_a_model_leaves_scale_and_arrow_free():
    grid = grid_of((300, 300), 0.05)
    models = ("m", "adapted-to-the-roads-of-the-city-of-2026-" * 2)
    short, long = (caption(grid, MapTerms(Rules(), "", name, "4567"), 640) for name in models)
    assert (short[:, 340:] == long[:, 340:]).all()
    assert (short[:, 280:320] != long[:, 280:320]).any()


def test_a_name_with_other_letters_than_ascii_can_be_read():
    grid = grid_of((300, 300), 0.05)
    one, other = (caption(grid, MapTerms(Rules(), "", name, "4567"), 640) for name in ("äé", "öè"))
    assert (one != other).any()  # both would be two empty boxes


def test_the_arrow_points_to_grid_north():
    terms = MapTerms(Rules(), "", "", "")
    for turn, (row, col) in ((0, (28, 560)), (180, (72, 560))):
        transform = Affine.translation(EAST, NORTH) @ Affine.rotation(turn) @ Affine.scale(1, -1)
        strip = caption(Grid(transform, CRS.from_epsg(25832), (9, 9)), terms, 600)
        assert (strip[row, col - 1 : col + 2] < 128).any(), turn


def test_a_backdrop_survives_its_file(street, tmp_path):
    mosaic, _ = street
    overview = reduce(mosaic, 200)
    save_backdrop(tmp_path / "b.tif", overview)
    read = read_backdrop(tmp_path / "b.tif")
    assert read is not None
    assert np.array_equal(read.image, overview.image)
    assert np.array_equal(read.valid, overview.valid)
    assert (read.grid.transform, read.grid.shape) == (overview.grid.transform, overview.grid.shape)
    blank = blank_backdrop(mosaic.grid, 200)
    assert blank.valid.shape == overview.valid.shape
    assert not blank.valid.any()
    (tmp_path / "b.tif").write_bytes(b"torn")
    assert read_backdrop(tmp_path / "b.tif") is None


def test_reduced_tiles_abut_whatever_the_factor(street):
    mosaic, _ = street
    for longest in (600, 599, 431, 100, 7):
        overview = reduce(mosaic, longest)
        assert max(overview.image.shape[:2]) == longest
        assert overview.valid[: len(overview.valid) // 2 or 1].all()
        assert overview.grid.footprint().equals_exact(mosaic.grid.footprint(), 1e-6)


def test_overlapping_tiles_lie_in_the_picture_as_in_the_mosaic(tmp_path):
    sizes = {"a.tif": 0.005, "b.tif": 0.01, "c.tif": 0.01, "d.tif": 0.005}
    for tone, (name, gsd) in enumerate(sizes.items(), start=1):
        side = round(0.25 / gsd)
        image = np.full((side, side, 3), 50 * tone, np.uint8)
        write_tile(tmp_path / name, image, col=20 * tone, gsd=gsd)
    mosaic = Mosaic.build(scan(str(tmp_path)), gsd_m=0.005)
    for tiles in (mosaic, replace(mosaic, tiles=mosaic.tiles[::-1], windows=mosaic.windows[::-1])):
        overview = reduce(tiles, max(mosaic.grid.shape))
        expected = mosaic.read(mosaic.grid.window)
        assert len(np.unique(expected.image[expected.valid])) == 3
        assert np.array_equal(overview.valid, expected.valid)
        assert np.array_equal(overview.image, expected.image)


def test_a_picture_that_cannot_be_written_is_said(street, tmp_path):
    mosaic, package = street
    with pytest.raises(OutputError, match="absent"):
        draw_overview(reduce(mosaic, 300), package, tmp_path / "absent" / "overview.png")


def test_tiles_are_read_at_the_same_time(street, monkeypatch):
    mosaic, _ = street
    meet, read = threading.Barrier(2, timeout=600), overview_module.read_window

    def together(*given, **how):
        meet.wait()  # one alone would wait for ever
        return read(*given, **how)

    expected = reduce(mosaic, 200)
    monkeypatch.setattr(overview_module, "read_window", together)
    assert len(mosaic.tiles) == 2
    assert np.array_equal(reduce(mosaic, 200).image, expected.image)
