"""From a mask to the layers of the GeoPackage, whatever the cut into blocks."""

from __future__ import annotations

import itertools
import os
import sqlite3
import tempfile
from contextlib import closing, nullcontext

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from factories import grid_of, join, pieces_of, windows_of, write_parts
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.crs import CRS
from rasterio.features import rasterize

from geo import files
from geo.cracks import single_rings
from geo.cracks.branches import BranchSet
from geo.cracks.parts import DamagedPart, InspectedRow, read_part
from geo.cracks.piece_table import to_pieces
from geo.cracks.pieces import pieces
from geo.cracks.pixel_set import pixels_of
from geo.cracks.single_rings import SingleRings
from geo.errors import InputError, OutputError
from geo.grid import Window
from geo.imagery.headers import TileProblem
from geo.imagery.mosaic import Block
from geo.layers import crack_rows, geopackage, partitions, schema
from geo.layers.assemble import assemble
from geo.layers.crack_rows import pixel_centers, place_ids, simplify, world_outlines
from geo.options import AssembleOptions
from geo.outputs import require_replaceable

UTM = CRS.from_epsg(25832)
masks = arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 20)))
cuts = st.integers(1, 13)


def probability_of(mask):
    """Probabilities that differ from pixel to pixel."""
    return np.where(mask, 128 + np.arange(mask.size).reshape(mask.shape) % 128, 0).astype(np.uint8)


def cut_up(mask, height, width):
    """All pieces of a mask that is cut into blocks of height x width."""
    blocks = pieces_of(grid_of(mask.shape), mask, probability_of(mask), (height, width))
    return [piece for _, found in blocks for piece in found]


def as_rows(found):
    return [
        (p.geometry.wkb_hex, p.n_pixels, p.probability_sum, p.top, p.left, len(p.seam_pixels))
        for p in found
    ]


@settings(deadline=None)
@given(masks)
def test_polygonize_then_rasterize_is_the_identity(mask):
    grid = grid_of(mask.shape)
    found = pieces(mask, probability_of(mask), grid.window, grid)
    shapes = [(piece.geometry, number) for number, piece in enumerate(found, start=1)]
    burned = rasterize(shapes, out_shape=mask.shape) if shapes else np.zeros(mask.shape)
    assert np.array_equal(burned > 0, mask)
    for number, piece in enumerate(found, start=1):
        assert piece.geometry.is_valid
        assert piece.geometry.area == piece.n_pixels == (burned == number).sum()
        assert piece.probability_sum == probability_of(mask)[burned == number].sum()
        rows, cols = np.nonzero(burned == number)
        assert (piece.top, piece.left) == (rows[0], cols[0])
        assert not len(piece.seam_pixels)


def canonical(geometry):
    """The one form of a pixel-shaped area: no needless vertex, the order of GEOS."""
    lean = shapely.simplify(shapely.normalize(geometry), 0, preserve_topology=True)
    return shapely.MultiPolygon(list(shapely.get_parts(shapely.normalize(lean))))


@settings(deadline=None)
@given(masks)
def test_outlines_are_the_union_of_their_pixels_in_the_order_of_geos(mask):
    grid = grid_of(mask.shape)
    for piece in pieces(mask, probability_of(mask), grid.window, grid):
        pixels = pixels_of(piece.geometry)
        squares = shapely.box(pixels[:, 1], pixels[:, 0], pixels[:, 1] + 1, pixels[:, 0] + 1)
        assert canonical(shapely.union_all(squares)).wkb == piece.geometry.wkb


@settings(deadline=None, max_examples=50)
@given(arrays(bool, st.tuples(*[st.integers(1, 12)] * 2)), cuts, cuts)
def test_joined_pieces_do_not_depend_on_the_cut(mask, height, width):
    whole = as_rows(join(cut_up(mask, *mask.shape), grid_of(mask.shape)))
    assert as_rows(join(cut_up(mask, height, width), grid_of(mask.shape))) == whole


