"""Road segments of an edited map: figures follow from what lies there, and from nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely.affinity
from factories import EAST, NORTH, grid_of, layer, write_parts, write_roads

from geo import packages
from geo.compare.maps import read_map
from geo.layers.assemble import assemble
from geo.options import AssembleOptions, RoadOptions
from geo.page.map_page import map_data
from geo.page.report import summarize
from geo.review.edits import apply_edits
from geo.review.places import read_places

GSD = 0.01
GRID = grid_of((400, 1200), GSD)
SHORT = np.s_[80:83, 500:550]
"""A crack of 0.5 m in the second of three segments."""


def pavement(short):
    """Draw a crack along three segments, the short one, and a network in the second."""
    mask = np.zeros(GRID.shape, bool)
    mask[300:303, 50:1150] = True
    mask[SHORT] = short
    mask[120:222:20, 600:702] = mask[120:222, 600:702:20] = True
    return mask


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Two maps of a street whose last meter was not seen, without and with the short crack."""
    folder = tmp_path_factory.mktemp("maps")
    ends = [(EAST, NORTH - 2), (EAST + 12, NORTH - 2)]
    path = write_roads(folder / "roads.gpkg", [ends], ref=["A"], wide=[3.6], lanes=[2])
    roads = RoadOptions(path=path, id="ref", width="wide", lanes="lanes", section_m=4)
    seen = np.ones(GRID.shape, bool)
    seen[:, 1100:] = False
    for name in ("bare", "whole"):
        parts = write_parts(folder / name, GRID, pavement(name == "whole") & seen, valid=seen)
        assemble(parts, folder / f"{name}.gpkg", GRID, AssembleOptions(roads=roads))
    return folder


@pytest.fixture
def package(maps, tmp_path):
    """A copy of the map with all cracks."""
    return Path(shutil.copy(maps / "whole.gpkg", tmp_path))


def write(package, change, name="crack"):
    """Write a layer as a desktop does."""
    rows = pyogrio.read_dataframe(package, layer=name)
    pyogrio.write_dataframe(change(rows), package, layer=name)


def edit(package, change):
    write(package, change)
    apply_edits(package, package.with_suffix(".csv"))
    return segments(package)


def segments(package):
    return layer(package, "road_segment").set_index("segment_id")


def without(rows, number):
    return rows[rows["crack_id"] != rows.sort_values("length_m")["crack_id"].iloc[number]]


def require_same(one, other):
    """Compare rows of segments, but for their order."""
    others = ["rank", "priority", "wkb"]
    pd.testing.assert_frame_equal(one.drop(columns=others), other.drop(columns=others), rtol=1e-6)


def test_a_map_without_a_crack_is_one_that_never_had_it(package, maps):
    before = segments(package)
    assert before["network_area_m2"].tolist()[1] > 0
    assert before["coverage_pct"].tolist()[2] < 80
    after = edit(package, lambda rows: without(rows, 0))
    require_same(after, segments(maps / "bare.gpkg"))
    assert (before["zeb_cell_pct"] > after["zeb_cell_pct"]).tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["crack", "network", "inspected"])
def test_a_row_whose_shape_was_emptied_counts_as_one_without(package, name):
    """A desktop leaves such a row where all parts of a shape were deleted."""
    read, before = read_places(package, 0.5), segments(package)
    empty = shapely.MultiLineString() if name == "crack" else shapely.MultiPolygon()

    def emptied(rows):
        return pd.concat([rows, rows.iloc[:1].assign(geometry=empty)], ignore_index=True)

    write(package, emptied, name)
    assert np.array_equal(read_places(package, 0.5).cell, read.cell)
    assert len(read_map(package).survey.crack_ids) == 2
    assert map_data(package, 10)["bounds"]
    if name != "inspected":
        require_same(edit(package, lambda rows: rows), before)


def test_cells_of_a_network_count_without_any_crack(package):
    after = edit(package, lambda rows: rows.iloc[:0])
    assert after["crack_count"].sum() == 0
    assert after["zeb_cell_pct"].tolist() == pytest.approx([0, 100 * 6 / 24, 0])


def half_wide(rows, where):
    """Say of half a meter that it was wide enough for a width."""
    meters = 0.5 * where
    wide = rows["not_measurable_m"] - meters
    return rows.assign(medium_m=meters, not_measurable_m=wide, width_p95_mm=12.0)


def test_segments_that_nobody_edited_keep_classes_that_lie_on_a_part_of_a_crack(package):
    write(package, lambda rows: half_wide(rows, rows["length_m"] > 5))
    write(package, lambda rows: half_wide(rows, rows["segment_id"] == "A-000"), "road_segment")
    packages.seal(package)
    before = segments(package)
    after = edit(package, lambda rows: without(rows, 0))
    require_same(before.drop("A-001"), after.drop("A-001"))
    assert after.loc["A-001", "crack_count"] == before.loc["A-001", "crack_count"] - 1


