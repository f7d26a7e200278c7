"""A map made of regions has the rows of one made at once, and goes on where it was killed."""

from __future__ import annotations

import os
import pickle
import resource
from contextlib import contextmanager
from itertools import product

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from factories import write_parts, write_roads
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from geo.cracks.parts import read_part
from geo.cracks.regions import cut_into_regions
from geo.grid import Grid
from geo.layers import region_map, region_rest
from geo.layers.assemble import assemble, assemble_regions
from geo.options import AssembleOptions, LinkOptions, NetworkOptions, RoadOptions

SIDE, BLOCK = 640, 80
GRID = Grid(Affine(0.005, 0, 5e5, 0, -0.005, 5.8e6), CRS.from_epsg(25832), (SIDE, SIDE))
OPTIONS = AssembleOptions(
    link=LinkOptions(gaps_m=(0.02, 0.04), base_m=0.05, tries=1, crossing_m=0.02, free_gap_m=0.03),
    network=NetworkOptions(
        closing_m=0.04,
        opening_m=0.03,
        window_m=0.12,
        reach_m=0.04,
        min_density_m_per_m2=20,
        min_area_m2=0.012,
        block_cell_m=0.1,
        max_block_m2=0.01,
        min_blocks=1,
    ),
    min_area_m2=0.0005,
)
"""Small gaps and networks, so that the halo is smaller than a region."""

NARROW = OPTIONS.model_copy(
    update={
        "link": LinkOptions(
            gaps_m=(0.005,), base_m=0.01, tries=1, crossing_m=0.005, free_gap_m=0.005
        ),
        "network": NetworkOptions(
            cell_m=0.003,
            closing_m=0.005,
            opening_m=0.01,
            margin_m=0.01,
            border_m=0.01,
            window_m=0.02,
            reach_m=0.01,
            min_density_m_per_m2=500,
            min_area_m2=0.0002,
            block_cell_m=0.02,
            max_block_m2=0.0001,
            min_blocks=1,
        ),
    }
)
"""The same with a halo of a quarter of a meter."""

LAYERS = ("crack", "network", "outline", "inspected", "road_segment")