def test_pieces_that_touch_only_at_a_corner_of_four_blocks_are_one_crack():
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:4] = mask[4:6, 4:6] = True
    (crack,) = join(cut_up(mask, 4, 4), grid_of(mask.shape))
    assert crack.n_pixels == 8
    assert len(crack.geometry.geoms) == 2
    assert crack.geometry.is_valid


def test_cracks_one_pixel_apart_across_a_seam_stay_apart():
    mask = np.zeros((8, 8), bool)
    mask[3, :4] = True
    mask[4, 5:] = True
    assert len(join(cut_up(mask, 4, 8), grid_of(mask.shape))) == 2
    assert len(join(cut_up(mask, 4, 4), grid_of(mask.shape))) == 2


def test_holes_survive_a_seam_through_them():
    mask = np.zeros((9, 9), bool)
    mask[1:8, 1:8] = True
    mask[3:6, 3:6] = False
    (crack,) = join(cut_up(mask, 5, 4), grid_of(mask.shape))
    assert len(crack.geometry.geoms[0].interiors) == 1
    assert crack.geometry.area == mask.sum()


def test_a_border_of_the_mosaic_is_no_seam():
    mask = np.ones((4, 4), bool)
    grid = grid_of((4, 8))
    left, right = Window(0, 0, 4, 4), Window(0, 4, 4, 4)
    (piece,) = pieces(mask, probability_of(mask), left, grid)
    assert piece.seam_pixels.tolist() == [[row, 3] for row in range(4)]
    (piece,) = pieces(mask, probability_of(mask), right, grid)
    assert piece.seam_pixels.tolist() == [[row, 4] for row in range(4)]


@pytest.mark.parametrize("cut", [12, 5, 4])
def test_a_crack_beside_nodata_says_so_whatever_the_cut(cut):
    mask, valid = np.zeros((12, 12), bool), np.ones((12, 12), bool)
    mask[2, 1:7] = mask[8, 2:9] = mask[11, 4] = True
    valid[3, 7] = False  # diagonally beside the first crack; the third lies at the mosaic's border
    grid, around = grid_of(mask.shape), np.pad(valid, 1)
    found = []
    for window in windows_of(grid, cut):
        here, halo = window.slices_in(grid.window), window.pad(1).slices_in(grid.window.pad(1))
        part = mask[here]
        found += pieces(part, probability_of(part), window, grid, around[halo])
    assert [crack.touches_nodata for crack in join(found, grid)] == [True, False, True]


def test_arrays_that_do_not_fit_the_window_are_refused():
    mask = np.ones((4, 4), bool)
    with pytest.raises(ValueError, match="do not fit"):
        pieces(mask, probability_of(mask), Window(0, 0, 4, 5), grid_of(mask.shape))


def deliver(folder, mask, height, width, **row):
    """Write the parts of a mask, cut into blocks; returns (paths, grid)."""
    grid = grid_of(mask.shape)
    cut = (height, width)
    return write_parts(folder, grid, mask, probability_of(mask), cut, **row), grid


def speckled():
    drawn = np.random.default_rng(3).random((60, 60)) < 0.05
    drawn[5:50, 20:23] = drawn[30:33, 3:58] = True
    drawn[40:52, 40:52] = True
    drawn[44:48, 44:48] = False
    return drawn


@pytest.fixture
def mask():
    return speckled()


def test_a_part_is_read_back_as_it_was_written(tmp_path, mask):
    paths, grid = deliver(tmp_path, mask, 25, 60)
    window = Window(25, 0, 25, 60)
    written = pieces(mask[25:50], probability_of(mask)[25:50], window, grid)
    part = read_part(paths[1])
    read = to_pieces(part.pieces)
    assert as_rows(read) == as_rows(written)
    for one, other in zip(read, written, strict=True):
        assert np.array_equal(one.seam_pixels, other.seam_pixels)
    assert part.inspected.window == window
    assert len(geopandas.read_parquet(paths[1])) == len(written)
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_a_damaged_part_is_named(tmp_path, mask):
    (path,), grid = deliver(tmp_path, mask, 60, 60)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"r00000_c00000\.parquet"):
        assemble([path], tmp_path / "out.gpkg", grid)


