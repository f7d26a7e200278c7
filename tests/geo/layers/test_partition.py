"""All layers are the same however the ground was cut into blocks, and they fit together."""

from __future__ import annotations

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from factories import write_parts, write_roads
from rasterio.crs import CRS

from geo.cracks import seams
from geo.grid import Grid
from geo.layers.assemble import assemble
from geo.options import AssembleOptions, NetworkOptions, RoadOptions

ROWS, COLS = 151, 185
PLACE = Affine(0.005, 0.001, 5e5, 0.0008, -0.004, 5.8e6)  # turned, pixels not square
GRID = Grid(PLACE, CRS.from_epsg(25832), (ROWS, COLS))
SMALL = NetworkOptions(
    closing_m=0.05,
    opening_m=0.04,
    window_m=0.2,
    reach_m=0.04,
    min_density_m_per_m2=15,
    min_area_m2=0.03,
)
"""Networks on a ground of less than a square meter."""

LAYERS = ("crack", "network", "outline", "road_segment")
CUTS = {1: (151, 185), 4: (83, 97), 37: (151, 5)}


def drawn():
    """Cracks that cross each other, touch diagonally at a seam, loop; and crumbs."""
    mask = np.zeros(GRID.shape, bool)
    mask[20:23, 5:180] = mask[5:140, 90:92] = True  # a cross
    mask[60:100, 20:24] = mask[60:100, 60:64] = True
    mask[60:64, 20:64] = mask[96:100, 20:64] = True  # a ring
    mask[112:114, 130:140] = mask[114:116, 140:150] = True  # a corner at column 140
    mask[82:84, 100:110] = True
    mask[83, 110] = mask[84, 111] = True  # diagonally across row 83
    mask |= np.random.default_rng(1).random(GRID.shape) < 0.004
    return mask


def alligator():
    """Where lines run densely in several directions."""
    mask = np.zeros(GRID.shape, bool)
    mask[4:150:18, 100:185] = mask[4:150, 100:185:18] = True
    return mask


def imagery(mask):
    """Gray pavement with dark cracks."""
    noise = np.random.default_rng(2).integers(140, 160, mask.shape, np.uint8)
    return np.where(mask, np.uint8(70), noise)


def package(folder, n_blocks):
    folder.mkdir()
    mask, valid = drawn() | alligator(), np.ones(GRID.shape, bool)
    probability = mask * (128 + np.arange(mask.size).reshape(mask.shape) % 128).astype(np.uint8)
    valid[:, 169:] = False
    cut, image = CUTS[n_blocks], imagery(mask)
    parts = write_parts(folder, GRID, mask, probability, cut, valid, image)
    assert len(parts) == n_blocks
    ends = [(u, v) for v in (40.0, 110.0) for u in (0.0, 61.0, 122.0)]
    lines = [GRID.to_world(np.array([[u, v], [u + 61, v]])) for u, v in ends]
    roads = write_roads(folder / "roads.gpkg", lines, ref=list("abcdef"))
    chosen = RoadOptions(path=roads, id="ref", lane_m=0.12)
    options = AssembleOptions(roads=chosen, network=SMALL)
    return assemble(parts, folder / "out.gpkg", GRID, options)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("partition")
    return {n_blocks: package(folder / str(n_blocks), n_blocks) for n_blocks in CUTS}


def table(report, layer):
    frame = geopandas.read_file(report.path, layer=layer)
    frame = frame.sort_values(frame.columns[0], ignore_index=True)
    return pd.DataFrame(frame).assign(geometry=frame.geometry.to_wkb())


@pytest.mark.parametrize("n_blocks", [4, 37])
@pytest.mark.parametrize("layer", LAYERS)
def test_every_column_of_every_layer_is_the_same(packages, n_blocks, layer):
    whole = table(packages[1], layer)
    assert len(whole) > (0 if layer == "network" else 5)
    pd.testing.assert_frame_equal(table(packages[n_blocks], layer), whole, check_exact=True)


def test_joining_a_few_cracks_at_a_time_changes_nothing_and_leaves_nothing(
    packages, tmp_path, monkeypatch
):
    read, original = [], seams.read_part
    monkeypatch.setattr(seams, "AT_ONCE_PX", 40)
    monkeypatch.setattr(seams, "read_part", lambda *a: read.append(a[0]) or original(*a))
    few = package(tmp_path / "few", 37)
    for layer in LAYERS:
        pd.testing.assert_frame_equal(table(few, layer), table(packages[37], layer))
    assert len(read) > 37
    assert not [path for path in few.path.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("n_blocks", CUTS)
def test_layers_refer_to_rows_that_exist(packages, n_blocks):
    cracks, networks, outlines, segments = (table(packages[n_blocks], layer) for layer in LAYERS)
    for frame in (cracks, networks, outlines, segments):
        assert frame[frame.columns[0]].is_unique
    assert set(outlines.crack_id.dropna()) <= set(cracks.crack_id)
    assert set(outlines.network_id.dropna()) == set(networks.network_id)
    assert (outlines.crack_id.isna() != outlines.network_id.isna()).all()
    named = cracks.segment_id.dropna()
    assert 0 < len(named) < len(cracks)
    assert set(named) | set(networks.segment_id.dropna()) <= set(segments.segment_id)
    parts = cracks.geometry.apply(lambda wkb: len(shapely.get_parts(shapely.from_wkb(wkb))))
    assert parts.tolist() == cracks.branches.tolist()


@pytest.mark.parametrize("n_blocks", CUTS)
def test_segments_and_what_is_on_no_road_add_up_to_all(packages, n_blocks):
    report, segments = packages[n_blocks], table(packages[n_blocks], "road_segment")
    cracks, networks = table(packages[n_blocks], "crack"), table(packages[n_blocks], "network")
    assert report.off_road_m > 0
    assert cracks.length_m.sum() == pytest.approx(report.length_m)
    total = segments.crack_length_m.sum() + report.off_road_m
    assert total == pytest.approx(report.length_m)
    kinds = ["longitudinal_m", "transverse_m", "diagonal_m", "unknown_m"]
    assert segments[kinds].sum(axis=1).to_numpy() == pytest.approx(segments.crack_length_m)
    classes = ["low_m", "medium_m", "high_m", "not_measurable_m"]
    line = cracks[classes].sum(axis=1).to_numpy()
    assert line == pytest.approx((cracks.length_m - cracks.gap_m).to_numpy())
    assert (segments[classes].sum() <= cracks[classes].sum() + 1e-9).all()
    assert segments.network_area_m2.sum() <= networks.area_m2.sum() + 1e-9
    blocks = geopandas.read_file(report.path, layer="inspected")
    ground = GRID.pixel_area_m2 * ROWS * 169
    assert blocks.geometry.area.sum() == pytest.approx(ground, rel=0.02)


def test_every_pixel_of_the_mask_belongs_to_a_crack_or_a_network(packages):
    report, mask = packages[4], drawn() | alligator()
    assert report.area_m2 == pytest.approx(mask.sum() * GRID.pixel_area_m2)
