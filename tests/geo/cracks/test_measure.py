"""Centerlines and measures of drawn cracks against what was drawn."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from factories import GSD_M as GSD
from factories import grid_of, join, pieces_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.crs import CRS
from rasterio.features import rasterize
from scipy import ndimage

from geo.cracks import components
from geo.cracks.measure import orientations
from geo.grid import Grid

ANGLES = 50


def measured(mask, grid=None, cut=None):
    """The cracks of a mask, delivered in blocks of ``cut`` pixels and joined."""
    grid = grid or grid_of(mask.shape)
    found = [piece for _, some in pieces_of(grid, mask, cut=cut) for piece in some]
    return join(found, grid)


def length_m(piece):
    return sum(branch.length_m for branch in piece.branches)


def loops(piece):
    nodes = {n for b in piece.branches for n in (b.from_node, b.to_node)}
    return len(piece.branches) - len(nodes) + 1


def drawn(shapes, size):
    return rasterize(shapes, out_shape=(size, size)).astype(bool)


def bar(rng, width, length):
    """A straight crack of any angle and phase, in pixels, drawn by pixel centers."""
    size = int(length + width) + 20
    angle, center = rng.random() * np.pi, size / 2 + rng.random(2)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    corners = [(1, 1), (1, -1), (-1, -1), (-1, 1)]
    ring = [center + along * length / 2 * a + across * width / 2 * b for a, b in corners]
    return drawn([shapely.Polygon(ring)], size)


@pytest.mark.parametrize("width", [1.5, 2.5, 4.0, 6.0, 9.0, 12.0])
def test_length_width_and_area_of_straight_cracks_are_unbiased(width):
    rng, length = np.random.default_rng(7), 40 * width
    lengths, widths, areas = [], [], []
    for _ in range(ANGLES):
        mask = bar(rng, width, length)
        (crack,) = measured(mask)
        lengths.append(length_m(crack) / GSD)
        widths.append(crack.branches[0].mask_width_m / GSD)
        areas.append(crack.geometry.area / mask.sum())
        assert len(crack.branches) == 1
    assert abs(np.mean(lengths) / length - 1) <= 0.02
    assert abs(np.mean(widths) - width) <= (0.1 if width <= 8 else 0.25)
    assert np.abs(np.array(areas) - 1).max() <= 0.01


def test_a_direction_is_below_180_degrees():
    steps = np.array([[-1e-17, 1.0], [-1e-9, 1.0], [0.0, 1.0]])
    assert orientations(steps, np.arange(3), 3).tolist() == pytest.approx([0, 180 - 5.73e-8, 0])


def test_a_sine_shaped_crack_is_not_cut_short():
    x = np.arange(30, 470, 0.5)
    path = shapely.LineString(np.column_stack((x, 250 + 40 * np.sin(x / 30))))
    for width in (2, 5, 8):
        mask = drawn([path.buffer(width / 2, cap_style="flat")], 500)
        (crack,) = measured(mask)
        assert length_m(crack) / GSD == pytest.approx(path.length, rel=0.02)


def test_a_ring_is_one_loop_of_its_circumference():
    ring = shapely.Point(100.3, 100.1).buffer(60).boundary.buffer(2.5)
    (crack,) = measured(drawn([ring], 200))
    assert loops(crack) == 1
    assert length_m(crack) / GSD == pytest.approx(2 * np.pi * 60, rel=0.02)
    (branch,) = crack.branches
    assert branch.from_node == branch.to_node


def test_a_crossing_is_one_crack_with_four_arms():
    lines = shapely.MultiLineString([[(20, 100), (180, 110)], [(90, 20), (104, 180)]])
    (crack,) = measured(drawn([lines.buffer(2)], 200))
    assert loops(crack) == 0
    long = [branch for branch in crack.branches if branch.length_m > 10 * GSD]
    assert len(long) == 4
    assert length_m(crack) / GSD == pytest.approx(lines.length + 4 * 2, rel=0.02)


def test_an_alligator_keeps_its_loops():
    size, step = 240, 40
    lines = [shapely.LineString([(20, y), (220, y)]) for y in range(20, 221, step)]
    lines += [shapely.LineString([(x, 20), (x, 220)]) for x in range(20, 221, step)]
    (crack,) = measured(drawn([line.buffer(1.6) for line in lines], size))
    assert loops(crack) == 25
    assert length_m(crack) / GSD == pytest.approx(12 * 200, rel=0.02)


def test_ragged_borders_and_pinholes_make_no_branches():
    rng = np.random.default_rng(5)
    mask = drawn([shapely.box(30, 95.5, 370, 104.5)], 400)
    mask[95, 30:370] &= rng.random(340) < 0.5
    mask[104, 30:370] |= rng.random(340) < 0.5
    mask[100, 50:350:60] = False
    (crack,) = measured(mask)
    assert loops(crack) == 0
    assert len(crack.branches) == 1
    assert length_m(crack) / GSD == pytest.approx(340, rel=0.02)


def test_measures_are_meters_on_oblong_pixels():
    """Pixels of 10 x 5 mm: a crack of 2 m by 30 mm at several angles."""
    for angle in np.radians([0, 25, 50, 75, 90]):
        ring = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)]) * [1.0, 0.015]
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        meters = ring @ turn + 1.25
        mask = drawn([shapely.Polygon(meters / [0.01, 0.005])], 520)
        (crack,) = measured(mask, grid_of(mask.shape, 0.01, 0.005))
        assert length_m(crack) == pytest.approx(2.0, rel=0.02)
        assert 5e-5 * crack.n_pixels / length_m(crack) == pytest.approx(0.03, rel=0.04)


blobs = arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24)))


@settings(deadline=None, max_examples=40)
@given(blobs)
@example(np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], bool))  # a loop of four pixels
def test_every_crack_can_be_measured(mask):
    for crack in measured(mask):
        assert length_m(crack) >= 0.99 * GSD
        assert all(branch.mask_width_m > 0 for branch in crack.branches)
        assert crack.sums[:, 0].sum() == crack.n_pixels
        nodes = {n for b in crack.branches for n in (b.from_node, b.to_node)}
        assert nodes == set(range(len(nodes)))


@settings(deadline=None, max_examples=40)
@given(blobs, st.integers(2, 24))
def test_measures_do_not_depend_on_the_cut(mask, cut):
    def rows(cracks):
        return [
            [repr(c.branches).encode(), *(b.line.tobytes() for b in c.branches)] for c in cracks
        ]

    assert rows(measured(mask, cut=cut)) == rows(measured(mask))


def test_thinning_keeps_wide_and_diagonal_cracks():
    for width in (2.0, 3.0, 4.0):
        for angle in np.radians(np.linspace(40, 50, 5)):
            along = np.array([np.cos(angle), np.sin(angle)])
            path = shapely.LineString([100 - 60 * along, 100 + 60 * along])
            mask = drawn([path.buffer(width / 2, cap_style="flat")], 200)
            total = sum(length_m(crack) for crack in measured(mask))
            assert total / GSD == pytest.approx(120, abs=8)


def test_a_crack_too_large_for_one_piece_is_measured_in_cells(monkeypatch):
    rng = np.random.default_rng(3)
    mask = bar(rng, 5, 600)
    (crack,) = measured(mask)
    monkeypatch.setattr(components, "CELL_PX", 128)
    monkeypatch.setattr(components, "WHOLE_PX", 1000)
    (cells,) = measured(mask, cut=200)
    # each of the five cuts leaves an end that is lengthened: 7 % at cells of 128, 0.2 % at 4096
    assert length_m(cells) == pytest.approx(length_m(crack), rel=0.1)
    assert len(cells.branches) >= 4
    inside = crack.geometry.buffer(1)
    for branch in cells.branches:
        assert inside.covers(shapely.LineString(branch.line))


def crumbs(seed, size=160):
    """Components of every small shape: paths, dots, forks, loops."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((size, size)), 1.3)
    return noise > np.quantile(noise, 0.9)