def cut_into(folder, height, width):
    """A map whose parts are blocks of some size, and its report."""
    paths, grid = deliver(folder, speckled(), height, width)
    options = AssembleOptions(min_area_m2=3 * grid.pixel_area_m2, model="m", run_id="r")
    return folder / "out.gpkg", assemble(paths, folder / "out.gpkg", grid, options)


@pytest.fixture(scope="module")
def in_one_block(tmp_path_factory):
    """A map of one part; tests only read it."""
    return cut_into(tmp_path_factory.mktemp("whole"), 60, 60)[0]


@pytest.mark.parametrize(("height", "width"), [(60, 60), (15, 15), (7, 31), (1, 60)])
def test_the_tables_do_not_depend_on_the_blocks(tmp_path, in_one_block, height, width):
    path, report = cut_into(tmp_path, height, width)
    for layer in ("crack", "outline"):
        whole, cut = (
            geopandas.read_file(package, layer=layer).sort_values(f"{layer}_id", ignore_index=True)
            for package in (in_one_block, path)
        )
        assert cut.equals(whole)
        assert cut.geometry.to_wkb().equals(whole.geometry.to_wkb())
        assert len(cut) > 3
        assert layer != "crack" or report.n_cracks == len(cut)
        exact = 1e-9 if layer == "crack" else 0.1
        assert report.area_m2 == pytest.approx(cut.area_m2.sum(), rel=exact)
        assert cut.crs == UTM


def test_area_is_measured_before_simplification_and_small_cracks_are_dropped(tmp_path, mask):
    paths, grid = deliver(tmp_path, mask, 60, 60)
    everything = assemble(paths, tmp_path / "all.gpkg", grid)
    assert everything.area_m2 == pytest.approx(mask.sum() * grid.pixel_area_m2)
    least = 4 * grid.pixel_area_m2
    report = assemble(paths, tmp_path / "large.gpkg", grid, AssembleOptions(min_area_m2=least))
    cracks = geopandas.read_file(tmp_path / "large.gpkg", layer="crack")
    assert cracks.area_m2.min() >= least
    assert report.n_cracks + report.n_dropped == everything.n_cracks
    assert cracks.is_valid.all()
    assert (cracks.confidence.between(128 / 255, 1)).all()
    assert cracks.gsd_mm.to_numpy() == pytest.approx(np.full(len(cracks), 5.0))


def test_oblong_pixels_have_their_own_area(tmp_path):
    mask = np.zeros((10, 10), bool)
    mask[2:5, 3:9] = True
    grid = grid_of(mask.shape, 0.02, 0.005)
    assemble(write_parts(tmp_path, grid, mask), tmp_path / "out.gpkg", grid)
    (crack,) = geopandas.read_file(tmp_path / "out.gpkg", layer="outline").itertuples()
    assert crack.area_m2 == pytest.approx(18 * 1e-4) == crack.geometry.area
    assert crack.geometry.bounds == pytest.approx((500000.06, 5699999.975, 500000.18, 5699999.99))


