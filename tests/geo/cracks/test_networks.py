"""What is a network and what is none, on drawn lines; and that only what is near decides it."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geo.cracks import line_density
from geo.cracks.branches import UM, BranchSet
from geo.cracks.cell_runs import CellRuns, runs_of_mask
from geo.cracks.networks import find_networks
from geo.cracks.outlines import outlines
from geo.cracks.pixel_set import PixelSet
from geo.options import NetworkOptions

OPTIONS = NetworkOptions()


def free(lines):
    return BranchSet.of_lines(
        [np.array(one, float) for one in lines], np.arange(2 * len(lines)).reshape(-1, 2)
    )


def mesh(x, y, width, height, cell, turn=0.0, rng=None):
    """Sides of square blocks, each a branch; some are missing if there is a generator."""
    lines = []
    for col in np.arange(0, width + cell / 2, cell):
        lines += [[(col, row), (col, row + cell)] for row in np.arange(0, height - cell / 2, cell)]
    for row in np.arange(0, height + cell / 2, cell):
        lines += [[(col, row), (col + cell, row)] for col in np.arange(0, width - cell / 2, cell)]
    if rng is not None:
        lines = [one for one in lines if rng.random() < 0.85]
    c, s = np.cos(turn), np.sin(turn)
    return [(np.array(one) @ np.array([[c, s], [-s, c]]) + (x, y)).tolist() for one in lines]


@pytest.mark.parametrize("cell", [0.08, 0.12, 0.18])
@pytest.mark.parametrize("turn", [0.0, 0.5])
def test_an_alligator_is_one_area_with_all_of_its_line(cell, turn):
    width, height = 10 * cell, 8 * cell
    lines = mesh(5e5, 5.8e6, width, height, cell, turn)
    found = find_networks(free(lines), OPTIONS)
    assert len(found) == 1
    assert (found.of_branch == 0).all()
    length = sum(shapely.LineString(one).length for one in lines)
    assert found.crack_length_m[0] == pytest.approx(length, rel=1e-4)
    truth = shapely.buffer(shapely.union_all([shapely.LineString(one) for one in lines]), 0.12)
    truth = shapely.buffer(truth, -0.10)
    shape = found.outlines[0]
    assert shapely.intersection(shape, truth).area / shapely.union(shape, truth).area > 0.85
    assert found.area_m2[0] == pytest.approx(shape.area)
    assert found.kinds(OPTIONS) == ["alligator"]
    assert found.cell_m[0] == pytest.approx(cell, rel=0.25)


@pytest.mark.parametrize("cell", [0.13, 0.15])
def test_an_alligator_of_which_a_sixth_is_missing_is_the_area_that_it_takes(cell):
    place = (5e5, 5.8e6, 8 * cell, 7 * cell, cell, 0.5)
    whole = shapely.MultiLineString(mesh(*place)).convex_hull
    truth = whole.buffer(OPTIONS.margin_m, join_style="mitre")
    (shape,) = find_networks(free(mesh(*place, np.random.default_rng(0))), OPTIONS).outlines
    assert shapely.intersection(shape, truth).area / shapely.union(shape, truth).area > 0.955


@pytest.mark.parametrize(("cell", "cols", "rows"), [(0.45, 4, 3), (1.0, 3, 2), (2.5, 2, 2)])
@pytest.mark.parametrize("turn", [0.0, 0.5])
def test_coarse_blocks_are_one_area_with_all_of_their_line(cell, cols, rows, turn):
    """The lines that end in the open are none of it."""
    inner = mesh(5e5, 5.8e6, cols * cell, rows * cell, cell, turn)
    gaps = [shapely.LineString(one).interpolate(0.3 * cell).buffer(0.06) for one in inner[::3]]
    lines = []
    for one in inner:
        left = shapely.difference(shapely.LineString(one), shapely.union_all(gaps))
        lines += [shapely.get_coordinates(part).tolist() for part in shapely.get_parts(left)]
    away = [[(5e5 - 9, 5.8e6 - 0.7), (5e5 - 0.2, 5.8e6 - 0.7)]]
    found = find_networks(free(lines + away), OPTIONS)
    assert len(found) == 1
    assert found.of_branch.tolist() == [0] * len(lines) + [-1]
    assert found.area_m2[0] == pytest.approx(cols * rows * cell**2, rel=0.25 if cell < 1 else 0.1)
    assert found.kinds(OPTIONS) == ["block"]


def test_an_alligator_among_blocks_is_a_network_of_its_own():
    lines = mesh(0, 0, 6, 4, 1.0) + mesh(2.0, 1.0, 1.0, 1.0, 0.125)
    found = find_networks(free(lines), OPTIONS)
    assert sorted(found.kinds(OPTIONS)) == ["alligator", "block"]
    assert shapely.intersection(*found.outlines).area == pytest.approx(0, abs=1e-9)
    assert found.area_m2.sum() == pytest.approx(24, rel=0.05)


@pytest.mark.parametrize(
    "lines",
    [
        [[(0, 0), (4, 0)], [(0, 0.05), (4, 0.05)]],
        [[(0, 0), (4, 0)], [(0, 0.15), (4, 0.15)], [(0, 0.3), (4, 0.3)], [(0, 0.45), (4, 0.45)]],
        [[(-2, 0), (2, 0.3)], [(0.2, -2), (-0.1, 2)]],
        [[(0, 0), (3, 0)], [(1.5, 0), (1.9, 1)], [(1.5, 0), (1.2, 1)]],
        mesh(0, 0, 0.3, 0.3, 0.1),
        [[(0, 0), (9, 0)], [(0, 2), (9, 2)], *([(x, -1), (x, 1.7)] for x in (1, 2.5, 4, 5.5, 7))],
        [[(0, 0), (9, 0)], [(0, 2), (9, 2)], *([(x, -1), (x, 3)] for x in (1, 2.5, 4, 5.5))],
        mesh(0, 0, 10, 8, 4.0),
    ],
    ids=[
        "two parallel ones",
        "four parallel ones",
        "a crossing",
        "a fork",
        "a small mesh",
        "open cells",
        "three closed cells",
        "slabs",
    ],
)
def test_what_is_no_network(lines):
    found = find_networks(free(lines), OPTIONS)
    assert len(found) == 0
    assert (found.of_branch == -1).all()


def test_a_long_crack_through_an_alligator_stays_a_crack_outside_of_it():
    """Inside, its line is cut by the mesh into branches that belong to the network."""
    inside = [[(x, 0.45), (x + 0.1, 0.45)] for x in np.arange(0, 0.95, 0.1)]
    outside = [[(-2, 0.45), (-0.1, 0.45)], [(1.1, 0.45), (3, 0.45)]]
    lines = mesh(0, 0, 1.0, 1.0, 0.1) + inside + outside
    found = find_networks(free(lines), OPTIONS)
    assert len(found) == 1
    assert (found.of_branch[:-2] == 0).all()
    assert (found.of_branch[-2:] == -1).all()


def test_all_line_is_in_a_network_or_in_a_crack():
    rng = np.random.default_rng(1)
    branches = free(scene(rng))
    found = find_networks(branches, OPTIONS)
    outside = branches.lengths[found.of_branch < 0].sum() / UM
    assert len(found) > 2
    assert outside + found.crack_length_m.sum() == pytest.approx(branches.lengths.sum() / UM)


def scene(rng, size=14.0):
    """Alligators and blocks of all sizes, and cracks all over."""
    lines = []
    for _ in range(2):
        x, y = rng.uniform(0, size, 2)
        width, height, cell = rng.uniform(2, 5), rng.uniform(1, 3), rng.uniform(0.4, 1.2)
        lines += mesh(x, y, width, height, cell, rng.uniform(0, 3), rng)
    for _ in range(7):
        x, y = rng.uniform(0, size, 2)
        width, height = rng.uniform(0.3, 2.5, 2)
        lines += mesh(x, y, width, height, rng.uniform(0.08, 0.2), rng.uniform(0, 3), rng)
    for _ in range(60):
        start, heading = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
        along = np.array([np.cos(heading), np.sin(heading)])
        lines.append([start, start + rng.uniform(0.1, 3) * along])
    return lines


def rows(found, branches):
    """Networks with their branches, by names in which there is no order."""
    places = branches.end_places.reshape(-1, 4)
    return {
        (shapely.normalize(shape).wkb, frozenset(map(tuple, np.sort(places[found.of_branch == n]))))
        for n, shape in enumerate(found.outlines)
    }


@settings(deadline=None, max_examples=4)
@given(st.integers(0, 10_000))
def test_networks_do_not_depend_on_order_direction_or_regions(seed):
    rng = np.random.default_rng(seed)
    branches = free(scene(rng))
    whole = rows(find_networks(branches, OPTIONS), branches)
    shuffled = branches.take(rng.permutation(len(branches)), rng.random(len(branches)) < 0.5)
    before = line_density.REGION_SQUARES, line_density.SAMPLES_AT_ONCE
    try:
        line_density.REGION_SQUARES, line_density.SAMPLES_AT_ONCE = 2, 500
        assert rows(find_networks(shuffled, OPTIONS), shuffled) == whole
    finally:
        line_density.REGION_SQUARES, line_density.SAMPLES_AT_ONCE = before


@settings(deadline=None, max_examples=4)
@given(st.integers(0, 10_000), st.floats(4.5, 7.0))
def test_a_block_with_the_halo_knows_which_of_its_branches_are_in_networks(seed, block_m):
    options = NetworkOptions(max_block_m2=1.0, min_blocks=2)  # which look less far
    branches = free(scene(np.random.default_rng(seed)))
    whole = find_networks(branches, options).of_branch >= 0
    side, halo = round(block_m * UM), round(options.halo_m * UM)
    for corner in np.unique(branches.vertices // side, axis=0) * side:
        near = (branches.vertices >= corner - halo) & (branches.vertices < corner + side + halo)
        chosen = np.unique(branches.owner[_passing(branches, corner - halo, corner + side + halo)])
        assert set(np.unique(branches.owner[near.all(axis=1)])) <= set(chosen)
        inside = (branches.end_places >= corner) & (branches.end_places < corner + side)
        own = inside.all(axis=1).reshape(-1, 2).all(axis=1)[chosen]
        part = find_networks(branches.take(chosen), options).of_branch >= 0
        assert (part[own] == whole[chosen][own]).all()


def _passing(branches, low, high):
    """Vertices of lines that pass a rectangle."""
    first = np.minimum.reduceat(branches.vertices, branches.starts[:-1])
    last = np.maximum.reduceat(branches.vertices, branches.starts[:-1])
    return ((last >= low) & (first < high)).all(axis=1)[branches.owner]


def test_nothing_gives_nothing():
    assert len(find_networks(free([]), OPTIONS)) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 14), st.integers(1, 14), st.floats(0.1, 0.95))
def test_runs_of_cells_say_what_the_cells_say(seed, height, width, share):
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < share
    mask[rng.integers(height), rng.integers(width)] = True
    rows, cols = np.nonzero(mask)
    cells = PixelSet.of_places(rows + 7, cols - 5)
    halves = [runs_of_mask(mask[:, : width // 2]), runs_of_mask(mask[:, width // 2 :])]
    halves[1] += np.array([0, width // 2, width // 2])
    runs = CellRuns.of_runs(rng.permutation(np.vstack(halves)) + np.array([7, -5, -5]))

    at_border = cells.codes < 255
    assert np.array_equal(runs.border.keys, cells.keys[at_border])
    assert np.array_equal(runs.border.codes, cells.codes[at_border])
    assert np.array_equal(runs.sizes, np.bincount(cells.components))
    y, x = (values.ravel() for values in np.mgrid[-1 : height + 1, -1 : width + 1])
    names = np.full((height + 2, width + 2), -1)
    names[rows + 1, cols + 1] = cells.components
    assert np.array_equal(runs.component_at(x - 5, y + 7), names.ravel())
    drawn, traced = (shapely.to_wkb(outlines(one).polygons()) for one in (runs.border, cells))
    assert np.array_equal(drawn, traced)
    chosen = rng.random(len(runs.sizes)) < 0.5
    kept = runs.take(chosen)
    assert np.array_equal(kept.spans.keys, cells.keys[chosen[cells.components]])