@pytest.mark.parametrize(
    ("change", "edited"),
    [
        (lambda rows: rows.assign(type="diagonal"), ["A-000", "A-001", "A-002"]),
        (lambda rows: without(rows, 1), ["A-000", "A-001", "A-002"]),
        (lambda rows: moved(rows, -4), ["A-000", "A-001"]),
        (lambda rows: cut(rows), ["A-000"]),
        (lambda rows: classed(rows), ["A-001"]),
    ],
)
def test_every_change_of_a_crack_shows_in_the_segments_where_it_lies(package, change, edited):
    before = segments(package)
    after = edit(package, change)
    figures = ["crack_length_m", "crack_count", "medium_m", "diagonal_m", "longitudinal_m"]
    rows = (before[figures] - after[figures]).abs().max(axis=1) > 0.01
    assert rows.index[rows].tolist() == edited
    require_same(before.drop(edited), after.drop(edited))
    cracks = layer(package, "crack")
    assert cracks["segment_id"].value_counts().to_dict() == {
        name: count for name, count in after["crack_count"].items() if count
    }


def moved(rows, meters):
    """Move the short crack along the road."""
    own = rows["length_m"] < 1
    shapes = rows.geometry.where(~own, rows.geometry.translate(meters, 0))
    return rows.set_geometry(shapes)


def cut(rows):
    """Cut the first two meters off the long crack."""
    box = shapely.box(EAST + 2, NORTH - 4, EAST + 12, NORTH)
    return rows.set_geometry(rows.geometry.intersection(box))


def classed(rows):
    """Say by hand that the short crack is of medium severity."""
    own = rows["length_m"] < 1
    medium = rows["not_measurable_m"].where(own, 0.0)
    return rows.assign(medium_m=medium, not_measurable_m=rows["not_measurable_m"] - medium)


def test_cells_are_empty_where_an_older_map_does_not_say_the_lanes(package):
    write(package, lambda rows: rows.drop(columns="lanes"), "road_segment")
    packages.seal(package)
    before = segments(package)
    after = edit(package, lambda rows: without(rows, 0))
    assert after["zeb_cell_pct"].isna().tolist() == [False, True, False]
    require_same(before.drop("A-001"), after.drop("A-001").drop(columns="lanes"))


def test_networks_that_people_cut_or_drew_have_the_area_of_their_shape(package):
    """What layer, segments and report say of them is one figure."""
    (before,) = layer(package, "network").itertuples()

    def cut(rows):
        whole = rows.geometry[0]
        left, low, _, top = whole.bounds
        half = shapely.intersection(whole, shapely.box(left, low, left + 0.4, top))
        drawn = shapely.affinity.translate(half, -4, 0)
        more = geopandas.GeoDataFrame(geometry=[drawn], crs=rows.crs)
        rows = rows.set_geometry([half], crs=rows.crs)
        both = geopandas.GeoDataFrame(pd.concat([rows, more], ignore_index=True), crs=rows.crs)
        shapes = [shapely.MultiPolygon(shapely.get_parts(shape)) for shape in both.geometry]
        return both.set_geometry(shapes, crs=rows.crs)

    write(package, cut, "network")
    applied = apply_edits(package, package.with_suffix(".csv"))
    assert (applied.drawn, applied.moved) == (1, 1)
    after = pyogrio.read_dataframe(package, layer="network").sort_values("network_id")
    whole, drawn = after.itertuples()
    assert whole.network_id == before.network_id
    assert drawn.network_id.startswith("drawn-")
    assert (whole.segment_id, drawn.segment_id) == ("A-001", "A-000")
    assert after["area_m2"].tolist() == pytest.approx(after.area.tolist())
    assert whole.area_m2 < before.area_m2 / 2
    assert whole.crack_length_m / whole.area_m2 == pytest.approx(before.density_m_per_m2)
    assert drawn.severity_d6433 == "not_measurable"
    on_road = segments(package)["network_area_m2"]
    assert on_road.sum() == pytest.approx(after["area_m2"].sum(), rel=1e-6)
    assert summarize(package).network_m2 == pytest.approx(after["area_m2"].sum())


def test_a_crack_moved_sideways_in_its_segment_hits_other_cells(package, maps):
    """Length, direction and street stay; only that it left its pieces tells of the move."""

    def aside(rows):
        short = rows["length_m"].idxmin()
        rows.loc[short, "geometry"] = shapely.affinity.translate(rows.geometry[short], 0, -2.335)
        return rows

    before = segments(package)
    after = edit(package, aside)
    assert after["crack_length_m"].tolist() == pytest.approx(before["crack_length_m"].tolist())
    bare = segments(maps / "bare.gpkg")["zeb_cell_pct"]  # now it lies in a cell that was hit
    assert after["zeb_cell_pct"].tolist() == pytest.approx(bare.tolist())
    assert before["zeb_cell_pct"]["A-001"] > bare["A-001"]
    short = layer(package, "crack").sort_values("length_m")["crack_id"].iloc[0]
    assert short not in set(layer(package, "outline")["crack_id"])
    write(package, lambda rows: rows.assign(severity_d6433=None))
    assert apply_edits(package, package.with_suffix(".csv")).moved == 0
    assert set(layer(package, "crack")["severity_d6433"]) == {"not_measurable"}