def test_inspected_names_blocks_and_tiles_left_out(tmp_path, mask):
    lost = TileProblem("/tiles/bad.tif", "failed on reading (torn); replace it")
    paths, grid = deliver(tmp_path, mask, 30, 30, failures=[lost])
    degrees = shapely.transform(shapely.box(9, 52, 9.001, 52.001), lambda xy: xy)
    left_out = [
        TileProblem("/tiles/degrees.tif", "is in degrees", degrees, CRS.from_epsg(4326)),
        TileProblem("/tiles/text.tif", "is not a GeoTIFF"),
    ]
    report = assemble(paths, tmp_path / "out.gpkg", grid, problems=left_out)
    rows = geopandas.read_file(tmp_path / "out.gpkg", layer="inspected")
    blocks = rows[rows.block_id.notna()]
    assert report.n_inspected == len(blocks) == 4
    assert blocks.geometry.area.sum() == pytest.approx(mask.size * grid.pixel_area_m2)
    assert set(blocks.status) == {"partial"}
    assert set(blocks.tiles_failed) == {"/tiles/bad.tif"}
    tiles = rows[rows.block_id.isna()].set_index("tiles_failed")
    assert tiles.geometry["/tiles/text.tif"] is None
    center = tiles.geometry["/tiles/degrees.tif"].centroid
    assert (center.x, center.y) == pytest.approx((500034.3, 5761094.2), abs=1)
    assert set(tiles.status) == {"failed"}


@pytest.mark.parametrize(
    ("valid", "failed", "status"),
    [(1, 0, "inspected"), (0, 0, "nodata"), (1, 1, "partial"), (0, 1, "failed")],
)
def test_status_of_a_block(valid, failed, status):
    grid = grid_of((4, 4))
    failures = [TileProblem("a.tif", "failed on reading")] * failed
    seen = np.full((4, 4), bool(valid))
    row = InspectedRow.of(Block("b", grid.window), seen, failures, grid, seconds=1)
    assert row.status == status
    assert row.valid_pct == 100 * valid
    assert (row.reason == "") == (status == "inspected")


def test_each_tile_of_a_block_that_failed_keeps_its_own_reason():
    grid, seen = grid_of((4, 4)), np.zeros((4, 4), bool)
    failures = [TileProblem(f"{k}/a.tif", f"is cut ({k}); replace it") for k in range(3)]
    row = InspectedRow.of(Block("b", grid.window), seen, failures, grid, seconds=1)
    assert row.failures() == {p.path: f"a.tif {p.reason}" for p in failures}
    assert InspectedRow.of(Block("b", grid.window), ~seen, [], grid, seconds=1).failures() == {}


def test_no_crack_at_all_gives_an_empty_layer(tmp_path):
    paths, grid = deliver(tmp_path, np.zeros((10, 10), bool), 5, 5)
    assert assemble(paths, tmp_path / "out.gpkg", grid).n_cracks == 0
    cracks = geopandas.read_file(tmp_path / "out.gpkg", layer="crack")
    assert len(cracks) == 0
    assert cracks.crs == UTM


def test_the_package_is_sound_and_nothing_else_is_left(tmp_path, mask):
    (tmp_path / "parts").mkdir()
    paths, grid = deliver(tmp_path / "parts", mask, 20, 20)
    out = tmp_path / "new" / "out.gpkg"
    report = assemble(paths, out, grid, AssembleOptions(model="lite", run_id="abc"))
    assert [path.name for path in out.parent.iterdir()] == ["out.gpkg"]
    with closing(sqlite3.connect(out)) as base:
        assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert base.execute("PRAGMA journal_mode").fetchall() == [("delete",)]
        counts = dict(base.execute("SELECT table_name, feature_count FROM gpkg_ogr_contents"))
        assert counts["crack"] == report.n_cracks
        assert (
            base.execute("SELECT count(*) FROM rtree_crack_geom").fetchone()[0] == counts["crack"]
        )
        assert "lite" in base.execute("SELECT metadata FROM gpkg_metadata").fetchone()[0]
    for layer in (schema.CRACK, schema.NETWORK, schema.OUTLINE, schema.INSPECTED, schema.RUN):
        info = pyogrio.read_info(out, layer=layer.name)
        assert info["fields"].tolist() == [column.name for column in layer.columns]
        assert (info["geometry_type"] or "none") == layer.geometry