GRIDS = [
    grid_of((160, 160)),
    grid_of((160, 160), 0.01, 0.005),
    Grid(
        Affine.translation(5e5, 5.8e6) @ Affine.rotation(23) @ Affine.scale(0.005, -0.005),
        CRS.from_epsg(25832),
        (160, 160),
    ),
]


@pytest.mark.parametrize(
    ("seed", "grid"), list(enumerate(GRIDS)), ids=["square", "oblong", "rotated"]
)
def test_paths_measured_in_bulk_are_what_they_are_one_by_one(seed, grid, monkeypatch):
    mask = crumbs(seed)
    bulk = measured(mask, grid)
    monkeypatch.setattr(components, "is_path", lambda thin: np.zeros(len(thin.names), bool))
    single = measured(mask, grid)
    assert len(bulk) > 50
    for one, other in zip(bulk, single, strict=True):
        assert repr(one.branches) == repr(other.branches)
        for line, same in zip(one.branches, other.branches, strict=True):
            assert line.line.tobytes() == same.line.tobytes()


def test_paths_are_measured_alike_in_any_company(monkeypatch):
    mask = crumbs(7)
    together = measured(mask)
    monkeypatch.setattr(components, "PAIRS_AT_ONCE", 1)
    for one, other in zip(together, measured(mask), strict=True):
        assert repr(one.branches) == repr(other.branches)
