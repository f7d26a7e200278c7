"""The overview picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

from geo.cracks.parts import InspectedRow, write_part
from geo.cracks.pieces import pieces
from geo.errors import OutputError
from geo.imagery.find import scan
from geo.imagery.mosaic import Mosaic
from geo.imagery.overview import blank_backdrop, read_backdrop, reduce, save_backdrop
from geo.layers.assemble import assemble
from geo.layers.style import OVERVIEW_CRACK, rgb
from geo.page.preview import draw_overview


@pytest.fixture
def street(tmp_path):
    """Two tiles of 200 x 300 pixels side by side, the second half as high; a crack through both."""
    folder = tmp_path / "tiles"
    folder.mkdir()
    for name, col, height, tone in (("a.tif", 0, 200, 90), ("b.tif", 300, 100, 160)):
        transform = Affine(0.005, 0, 5e5 + col * 0.005, 0, -0.005, 5.8e6)
        profile = {"driver": "GTiff", "height": height, "width": 300, "count": 3, "dtype": "uint8"}
        with rasterio.open(
            folder / name, "w", crs="EPSG:25832", transform=transform, **profile
        ) as tiff:
            tiff.write(np.full((3, height, 300), tone, np.uint8))
    mosaic = Mosaic.build(scan(str(folder)))
    mask = np.zeros(mosaic.grid.shape, bool)
    mask[48:52, 30:570] = True
    for block in mosaic.blocks(256):
        here = block.window.slices_in(mosaic.grid.window)
        found = pieces(mask[here], mask[here] * np.uint8(200), block.window, mosaic.grid)
        row = InspectedRow.of(block, mask[here], (), mosaic.grid, seconds=0)
        write_part(tmp_path / f"{block.block_id}.parquet", found, row)
    assemble(tmp_path.glob("*.parquet"), tmp_path / "out.gpkg", mosaic.grid)
    return mosaic, tmp_path / "out.gpkg"


def read_png(path):
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path) as png:
        return png.read().transpose(1, 2, 0)


def test_the_overview_shows_imagery_cracks_and_nothing_elsewhere(street, tmp_path):
    mosaic, package = street
    draw_overview(reduce(mosaic, 300), package, tmp_path / "overview.png")
    picture = read_png(tmp_path / "overview.png")
    assert picture.shape == (100, 300, 3)
    cracks = (picture == rgb(OVERVIEW_CRACK)).all(axis=2)
    rows, cols = np.nonzero(cracks)
    assert rows.min() >= 22
    assert rows.max() <= 28
    assert (cols.min(), cols.max()) == pytest.approx((15, 284), abs=2)
    assert set(np.unique(cols)) == set(range(cols.min(), cols.max() + 1))
    assert (picture[90, :140] == 90).all()
    assert (picture[10, 160:] == 160).all()
    assert (picture[90, 160:] == 236).all()


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
        transform = Affine(gsd, 0, 5e5 + 0.1 * tone, 0, -gsd, 5.8e6)
        side = round(0.25 / gsd)
        profile = {"driver": "GTiff", "height": side, "width": side, "count": 3, "dtype": "uint8"}
        with rasterio.open(
            tmp_path / name, "w", crs="EPSG:25832", transform=transform, **profile
        ) as tiff:
            tiff.write(np.full((3, side, side), 50 * tone, np.uint8))
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
