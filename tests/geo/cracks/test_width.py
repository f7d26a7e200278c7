"""Widths from the imagery of drawn slits: wide and thin, faint and dark, in shadow and at seams."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from geo.cracks.branches import BranchSet
from geo.cracks.light import Patchwork, Picture
from geo.cracks.width import WidthOptions, depths, width_sums, widths_mm
from geo.grid import Window
from geo.layers.classes import NOT_MEASURABLE, d6433, is_measurable
from geo.layers.crack_width import CrackWidths, crack_widths, width_p95
from geo.options import SeverityOptions

SIZE, FINE = 240, 8
OPTIONS = WidthOptions()
BLUR_PX = 0.45


def slit(width, angle, depth=0.6, *, light=120.0, noise=0.0, seed=0):
    """A picture of a straight slit through its middle, and its centerline in pixels."""
    rows, cols = np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2

    def away(x, y):
        return np.abs(x * np.sin(angle) - y * np.cos(angle))

    covered = (away(cols, rows) <= width / 2).astype(float)
    edge = np.abs(away(cols, rows) - width / 2) < 1  # where pixels are covered in part
    within = (np.arange(FINE) + 0.5) / FINE - 0.5
    x, y = cols[edge][:, None, None] + within, rows[edge][:, None, None] + within[:, None]
    covered[edge] = (away(x, y) <= width / 2).mean(axis=(1, 2))
    picture = light * gaussian_filter(1 - depth * covered, BLUR_PX)
    picture += np.random.default_rng(seed).normal(0, noise, picture.shape)
    reach = 100 * np.array([np.cos(angle), np.sin(angle)])
    return picture.astype(np.float32), np.array([SIZE / 2 - reach, SIZE / 2 + reach])


def seen(picture, valid=None, row=0, col=0):
    valid = np.ones(picture.shape, bool) if valid is None else valid
    gray = np.rint(picture).astype(np.uint8)
    return Picture.of_bands(gray, valid, Window(row, col, *gray.shape))


def measured(picture, line, mask_px, options=OPTIONS):
    branches = BranchSet.of_lines([line], np.array([[0, 1]]))
    return width_sums(seen(picture), branches, np.array([mask_px]), options)


def widths_px(sums, options):
    return widths_mm(sums, depths(sums, options), pixel_mm=1.0)


ANGLES = np.radians([3, 31, 45, 77, 120])


WIDE = [(w, d) for w in (3.0, 4.5, 8.0, 15.0) for d in (0.35, 0.6, 0.8)]


@pytest.mark.parametrize(("width", "depth"), [(2.0, 0.5), (2.0, 0.7), *WIDE])
def test_the_width_of_a_wide_crack_is_right_whatever_its_depth(width, depth):
    errors = [
        widths_px(measured(*slit(width, a, depth), width + 2), OPTIONS)[0] - width for a in ANGLES
    ]
    assert abs(np.mean(errors)) < 0.15 + 0.03 * width
    assert np.abs(errors).max() < 0.3 + 0.03 * width


@pytest.mark.parametrize("width", [0.4, 0.7, 1.0])
def test_the_width_of_a_thin_crack_is_right_if_its_depth_is_usual(width):
    errors = [widths_px(measured(*slit(width, a, 0.6), 3.0), OPTIONS)[0] - width for a in ANGLES]
    assert abs(np.mean(errors)) < 0.2


def test_a_mask_two_pixels_too_wide_changes_little():
    picture, line = slit(2.5, 0.4, noise=4.0)
    tight, wide = (widths_px(measured(picture, line, m), OPTIONS)[0] for m in (2.5, 4.5))
    assert wide == pytest.approx(tight, abs=0.15)


def test_the_edge_of_a_shadow_beside_the_crack_changes_little():
    picture, line = slit(3.0, 0.0)
    shadow = np.where(np.arange(SIZE)[:, None] > SIZE // 2 + 5, 0.6, 1.0)
    plain, shaded = (
        widths_px(measured(p, line, 4.0), OPTIONS)[0] for p in (picture, picture * shadow)
    )
    assert shaded == pytest.approx(plain, rel=0.25)


def test_brighter_light_changes_nothing():
    dark, bright = (measured(*slit(2.5, 0.7, light=light), 3.0) for light in (60.0, 200.0))
    assert widths_px(bright, OPTIONS)[0] == pytest.approx(widths_px(dark, OPTIONS)[0], rel=0.03)


def test_sums_of_branches_add_up_to_those_of_the_crack():
    picture, line = slit(3.0, 0.5, noise=3.0)
    cuts = line[0] + np.linspace(0, 1, 5)[:, None] * (line[1] - line[0])
    parts = [cuts[k : k + 2] for k in range(4)]
    branches = BranchSet.of_lines(parts, np.array([[0, 1], [2, 3], [4, 5], [6, 7]]))
    each = width_sums(seen(picture), branches, np.full(4, 3.0), OPTIONS)
    whole = measured(picture, line, 3.0)
    together = each.group(np.zeros(4, int), 1)
    assert together.length_px[0] == pytest.approx(whole.length_px[0], rel=1e-6)
    assert together.loss_px2[0] == pytest.approx(whole.loss_px2[0], rel=0.02)
    assert widths_px(together, OPTIONS)[0] == pytest.approx(widths_px(whole, OPTIONS)[0], rel=0.03)


def test_where_the_picture_lies_and_what_else_is_measured_changes_nothing():
    picture, line = slit(2.4, 1.1, noise=3.0)
    alone = measured(picture, line, 3.0)
    corner = np.array([7000.0, 30_000.0])
    moved = BranchSet.of_lines(
        [line + corner, line + corner + (0.25, 0.5)], np.array([[0, 1], [2, 3]])
    )
    found = width_sums(seen(picture, None, 30_000, 7000), moved, np.array([3.0, 3.0]), OPTIONS)
    for name in ("length_px", "loss_px2", "weight", "weighted_depth", "most_px"):
        assert getattr(found, name)[0] == getattr(alone, name)[0], name


def test_what_has_no_imagery_has_no_width():
    picture, line = slit(3.0, 0.0)
    valid = np.zeros(picture.shape, bool)
    branches = BranchSet.of_lines([line], np.array([[0, 1]]))
    none = width_sums(seen(picture, valid), branches, np.array([3.0]), OPTIONS)
    assert none.length_px[0] == 0
    assert np.isnan(widths_px(none, OPTIONS)[0])
    valid[:, : SIZE // 2] = True
    half = width_sums(seen(picture, valid), branches, np.array([3.0]), OPTIONS)
    assert 90 <= half.length_px[0] <= 110  # what is averaged reaches 5 px beyond
    assert widths_px(half, OPTIONS)[0] == pytest.approx(3.0, abs=0.3)


def test_a_width_is_claimed_only_where_the_pixels_are_fine_enough_for_it():
    width = np.array([9.5, 10.0, 45.0, 45.0, np.nan])
    gsd = np.array([5.0, 5.0, 5.0, 5.1, 2.0])
    rules = SeverityOptions()
    assert is_measurable(width, gsd, rules).tolist() == [False, True, True, False, False]


def test_a_very_wide_crack_is_as_wide_as_its_mask():
    picture, line = slit(60.0, 0.3)
    assert widths_px(measured(picture, line, 61.0), OPTIONS)[0] == pytest.approx(61.0)


def test_strips_along_pieces_show_what_the_whole_picture_shows():
    picture, line = slit(3.0, 0.6, noise=4.0)
    whole = seen(picture)
    places = np.rint(line[0] + np.linspace(0, 1, 400)[:, None] * (line[1] - line[0]))
    pixels = np.unique(places[:, ::-1].astype(int), axis=0)
    strips = [whole.near(part, OPTIONS.reach_px) for part in np.array_split(pixels, 5)]
    assert sum((strip.gray > 0).sum() for strip in strips) < 0.9 * 5 * picture.size
    branches = BranchSet.of_lines([line], np.array([[0, 1]]))
    found = width_sums(Patchwork(strips), branches, np.array([4.0]), OPTIONS)
    assert np.array_equal(found.loss_px2, measured(picture, line, 4.0).loss_px2)


def test_each_branch_has_a_severity_of_its_own():
    """A crack of three branches: 4 px (20 mm), 1 px (not measurable), and one without imagery."""
    picture = np.hstack([slit(w, 0.0)[0] for w in (4.0, 1.0)])
    lines = [np.array([[20.0, 120], [220, 120]]), np.array([[260.0, 120], [460, 120]])]
    lines.append(np.array([[490.0, 120], [590, 120]]))
    pixels = BranchSet.of_lines(lines, np.arange(6).reshape(-1, 2))
    sums = width_sums(seen(picture), pixels, np.array([5.0, 3.0, 3.0]), OPTIONS)
    gsd, rules, one = np.full(3, 5.0), SeverityOptions(), np.zeros(3, int)
    widths = crack_widths(sums, one, 1, 5.0, gsd, rules)
    assert widths.branch_mm[0] == pytest.approx(20, abs=1.5)
    assert widths.crack_mm[0] == pytest.approx((20 + widths.branch_mm[1]) / 2, abs=1.0)
    assert widths.most_mm[0] >= widths.branch_mm[0] - 0.5
    classes = d6433(widths.branch_mm, widths.branch_measurable, rules)
    assert classes.tolist() == ["medium", NOT_MEASURABLE, NOT_MEASURABLE]


def test_pixels_of_the_imagery_decide_what_is_measurable_and_those_of_the_map_how_wide():
    picture, line = slit(4.0, 0.0)
    sums, one = measured(picture, line, 5.0), np.zeros(1, int)
    fine, coarse = (
        crack_widths(sums, one, 1, 2.0, np.array([gsd]), SeverityOptions()) for gsd in (2.0, 5.0)
    )
    assert fine.crack_mm[0] == coarse.crack_mm[0] == pytest.approx(8, abs=0.6)
    assert fine.crack_measurable[0]
    assert not coarse.crack_measurable[0]


def test_p95_is_exceeded_on_five_percent_of_the_length():
    width = np.array([1.0, 9, 5, np.nan, 7])
    length = np.array([94, 6, 95, 1000, 5])
    found = width_p95(width, length, np.array([0, 0, 1, 1, 1]), 3)
    assert found[:2].tolist() == [9, 5]
    assert np.isnan(found[2])


def test_p95_of_a_crack_is_no_less_than_its_mean():
    """The mean over all light is a little above that of either branch."""
    known = np.ones(2, bool)
    widths = CrackWidths(np.array([11.7, 11.8]), np.array([11.9]), np.array([20.0]), known, known)
    assert widths.p95_mm(np.array([500, 500]), np.array([0, 0])).tolist() == [11.9]
    wider = replace(widths, branch_mm=np.array([11.7, 13]))
    assert wider.p95_mm(np.array([500, 500]), np.array([0, 0])).tolist() == [13]