def drawn(seed):
    """Broken lines, crumbs, and places where lines run densely in several directions."""
    rng = np.random.default_rng(seed)
    mask = rng.random(GRID.shape) < 0.001
    for _ in range(40):
        row, col = rng.integers(0, SIDE - 12, 2)
        length, gap = rng.integers(10, 120), rng.integers(3, 9)
        along = np.arange(length)
        kept = along[(along // 15 % 2 == 0) | (rng.random() < 0.5) | (along % 15 >= gap)]
        down = rng.normal(0, 1, 2)
        rows = np.clip(row + kept * down[0], 0, SIDE - 3).astype(int)
        cols = np.clip(col + kept * down[1], 0, SIDE - 3).astype(int)
        mask[rows, cols] = mask[rows + 1, cols] = mask[rows, cols + 1] = True
    for _ in range(4):
        row, col = rng.integers(0, SIDE - 90, 2)
        mask[row : row + 80 : 14, col : col + 80] = mask[row : row + 80, col : col + 80 : 14] = True
    return mask


def crossing(side_px):
    """A short slanting line wherever a side of a region meets one of a shifted window, and a few
    others."""
    mask = np.zeros(GRID.shape, bool)
    half, along = side_px // 2, np.arange(-15, 15)
    meetings = [(half, side_px), (side_px, half), (side_px, 3 * half), (3 * half, side_px)]
    for row, col in (*meetings, (half, half), (side_px, side_px)):
        for thick in range(3):
            mask[row + along, col + along + thick] = True
    return mask


def both(folder, seed, side_px, mask=None, options=OPTIONS):
    """The map at once, and a function that makes that of regions; folders give it anew."""
    folder.mkdir(parents=True, exist_ok=True)
    mask = drawn(seed) if mask is None else mask
    shade = (128 + np.arange(mask.size).reshape(mask.shape) % 100).astype(np.uint8)
    noise = np.random.default_rng(seed).integers(140, 160, mask.shape, np.uint8)
    image, valid = np.where(mask, np.uint8(70), noise), np.ones(GRID.shape, bool)
    parts = write_parts(folder / "parts", GRID, mask, mask * shade, (BLOCK, BLOCK), valid, image)
    lines = [GRID.to_world(np.array([[0, v], [SIDE, v]])) for v in (100.0, 330.0)]
    roads = write_roads(folder / "roads.gpkg", lines, ref=["a", "b"])
    options = options.model_copy(
        update={"roads": RoadOptions(path=roads, id="ref", lane_m=0.3, section_m=1.0)}
    )
    once = assemble(parts, folder / "once.gpkg", GRID, options, segments_csv=folder / "once.csv")
    blocks = [(read_part(part).inspected.window, part) for part in parts]
    regions = cut_into_regions(blocks, GRID, side_px)
    steps = []

    def run_all(work, chosen, result):
        steps.append(len(chosen))
        assert b".parquet" not in pickle.dumps(work), "each task would carry the names of all parts"
        for region in reversed(chosen):
            work(region)
            assert result(region).exists()

    def again(results=folder):
        return assemble_regions(
            regions,
            results / "regions.gpkg",
            GRID,
            options,
            folder=results / "results",
            run_all=run_all,
        )

    return once, again, steps


@contextmanager
def files_at_most(count):
    """Let no more files be open at once than those of now and so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = set(map(int, os.listdir("/proc/self/fd")))
    free = [number for number in range(soft) if number not in taken]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[count], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def table(path, layer):
    frame = geopandas.read_file(path, layer=layer)
    frame = frame.sort_values(frame.columns[0], ignore_index=True)
    return pd.DataFrame(frame).assign(geometry=frame.geometry.to_wkb())


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return tmp_path_factory.mktemp("regions")


@pytest.mark.parametrize(("seed", "blocks"), [(0, 2), (1, 4)])
def test_rows_are_those_of_a_map_made_at_once(scenes, seed, blocks):
    once, again, _ = both(scenes / f"{seed}-{blocks}", seed, blocks * BLOCK)
    with files_at_most(12):  # fewer than regions
        report = again()
    for layer in LAYERS:
        whole = table(once.path, layer)
        pd.testing.assert_frame_equal(table(report.path, layer), whole, check_exact=True)
    assert report.n_cracks == once.n_cracks > 20
    assert report.n_networks == once.n_networks
    assert report.off_road_m == once.off_road_m
    assert report.not_measurable_m == pytest.approx(once.not_measurable_m)


@pytest.fixture(scope="module")
def crossed(scenes):
    side = 4 * BLOCK
    return both(scenes / "crossed", 0, side, crossing(side), NARROW)


@pytest.mark.parametrize(("at_once", "batches"), [(1, 4), (3, 2), (10**9, 1)])
def test_what_is_left_is_decided_in_batches_with_the_same_rows(
    crossed, tmp_path, at_once, batches, monkeypatch
):
    monkeypatch.setattr(region_rest, "PIECES_AT_ONCE", at_once)
    once, again, _ = crossed
    report = again(tmp_path)
    for layer in LAYERS:
        pd.testing.assert_frame_equal(table(report.path, layer), table(once.path, layer))
    assert report.n_cracks == once.n_cracks == 6
    done = sorted((report.path.parent / "results").glob("rest*.totals.json"))
    assert len(done) == batches
    stamps = [path.stat().st_mtime_ns for path in done]
    done[-1].unlink()  # as if it had been killed then
    assert again(tmp_path).n_cracks == 6
    assert [path.stat().st_mtime_ns for path in done][:-1] == stamps[:-1]
    assert done[-1].exists()


def test_what_is_finished_is_not_done_again_and_most_is_decided_in_regions(scenes, monkeypatch):
    once, again, steps = both(scenes / "again", 3, 4 * BLOCK)
    decided = []
    real = region_map.part_of_map
    for steps_of in (region_map, region_rest):
        monkeypatch.setattr(
            steps_of, "part_of_map", lambda *a: decided.append(real(*a)) or decided[-1]
        )
    before = table(again().path, "crack")
    counts = [int(found.kept.sum()) for found in decided]
    assert sum(counts) == once.n_cracks
    assert 0 < counts[-1] < 0.6 * once.n_cracks  # the last ones cross the sides of regions
    for leftover in (scenes / "again" / "results").glob("r00001_c00000.*.totals.json"):
        leftover.unlink()  # as if it had been killed then
    pd.testing.assert_frame_equal(table(again().path, "crack"), before)
    assert steps == [4, 4, 9, 0, 1, 0]


@given(
    st.lists(st.tuples(*[st.integers(0, 400)] * 2, *[st.integers(1, 90)] * 2), min_size=1),
    st.integers(1, 40),
)
def test_boxes_of_two_groups_lie_farther_apart_than_twice_the_halo(drawn_boxes, halo_px):
    west, north, width, height = np.array(drawn_boxes).T
    sides = np.column_stack((west, north, west + width, north + height))
    group = region_rest._groups(sides, halo_px)
    shapes = shapely.box(*sides.T)
    for one, other in product(range(len(sides)), repeat=2):
        if group[one] != group[other]:
            assert shapely.distance(shapes[one], shapes[other]) > 2 * halo_px


def test_boxes_far_from_each_other_are_groups_of_their_own_in_the_order_of_their_first():
    corners = np.array([[0, 0], [900, 0], [5, 5], [0, 900], [905, 3]])
    group = region_rest._groups(np.column_stack((corners, corners + 10)), 20)
    assert group.tolist() == [0, 1, 0, 2, 1]
