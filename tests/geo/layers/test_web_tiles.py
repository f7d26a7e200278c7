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
from geo.layers.assemble import assemble
from geo.layers.schema import CRACK, NETWORK
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


def test_tiles_of_others_are_not_replaced(tmp_path):
    package = tmp_path / "map.gpkg"
    mask = np.zeros(GRID.shape, bool)
    mask[40:43, 20:580] = True
    assemble(write_parts(tmp_path / "parts", GRID, mask), package, GRID)
    tiles_path(package, CRACK).write_bytes(b"PMTiles\3 of somebody else")
    with pytest.raises(OutputError, match="not written by this program"):
        write_web_tiles(package)