@pytest.mark.parametrize("fails", [False, True])
def test_on_a_network_the_package_is_built_on_a_local_disk_and_copied(
    tmp_path, mask, monkeypatch, fails
):
    paths, grid = deliver(tmp_path, mask, 60, 60)
    assemble(paths, tmp_path / "out.gpkg", grid)
    far, local = tmp_path / "far", tmp_path / "local"
    local.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(local))
    monkeypatch.setattr(files, "is_on_network", lambda folder: folder == far)
    checked = []

    def check(built):
        checked.append(built)
        assert [path for path in far.iterdir() if path.suffix == ".gpkg"] == []
        if fails:
            raise OutputError("damaged")

    monkeypatch.setattr(geopackage, "_check_whole", check)
    with pytest.raises(OutputError) if fails else nullcontext():
        assemble(paths, far / "out.gpkg", grid)
    assert [path.is_relative_to(local) for path in checked] == [True]
    assert [path.name for path in far.iterdir()] == ([] if fails else ["out.gpkg"])
    assert list(local.iterdir()) == []
    for name in () if fails else ("crack", "outline", "inspected"):
        one, other = (
            geopandas.read_file(folder / "out.gpkg", layer=name) for folder in (far, tmp_path)
        )
        assert one.to_wkb().equals(other.to_wkb())


@pytest.mark.parametrize("far", [False, True])
def test_without_a_folder_for_temporary_files_the_package_is_built_in_its_place(
    tmp_path, monkeypatch, far
):
    def missing():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", missing)
    monkeypatch.setattr(files, "is_on_network", lambda folder: far)
    with files.built_locally(tmp_path / "out.gpkg") as built:
        assert built == tmp_path / "out.gpkg"


@pytest.mark.parametrize(("kind", "far"), [("nfs4", True), ("fuse.sshfs", True), ("ext4", False)])
def test_a_folder_is_on_a_network_by_the_file_system_of_its_mount(tmp_path, monkeypatch, kind, far):
    number = tmp_path.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    mounts = tmp_path / "mountinfo"
    lines = (f"9 1 {device} / /mnt rw shared:2 - {kind} server:/a rw", "8 1 99:9 / / rw - nfs x rw")
    mounts.write_text("\n".join(lines))
    monkeypatch.setattr(files, "MOUNTS", mounts)
    assert files.is_on_network(tmp_path) == far
    monkeypatch.setattr(files, "MOUNTS", tmp_path / "none")
    assert not files.is_on_network(tmp_path)


def test_the_old_package_stays_if_the_new_one_fails(tmp_path, mask):
    paths, grid = deliver(tmp_path, mask, 60, 60)
    out = tmp_path / "out.gpkg"
    assemble(paths, out, grid)
    before = out.read_bytes()
    paths[0].write_bytes(b"torn")
    with pytest.raises(InputError):
        assemble(paths, out, grid)
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "tmp" in path.name] == []


def test_geoparquet_files_hold_the_same_rows_as_the_geopackage(tmp_path, mask):
    paths, grid = deliver(tmp_path, mask, 20, 20)
    unplaced = [TileProblem("/tiles/text.tif", "is not a GeoTIFF")]
    options = AssembleOptions(formats=("gpkg", "parquet"), survey_date="2025-05-01")
    assemble(paths, tmp_path / "out.gpkg", grid, options, problems=unplaced)
    for layer in ("crack", "network", "outline", "inspected"):
        copy = geopandas.read_parquet(tmp_path / f"out_{layer}.parquet")
        original = geopandas.read_file(tmp_path / "out.gpkg", layer=layer)
        assert copy.crs == UTM
        assert copy.columns.drop("geom").tolist() == original.columns.drop("geometry").tolist()
        assert copy.geometry.to_wkb().equals(original.geometry.to_wkb().rename("geom"))
        for name in copy.columns.drop("geom"):
            assert copy[name].isna().tolist() == original[name].isna().tolist()
            assert copy[name].dropna().astype(str).tolist() == [
                str(value)[:10] if name == "survey_date" else str(value)
                for value in original[name].dropna()
            ]
    x, y = grid.to_world(np.array([[0.0, 0], [30, 30]])).T
    corner = geopandas.read_parquet(
        tmp_path / "out_crack.parquet", bbox=(x.min(), y.min(), x.max(), y.max())
    )
    assert 0 < len(corner) < len(geopandas.read_file(tmp_path / "out.gpkg", layer="crack"))
    assert not (tmp_path / "out_run.parquet").exists()


