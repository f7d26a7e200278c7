"""Road segments: cutting, sharing out, coverage, cells, ranks."""

from __future__ import annotations

import csv
import itertools
import tracemalloc
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from factories import EAST, NORTH, grid_of, windows_of, write_parts, write_roads
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.features import rasterize

import geo.layers.segments as road_segments
from geo.errors import InputError
from geo.imagery.coverage import CoverageMap, cell_px, encode
from geo.layers.assemble import assemble
from geo.layers.roads import RoadNetwork, Ruler, Segment, read_roads, sections
from geo.layers.segment_rows import priority_of
from geo.layers.segments import STEP_M, RoadSurvey, SurveyCells, places_in
from geo.options import AssembleOptions, RoadOptions, SegmentOptions, TypeOptions

GSD = 0.02
GRID = grid_of((500, 1500), GSD)
"""30 m x 10 m; the street runs along y = 5 m."""


def at(x, y):
    """World coordinates of a point in meters from the top-left corner."""
    return EAST + x, NORTH - y


def street(tmp_path):
    main = [at(0, 5), at(30, 5)]
    columns = {"ref": ["A1"], "street": ["Hauptstraße, Ost"], "wide": [6.0], "lanes": [2]}
    return RoadOptions(
        path=write_roads(tmp_path / "roads.gpkg", [main], **columns),
        id="ref",
        name="street",
        width="wide",
        lanes="lanes",
        section_m=10.0,
    )


def drawn_cracks():
    """Longitudinal 8 m in the first section, transverse 3 m and diagonal 2 m in the second."""
    lines = [
        [(1, 4), (9, 4)],
        [(12, 3), (12, 6)],
        [(16, 5.5), (17.414, 6.914)],
        [(25, 9), (28, 9.5)],  # beyond the road's edge
    ]
    shapes = [
        shapely.LineString(np.array(line) / GSD).buffer(2.5, cap_style="flat") for line in lines
    ]
    return rasterize(shapes, out_shape=GRID.shape).astype(bool)


def package(tmp_path, mask, roads, cut=500, valid=None, name="out.gpkg"):
    parts = write_parts(tmp_path / f"parts_{cut}", GRID, mask, None, cut, valid)
    return assemble(parts, tmp_path / name, GRID, AssembleOptions(roads=roads))


def read(path, layer):
    return geopandas.read_file(path, layer=layer)


