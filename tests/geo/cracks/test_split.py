"""Every pixel belongs to the nearest branch of its own piece."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo.cracks.branches import BranchSet
from geo.cracks.split import branch_of_pixels


def scene(seed):
    """Three pieces with one, two and four straight branches, and pixels around them."""
    rng = np.random.default_rng(seed)
    lines, piece = [], []
    for number, count in enumerate((1, 2, 4)):
        center = rng.uniform(20, 60, 2)
        for _ in range(count):
            lines.append(np.stack((center, center + rng.uniform(-15, 15, 2))))
            piece.append(number)
    pixels = rng.integers(0, 80, (300, 2))
    return lines, np.array(piece), pixels, rng.integers(0, 3, 300)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_each_pixel_belongs_to_the_nearest_branch_of_its_piece(seed):
    lines, piece, pixels, own = scene(seed)
    branches = BranchSet.of_lines(lines, np.arange(2 * len(lines)).reshape(-1, 2))
    found = branch_of_pixels(pixels, own, branches, piece)
    assert (piece[found] == own).all()
    for (row, col), number, branch in zip(pixels, own, found, strict=True):
        away = {}
        for other in np.flatnonzero(piece == number):
            a, b = lines[other]
            t = np.clip(
                (np.array([col + 0.5, row + 0.5]) - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1
            )
            away[other] = np.hypot(*(a + t * (b - a) - (col + 0.5, row + 0.5)))
        assert away[branch] <= min(away.values()) + 0.25  # points are half a pixel apart


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_a_piece_is_split_alike_alone_and_among_others(seed):
    lines, piece, pixels, own = scene(seed)
    branches = BranchSet.of_lines(lines, np.arange(2 * len(lines)).reshape(-1, 2))
    together = branch_of_pixels(pixels, own, branches, piece)
    for number in range(3):
        chosen = np.flatnonzero(piece == number)[::-1]
        here = own == number
        alone = branch_of_pixels(pixels[here], own[here], branches.take(chosen), piece[chosen])
        assert (chosen[alone] == together[here]).all()


def test_a_pixel_between_two_branches_goes_to_the_western_one():
    lines = [np.array([[7.5, 0], [7.5, 10]]), np.array([[3.5, 0], [3.5, 10]])]
    branches = BranchSet.of_lines(lines, np.array([[0, 1], [2, 3]]))
    found = branch_of_pixels(np.array([[5, 5]]), np.zeros(1, int), branches, np.zeros(2, int))
    assert found.tolist() == [1]


@pytest.mark.parametrize("seed", range(6))
def test_of_any_number_of_branches_that_meet_in_a_pixel_the_first_has_it(seed):
    rng = np.random.default_rng(seed)
    piece = np.repeat([0, 1, 2], (7, 6, 2))
    centers = rng.integers(20, 60, (3, 2))
    middles = centers[piece] + 0.5
    lines = [np.stack((place, place + rng.uniform(-15, 15, 2))) for place in middles]
    branches = BranchSet.of_lines(lines, np.column_stack((piece, 3 + np.arange(15))))
    western = branches.canonical[1][::2] >> 1
    found = branch_of_pixels(centers[:, ::-1], np.arange(3), branches, piece)
    assert found.tolist() == [western[piece[western] == k][0] for k in range(3)]


def test_areas_add_up():
    lines, piece, pixels, own = scene(3)
    branches = BranchSet.of_lines(lines, np.arange(2 * len(lines)).reshape(-1, 2))
    counts = np.bincount(branch_of_pixels(pixels, own, branches, piece), minlength=len(lines))
    for number in range(3):
        assert counts[piece == number].sum() == pytest.approx((own == number).sum())