def test_large_layers_are_folders_of_geoparquet_by_place(tmp_path, mask, monkeypatch):
    monkeypatch.setattr(partitions, "LEVELS", 28)  # squares of 10 cm: the map is a small one
    paths, grid = deliver(tmp_path, mask, 20, 20)
    unplaced = [TileProblem("/tiles/text.tif", "is not a GeoTIFF")]
    out = tmp_path / "out.gpkg"

    def make(most_rows):
        options = AssembleOptions(formats=("gpkg", "parquet"), parquet_rows=most_rows)
        assemble(paths, out, grid, options, problems=unplaced)

    for most_rows in (2, 1000, 3):  # a folder, a file and folders take each other's place
        make(most_rows)
        for layer in ("crack", "outline", "inspected"):
            name = tmp_path / f"out_{layer}.parquet"
            original = geopandas.read_file(out, layer=layer)
            key = original.columns[0]
            copy = geopandas.read_parquet(name).sort_values(key, ignore_index=True)
            original = original.sort_values(key, ignore_index=True)
            assert name.is_dir() == (len(original) > most_rows)
            assert copy.crs == UTM
            assert copy[key].tolist() == original[key].tolist()
            assert copy.geometry.to_wkb().tolist() == original.geometry.to_wkb().tolist()
    assert len(list((tmp_path / "out_inspected.parquet").iterdir())) > 3
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    (tmp_path / "out_crack.parquet" / "notes.txt").touch()
    with pytest.raises(OutputError, match="is a folder"):
        require_replaceable([tmp_path / "out_crack.parquet"])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=60), st.integers(1, 9))
def test_a_square_holds_at_most_so_many_rows_and_the_places_of_its_quadkey(cells, most_rows):
    side = 360 / 2**partitions.LEVELS
    east = np.array([8.6 + side * col for col, _ in cells])
    north = np.array([50.1 + side * row for _, row in cells])
    keys = np.sort(partitions.quadkeys(east, north))
    squares = dict(partitions._squares(keys, most_rows))
    starts = np.array([*squares, 4**partitions.LEVELS])
    counts = [np.sum((keys >= a) & (keys < b)) for a, b in itertools.pairwise(starts)]
    assert sum(counts) == len(keys)
    for name, count in zip(squares.values(), counts, strict=True):
        assert count > 0
        assert count <= most_rows or len(name) == partitions.LEVELS + 1


def test_quadkeys_are_those_of_web_tiles():
    # https://learn.microsoft.com/bingmaps/articles/bing-maps-tile-system: tile 3, 5 of level 3
    col, row = 3.5 / 8, 5.5 / 8
    north = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * row))))
    (key,) = partitions.quadkeys(np.array([360 * col - 180]), np.array([north]))
    assert np.base_repr(key >> 2 * (partitions.LEVELS - 3), 4).zfill(3) == "213"


def test_empty_layers_are_geoparquet_files_too(tmp_path):
    paths, grid = deliver(tmp_path, np.zeros((10, 10), bool), 5, 5)
    assemble(paths, tmp_path / "out.gpkg", grid, AssembleOptions(formats=("gpkg", "parquet")))
    empty = geopandas.read_parquet(tmp_path / "out_crack.parquet")
    assert len(empty) == 0
    assert empty.crs == UTM


def tear(part):
    part.write_bytes(b"torn")


def spoil_outlines(part):
    table = pq.read_table(part)
    spoilt = pa.array([wkb[:-7] for wkb in table["geometry"].to_pylist()], pa.binary())
    changed = table.set_column(table.schema.get_field_index("geometry"), "geometry", spoilt)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), part)