def test_a_street_gives_the_figures_that_were_drawn(tmp_path):
    report = package(tmp_path, drawn_cracks(), street(tmp_path))
    segments = read(report.path, "road_segment").set_index("segment_id")
    assert segments.index.tolist() == ["A1-000", "A1-001", "A1-002"]
    assert set(segments.name) == {"Hauptstraße, Ost"}
    assert segments.from_m.tolist() == pytest.approx([0, 10, 20])
    assert segments.coverage_pct.to_numpy() == pytest.approx([100, 100, 100], abs=0.1)
    assert segments.surveyed_area_m2.to_numpy() == pytest.approx([60, 60, 60], rel=0.04)
    first, second, third = segments.itertuples()
    assert first.longitudinal_m == pytest.approx(8, rel=0.02)
    assert first.crack_length_m == pytest.approx(first.longitudinal_m)
    assert second.transverse_m == pytest.approx(3, rel=0.02)
    assert second.diagonal_m == pytest.approx(2, rel=0.03)
    assert first.not_measurable_m == pytest.approx(first.crack_length_m)
    assert third.crack_length_m == 0
    assert third.zeb_cell_pct == 0
    assert np.isnan(third.width_p95_mm)
    assert np.isnan(first.width_p95_mm)  # nothing is known of the light
    assert [first.crack_count, second.crack_count, third.crack_count] == [1, 2, 0]
    assert [first.transverse_count, second.transverse_count] == [0, 1]
    assert first.cracking_pct == pytest.approx(100 * 8 * 0.3 / 60, rel=0.05)
    assert first.density_m_per_m2 == pytest.approx(8 / 60, rel=0.05)
    assert first.zeb_cell_pct == pytest.approx(100 * 8 / (10 * 3 * 2))
    assert [first.rank, second.rank, third.rank] == [1, 2, 3]
    assert [first.priority, second.priority, third.priority] == ["low", "low", "low"]
    assert report.off_road_m == pytest.approx(3.04, rel=0.03)
    cracks = read(report.path, "crack")
    assert cracks["type"].value_counts().to_dict() == {
        "longitudinal": 1,
        "transverse": 1,
        "diagonal": 1,
        "unknown": 1,
    }
    on = cracks.segment_id.dropna()
    assert set(on) <= set(segments.index)
    with (tmp_path / "out.segments.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["segment_id"] for row in rows] == ["A1-000", "A1-001", "A1-002"]
    assert rows[1]["name"] == "Hauptstraße, Ost"


@pytest.mark.parametrize("cut", [250, 141])
def test_segments_do_not_depend_on_the_blocks(tmp_path, cut):
    mask = drawn_cracks()
    valid = np.ones(mask.shape, bool)
    valid[:220, 700:1100] = False
    mask &= valid
    roads = street(tmp_path)
    whole = package(tmp_path, mask, roads, 1500, valid, "whole.gpkg")
    parts = package(tmp_path, mask, roads, cut, valid, "cut.gpkg")
    one, other = read(whole.path, "road_segment"), read(parts.path, "road_segment")
    assert one.coverage_pct[1] < 99
    numbers = one.select_dtypes("number").columns
    assert other[numbers].to_numpy() == pytest.approx(
        one[numbers].to_numpy(), rel=1e-9, nan_ok=True
    )
    assert other.drop(columns=numbers).equals(one.drop(columns=numbers))


@settings(deadline=None, max_examples=4)
@given(st.integers(0, 10**6))
def test_segments_and_the_rest_add_up_to_the_total(tmp_path_factory, seed):
    tmp_path = tmp_path_factory.mktemp("sums")
    rng = np.random.default_rng(seed)
    lines = [
        shapely.LineString(rng.random((2, 2)) * [1500, 500]).buffer(rng.uniform(1, 3))
        for _ in range(6)
    ]
    mask = rasterize(lines, out_shape=GRID.shape).astype(bool)
    ends = rng.random((3, 3, 2)) * [30, 10]
    roads = [[at(*point) for point in line] for line in ends]
    path = write_roads(tmp_path / "roads.gpkg", roads, wide=rng.uniform(1, 6, 3))
    report = package(tmp_path, mask, RoadOptions(path=path, width="wide", section_m=7.0))
    segments = read(report.path, "road_segment")
    assert segments.crack_length_m.sum() + report.off_road_m == pytest.approx(report.length_m)
    kinds = ["longitudinal_m", "transverse_m", "diagonal_m", "unknown_m"]
    assert segments[kinds].sum(axis=1).to_numpy() == pytest.approx(
        segments.crack_length_m.to_numpy()
    )


def test_too_little_coverage_is_not_ranked(tmp_path):
    valid = np.zeros(GRID.shape, bool)
    valid[:, :800] = True
    mask = drawn_cracks() & valid
    report = package(tmp_path, mask, street(tmp_path), valid=valid)
    segments = read(report.path, "road_segment")
    assert segments.coverage_pct.to_numpy() == pytest.approx([100, 60, 0], abs=0.5)
    assert sorted(segments["rank"].dropna()) == [1, 2]
    assert np.isnan(segments["rank"].iloc[2])
    assert segments.priority.isna().tolist() == [False, False, True]
    assert np.isnan(segments.zeb_cell_pct.iloc[2])


@given(st.floats(1, 500), st.floats(3, 120))
def test_sections_cover_a_line_once(length, section):
    line = shapely.LineString([(0, 0), (length / 2, 0), (length / 2, length / 2)])
    parts = list(sections(line, section, 1.0))
    assert sum(part.length for part, _, _ in parts) == pytest.approx(line.length)
    assert parts[0][1] == 0
    assert parts[-1][2] == pytest.approx(line.length)
    for (_, _, end), (_, begin, _) in itertools.pairwise(parts):
        assert begin == end
    for number, (part, begin, end) in enumerate(parts):
        assert part.length == pytest.approx(end - begin)
        assert part.length <= section * (1 + 1e-9) or number == len(parts) - 1
    assert parts[-1][0].length < 1.5 * section + 1e-6
    assert len(list(sections(line, None, 1.0))) == 1


def test_a_section_of_a_line_of_many_points_is_cut_without_going_through_all_of_them():
    """Else a road of a million points and 3000 sections takes a minute."""
    turn = np.linspace(0, 100, 100_000)
    ruler = Ruler.of(shapely.LineString(np.column_stack((9 * np.cos(turn), 9 * np.sin(turn)))), 1.0)
    tracemalloc.start()
    try:
        part = ruler.part(400.0, 401.0)
        assert tracemalloc.get_traced_memory()[1] < 50_000  # all their numbers take 1.6 MB
    finally:
        tracemalloc.stop()
    assert part.length == pytest.approx(1)


micrometers = st.floats(-9, 9).map(lambda value: round(value, 6))  # of 1e-230 GEOS makes warnings
coordinates = st.tuples(micrometers, micrometers)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(coordinates, min_size=2, max_size=4), min_size=1, max_size=3),
    st.floats(0.05, 2),
    st.integers(1, 5000),
)
def test_places_in_an_area_are_those_of_its_whole_lattice(lines, radius, at_once):
    buffers = [shapely.LineString(line).buffer(radius) for line in lines]
    area = shapely.union_all([*buffers, shapely.Point(30, 20).buffer(radius)])
    left, bottom, right, top = area.bounds
    x, y = np.arange(left + 0.1, right, 0.2), np.arange(bottom + 0.1, top, 0.2)
    lattice = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(road_segments, "PLACES_AT_ONCE", at_once)
        found = list(places_in(area, 0.2))
    assert max(map(len, found)) <= max(at_once, len(x))
    assert np.array_equal(np.concatenate(found), lattice[shapely.contains_xy(area, *lattice.T)])


