"""Vector tiles show what the layers of the GeoPackage hold, at its place."""

from __future__ import annotations

import geopandas
import numpy as np
import pyogrio
import pytest
from affine import Affine
from factories import write_parts
from rasterio.crs import CRS

from geo.errors import OutputError
from geo.grid import Grid
from geo.layers import web_tiles
from geo.layers.assemble import assemble
from geo.layers.geopackage import LayerData, publish
from geo.layers.schema import CRACK, NETWORK, RUN
from geo.layers.web_tiles import tiles_path, write_web_tiles
from geo.options import AssembleOptions

GRID = Grid(Affine(0.005, 0, 5e5, 0, -0.005, 5.8e6), CRS.from_epsg(25832), (160, 600))


def test_tiles_hold_the_cracks_with_their_columns_where_they_are(tmp_path):
    mask = np.zeros(GRID.shape, bool)
    mask[40:43, 20:580] = mask[120:123, 30:300] = True
    package = tmp_path / "map.gpkg"
    options = AssembleOptions(survey_date="2026-05-01")
    assemble(write_parts(tmp_path / "parts", GRID, mask), package, GRID, options)
    stale = tiles_path(package, NETWORK)
    (written,) = write_web_tiles(package)
    assert write_web_tiles(package) == [written]  # replaces its own
    assert written == tiles_path(package, CRACK)
    assert written.read_bytes()[:7] == b"PMTiles"
    assert not stale.exists()
    cracks, tiles = geopandas.read_file(package, layer="crack"), pyogrio.read_dataframe(written)
    assert set(tiles.crack_id) == set(cracks.crack_id)
    by_id = tiles.drop_duplicates("crack_id").set_index("crack_id")
    assert by_id.length_m[cracks.crack_id].to_numpy() == pytest.approx(cracks.length_m)
    assert set(tiles.survey_date) == {"2026-05-01"}
    shown = tiles.to_crs(cracks.crs).total_bounds
    assert shown == pytest.approx(cracks.total_bounds, abs=0.1)
    assert {path.name for path in tmp_path.iterdir()} == {"parts", "map.gpkg", written.name}


def test_what_lies_across_180_degrees_is_not_drawn_around_the_earth(tmp_path):
    grid = Grid(Affine(0.1, 0, 819_446, 0, -0.1, 8_118_000), CRS.from_epsg(32760), (90, 90))
    mask = np.zeros(grid.shape, bool)
    mask[30:34] = True
    package = tmp_path / "map.gpkg"
    assemble(write_parts(tmp_path / "parts", grid, mask), package, grid)
    (written,) = write_web_tiles(package)
    assert written.stat().st_size < 100_000
    cracks, tiles = geopandas.read_file(package, layer="crack"), pyogrio.read_dataframe(written)
    assert tiles.to_crs(32760).length.sum() == pytest.approx(cracks.length.sum(), rel=0.2)


def test_tiles_of_others_are_not_replaced(tmp_path):
    package = tmp_path / "map.gpkg"
    mask = np.zeros(GRID.shape, bool)
    mask[40:43, 20:580] = True
    assemble(write_parts(tmp_path / "parts", GRID, mask), package, GRID)
    tiles_path(package, CRACK).write_bytes(b"PMTiles\3 of somebody else")
    with pytest.raises(OutputError, match="not written by this program"):
        write_web_tiles(package)


def interrupted(schema):
    raise KeyboardInterrupt
    yield


@pytest.mark.parametrize(("layer", "parquet_rows"), [(CRACK, 0), (CRACK, 10), (RUN, 0)])
def test_ctrl_c_while_a_layer_is_written_is_no_error_of_the_file(tmp_path, layer, parquet_rows):
    data = LayerData(layer, interrupted(layer))
    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path / "a.gpkg", GRID.crs, [data], {}, looks=[], parquet_rows=parquet_rows)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_while_tiles_are_written_is_no_error_of_the_file(tmp_path, monkeypatch):
    package, mask = tmp_path / "map.gpkg", np.zeros(GRID.shape, bool)
    mask[40:43, 20:580] = True
    assemble(write_parts(tmp_path / "parts", GRID, mask), package, GRID)
    days = web_tiles._days_as_text
    monkeypatch.setattr(web_tiles, "_days_as_text", lambda rows: (days(rows)[0], interrupted(rows)))
    with pytest.raises(KeyboardInterrupt):
        write_web_tiles(package)
    assert {path.name for path in tmp_path.iterdir()} == {"parts", "map.gpkg"}