@pytest.mark.parametrize("damage", [tear, spoil_outlines])
def test_old_files_stay_if_the_new_ones_fail(tmp_path, mask, damage):
    (tmp_path / "parts").mkdir()
    paths, grid = deliver(tmp_path / "parts", mask, 30, 30)
    options = AssembleOptions(formats=("gpkg", "parquet"))
    assemble(paths, tmp_path / "out.gpkg", grid, options)
    before = {path: path.read_bytes() for path in tmp_path.glob("out*")}
    assert len(before) == 5
    damage(paths[-1])
    with pytest.raises(DamagedPart, match=paths[-1].name):
        assemble(paths, tmp_path / "out.gpkg", grid, options)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("formats", [(), ("parquet",), ("gpkg", "shapefile")])
def test_formats_that_cannot_be_written_are_refused(formats):
    with pytest.raises(InputError, match=r"give \[gpkg\], or more as in"):
        AssembleOptions(formats=formats)


def test_an_output_that_cannot_be_written_is_said(tmp_path, mask):
    paths, grid = deliver(tmp_path, mask, 60, 60)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="file"):
        assemble(paths, tmp_path / "file" / "out.gpkg", grid)


@given(*[st.integers(0, 1000)] * 2, *[st.integers(0, 50)] * 2, st.sampled_from((0.005, 0.003125)))
def test_a_place_keeps_its_id_when_the_mosaic_grows(top, left, more_rows, more_cols, gsd):
    def center(grid, row, col):
        return pixel_centers(grid, np.array([row]), np.array([col]))

    small = grid_of((4, 4), gsd)
    large = small.subgrid(Window(-more_rows, -more_cols, 100, 100))
    here, there = center(small, top, left), center(large, top + more_rows, left + more_cols)
    assert place_ids(large, there) == place_ids(small, here)
    assert place_ids(small, center(small, top, left + 1)) != place_ids(small, here)
    lines = [BranchSet.of_lines([place], np.zeros((1, 2))).vertices for place in (here, there)]
    assert np.array_equal(*lines)


def test_the_readme_table_names_every_column_once():
    table = schema.readme_table()
    for layer in schema.LAYERS:
        assert f"**{layer.name}**" in table
        assert len({column.name for column in layer.columns}) == len(layer.columns)
        for column in layer.columns:
            assert f"| {column.name} | {column.type} | {column.unit} | {column.meaning} |" in table


def stored(found):
    return pa.array([piece.geometry.wkb for piece in found], pa.binary())


def test_the_meaning_of_a_class_names_all_its_values():
    for layer in (*schema.LAYERS, *schema.CHANGE_LAYERS):
        for column in layer.columns:
            if column.meaning.startswith("as for cracks"):
                continue
            for value in schema.CLASS_WORDS.get(column.name, ()):
                assert value in column.meaning, (layer.name, column.name)


@settings(deadline=None, max_examples=40)
@given(arrays(bool, (40, 40), elements=st.booleans()), st.floats(0.001, 3))
def test_simplified_outlines_are_valid_in_the_world(mask, tolerance):
    grid = grid_of(mask.shape)
    found = pieces(mask, probability_of(mask), grid.window, grid)
    outlines = shapely.from_wkb(world_outlines(stored(found), grid, tolerance))
    assert all(outline.is_valid for outline in outlines)
    assert {outline.geom_type for outline in outlines} <= {"MultiPolygon"}


@settings(deadline=None, max_examples=40)
@given(arrays(bool, (24, 24)), st.sampled_from((0.6, 1.0, 2.3)))
def test_single_rings_are_simplified_as_any_outline_is(mask, tolerance):
    grid = grid_of(mask.shape)
    found = pieces(mask, probability_of(mask), grid.window, grid)
    exact = np.array([piece.geometry for piece in found], object)
    if found:
        lean = crack_rows._simplified_any(exact, tolerance, grid.to_world)
        own = simplify(stored(found), tolerance, grid.to_world)
        assert own.tolist() == shapely.to_wkb(lean).tolist()