def test_a_long_slanting_area_takes_the_memory_of_a_strip():
    line = shapely.LineString([(EAST, NORTH), (EAST + 250, NORTH + 250)])
    tracemalloc.start()
    try:
        count = sum(map(len, places_in(line.buffer(0.5, cap_style="flat"), STEP_M)))
        assert tracemalloc.get_traced_memory()[1] < 100e6  # its bounding box takes a GB
    finally:
        tracemalloc.stop()
    assert count * STEP_M**2 == pytest.approx(line.length, rel=0.05)


def test_points_go_to_the_nearest_road_within_half_its_width():
    lines = [shapely.LineString([(0, 0), (10, 0)]), shapely.LineString([(0, 4), (10, 4)])]
    segments = [Segment(str(k), "", "", line, 0, 10, 4 + 4 * k) for k, line in enumerate(lines)]
    located = RoadNetwork(segments, 1.0).locate(
        np.array([[2.0, 1], [2, 2], [2, 2.5], [3, 7.9], [3, 8.1], [-3, 0]])
    )
    assert located.segment.tolist() == [0, 0, 1, 1, -1, -1]
    assert located.along_m[:4] == pytest.approx([2, 2, 2, 3])
    assert located.across_m[:4] == pytest.approx([1, 2, -1.5, 3.9])
    assert located.direction_deg[0] == pytest.approx(90)


def test_the_ground_of_a_segment_ends_square_however_its_length_is_rounded():
    grid = grid_of((800, 800), 0.1)
    side, rng = cell_px(grid), np.random.default_rng(0)
    seen = np.ones(grid.shape, bool)
    coverage = CoverageMap(grid, [(grid.window, encode(seen, grid.window, side))])
    for _ in range(6):
        steps = rng.uniform(2, 6, (rng.integers(2, 5), 2))
        line = shapely.LineString(np.cumsum(steps, axis=0) + at(20, 60))
        roads = RoadNetwork([Segment("A-000", "A", "", line, 0, line.length, 4.0)], 1.0)
        survey = RoadSurvey(roads, grid, TypeOptions(), 3.5)
        survey.survey(coverage)
        (area,) = survey.total("area_m2")
        assert area == pytest.approx(4 * line.length, abs=2)  # a half circle has 6 m2


@settings(deadline=None, max_examples=40)
@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))), st.integers(2, 41))
def test_coverage_adds_up_whatever_the_cut(valid, cut):
    grid = grid_of(valid.shape, 0.02)
    side = cell_px(grid)
    windows = list(windows_of(grid, cut))
    texts = [encode(valid[window.slices_in(grid.window)], window, side) for window in windows]
    seen = CoverageMap(grid, zip(windows, texts, strict=True))
    rows, cols = np.mgrid[-1:10, -1:10].reshape(2, -1)
    padded = np.zeros((50 * side, 50 * side))
    padded[: valid.shape[0], : valid.shape[1]] = valid
    for row, col, share in zip(rows, cols, seen.share(rows, cols), strict=True):
        cell = padded[max(row, 0) * side : (row + 1) * side, max(col, 0) * side : (col + 1) * side]
        assert share == pytest.approx(cell.sum() / side**2)


def test_a_cell_with_a_crack_counts_and_one_unseen_does_not():
    cells = SurveyCells(length_m=3.0, width_m=3.5, across=3)
    assert cells.hit_pct is None
    cells.see(np.array([0.5, 1.5, 1.6]), np.zeros(3), np.array([1.0, 1.0, 0.4]))
    assert cells.hit_pct == 0
    cells.hit(np.array([0.2, 2.9]), np.array([0.0, 1.7]))
    assert cells.hit_pct == pytest.approx(100 * 2 / 3)