@pytest.mark.parametrize("at_once", [1, 4, 10**6])
def test_outlines_do_not_depend_on_how_many_are_held(mask, at_once, monkeypatch):
    grid = grid_of(mask.shape)
    outlines = stored(pieces(mask, probability_of(mask), grid.window, grid))
    assert len(outlines) > 20
    monkeypatch.setattr(single_rings, "AT_ONCE", at_once)
    whole = simplify(outlines, 1.0, grid.to_world).tolist()
    assert world_outlines(outlines, grid, 1.0).tolist() == whole
    assert not len(world_outlines(outlines[:0], grid, 1.0))


@settings(deadline=None, max_examples=40)
@given(arrays(bool, (12, 12)), st.integers(0, 3))
def test_points_of_single_rings_are_read_from_their_wkb(mask, before):
    found = pieces(mask, probability_of(mask), grid_of(mask.shape).window, grid_of(mask.shape))
    shapes = [piece.geometry for piece in found][before:]
    rings = SingleRings.of(stored(found)[before:])
    single = [len(x.geoms) == 1 and not x.geoms[0].interiors for x in shapes]
    points = [shapely.get_coordinates(x) for x, one in zip(shapes, single, strict=True) if one]
    assert rings.chosen.tolist() == single
    assert np.array_equal(rings.points, np.concatenate([np.empty((0, 2)), *points]))
    assert rings.counts.tolist() == list(map(len, points))


@pytest.mark.parametrize(("place", "value"), [(0, 0), (1, 3), (5, 2), (10, 9), (14, 2), (18, 4)])
def test_damaged_wkb_and_open_rings_are_no_single_rings(place, value):
    whole = shapely.MultiPolygon([shapely.box(0, 0, 2, 1)]).wkb
    damaged = whole[:place] + bytes([value]) + whole[place + 1 :]
    opened = whole[:-16] + shapely.Point(7, 7).wkb[-16:]
    wkb = [whole, damaged, whole[:-7], whole[:-16], opened, b"", whole]
    assert SingleRings.of(pa.array(wkb, pa.binary())).chosen.tolist() == [True, *[False] * 5, True]


def test_a_slanting_crack_of_one_piece_is_simplified(tmp_path):
    mask = np.zeros((60, 60), bool)
    for row in range(50):
        mask[row, row // 5 : row // 5 + 3] = True
    paths, grid = deliver(tmp_path, mask, 60, 60)
    assemble(paths, tmp_path / "out.gpkg", grid)
    (outline,) = geopandas.read_file(tmp_path / "out.gpkg", layer="outline").geometry
    assert shapely.get_num_coordinates(outline) < 20
    assert outline.area / 0.005**2 == pytest.approx(150, rel=0.02)


@settings(deadline=None, max_examples=40)
@given(arrays(bool, (24, 24)), st.floats(0.1, 3))
def test_simplified_outlines_keep_polygons_holes_and_area_and_stay_near(mask, tolerance):
    found = pieces(mask, probability_of(mask), grid_of(mask.shape).window, grid_of(mask.shape))
    exact = [piece.geometry for piece in found]
    simplified = shapely.from_wkb(simplify(stored(found), tolerance))
    for outline, lean in zip(exact, simplified, strict=True):
        assert lean.is_valid
        assert lean.geom_type == "MultiPolygon"
        assert len(lean.geoms) == len(outline.geoms)
        holes = [[len(part.interiors) for part in each.geoms] for each in (outline, lean)]
        assert sorted(holes[0]) == sorted(holes[1])
        assert lean.area == pytest.approx(outline.area, rel=0.02)
        assert lean.hausdorff_distance(outline) <= 2 * tolerance + 1e-9