def test_roads_in_degrees_are_brought_into_the_grid(tmp_path):
    line = geopandas.GeoSeries([shapely.LineString([at(0, 5), at(30, 5)])], crs=25832).to_crs(4326)
    path = tmp_path / "roads.geojson"
    geopandas.GeoDataFrame({"lanes": ["2"]}, geometry=line).to_file(path, driver="GeoJSON")
    (segment,) = read_roads(RoadOptions(path=path, lanes="lanes"), GRID)
    assert segment.line.length == pytest.approx(30, abs=1e-3)
    assert segment.width_m == 7.0
    assert segment.road_id == "0"


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {"id": "ref"}, "no column ref"),
        ({"ref": ["a", "a"]}, {"id": "ref"}, "ids twice in ref, like a;"),
        ({"wide": [3.0, -1.0]}, {"width": "wide"}, "wide=-1"),
        ({"wide": [3.0, 700.0]}, {"width": "wide"}, "wide=700.*above 0, up to 500, with"),
        ({"lanes": [99, 2]}, {"lanes": "lanes"}, "lanes=99 .* up to 40,"),
        ({"lanes": ["2", "many"]}, {"lanes": "lanes"}, "lanes=many"),
    ],
)
def test_bad_roads_are_refused_with_the_reason(tmp_path, columns, options, message):
    lines = [[at(0, k), at(9, k)] for k in (1, 2)]
    path = write_roads(tmp_path / "roads.gpkg", lines, **columns)
    with pytest.raises(InputError, match=message):
        read_roads(RoadOptions(path=path, **options), GRID)


def test_roads_without_lines_or_file_are_refused(tmp_path):
    path = tmp_path / "points.gpkg"
    geopandas.GeoSeries([shapely.Point(at(1, 1))], crs=25832).to_file(path)
    with pytest.raises(InputError, match="holds no line"):
        read_roads(RoadOptions(path=path), GRID)
    with pytest.raises(InputError, match="does not exist"):
        read_roads(RoadOptions(path=tmp_path / "absent.gpkg"), GRID)
    with pytest.raises(InputError, match="is an address; download it"):
        read_roads(RoadOptions(path=Path("https://city.org/roads.gpkg")), GRID)


def test_cells_belong_to_lanes_that_are_known_and_not_to_slabs(tmp_path):
    lines = [[at(0, k), at(30, k)] for k in (2, 5, 8)]
    columns = {"lanes": [1.0, None, 1.0], "top": ["Asphalt concrete", "asphalt", "PCC slabs"]}
    path = write_roads(tmp_path / "roads.gpkg", lines, **columns)
    roads = RoadOptions(path=path, lanes="lanes", surface="top", lane_m=2.0, default_lanes=1)
    report = package(tmp_path, drawn_cracks(), roads)
    segments = read(report.path, "road_segment")
    assert segments.zeb_cell_pct.isna().tolist() == [False, True, True]
    assert segments.surface.tolist() == columns["top"]


def test_names_that_a_spreadsheet_would_run_are_made_text_and_blanks_are_none(tmp_path):
    name, lines = '=HYPERLINK("http://x")', [[at(0, y), at(30, y)] for y in (5, 1)]
    path = write_roads(tmp_path / "roads.gpkg", lines, street=[f" {name}", "  "])
    package(tmp_path, drawn_cracks(), RoadOptions(path=path, name="street"))
    with (tmp_path / "out.segments.csv").open(encoding="utf-8-sig", newline="") as stream:
        assert [row["name"] for row in csv.DictReader(stream)] == [f"'{name}", ""]
    named = read(tmp_path / "out.gpkg", "road_segment").name
    assert (named[0], named.isna().tolist()) == (name, [False, True])


def test_a_network_is_shared_out_by_its_area(tmp_path):
    mask = np.zeros(GRID.shape, bool)
    mask[200:300:8, 400:600] = mask[200:300, 400:600:8] = True  # 4 m x 2 m across x = 10 m
    report = package(tmp_path, mask, street(tmp_path))
    segments = read(report.path, "road_segment")
    (network,) = read(report.path, "network").itertuples()
    assert network.area_m2 == pytest.approx(8, rel=0.1)
    assert network.kind == "alligator"
    assert network.cell_m == pytest.approx(0.16, rel=0.1)
    assert segments.network_area_m2.tolist() == pytest.approx([4, 4, 0], rel=0.1)
    assert segments.network_area_m2.sum() == pytest.approx(network.area_m2)
    assert segments.crack_length_m.sum() == 0
    assert segments.cracking_pct.iloc[0] == pytest.approx(100 * 4 / 60, rel=0.1)


@pytest.mark.parametrize(
    ("rank_by", "values"),
    [
        ("cracking_pct", (4.9, 5.0, 20.1)),
        ("zeb_cell_pct", (19.0, 20.0, 61.0)),
        ("density_m_per_m2", (0.1, 0.15, 0.7)),
    ],
)
def test_priorities_have_limits_of_the_column_that_ranks(rank_by, values):
    """With the 5 and 20 of cracked area all cells were of high, all densities of low priority."""
    options = SegmentOptions(rank_by=rank_by)
    assert [priority_of(value, options) for value in values] == ["low", "medium", "high"]
    stored = AssembleOptions(segments=options).rules.segments
    assert (stored.medium_pct, stored.high_pct) == options.limits
