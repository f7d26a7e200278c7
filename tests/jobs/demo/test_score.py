"""The demo's scores on geometry whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from shapely.geometry import Polygon, box

from jobs.demo.score import Share, burn, found_length, pixel_counts, right_length

EVERYTHING = (slice(None), slice(None))


def line(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, float)


def test_found_length_is_the_part_of_a_line_near_a_polygon() -> None:
    shares = found_length([line((0, 0), (100, 0))], [box(20, -1, 60, 1)], tolerance_px=4)
    assert shares[0].whole == pytest.approx(100)
    assert shares[0].part == pytest.approx(48, rel=1e-3)


def test_overlapping_polygons_do_not_count_twice() -> None:
    boxes = [box(20, -1, 60, 1), box(30, -2, 64, 2)]
    assert found_length([line((0, 0), (100, 0))], boxes, 4)[0].part == pytest.approx(52, rel=1e-3)


def test_a_line_beyond_the_tolerance_is_not_found() -> None:
    shares = found_length(
        [line((0, 5.1), (100, 5.1)), line((0, 4.9), (100, 4.9))], [box(-9, -1, 200, 1)], 4
    )
    assert [share.value for share in shares] == [0.0, pytest.approx(1.0)]


def test_nothing_predicted_finds_nothing() -> None:
    assert found_length([line((0, 0), (10, 0))], [], 4) == [Share(0.0, 10.0)]


def test_skeleton_length_of_a_straight_and_of_a_diagonal_band() -> None:
    straight = np.zeros((60, 200), bool)
    straight[28:33, 10:190] = True
    assert right_length(straight, straight, 4, EVERYTHING).whole == pytest.approx(180, abs=6)
    rows, cols = np.mgrid[:200, :200]
    diagonal = np.abs(rows - cols) < 4
    length = right_length(diagonal, diagonal, 4, EVERYTHING)
    assert length.whole == pytest.approx(199 * np.sqrt(2), abs=8)
    assert length.value == pytest.approx(1.0)


def test_a_right_angled_line_is_not_lengthened_by_its_corner() -> None:
    bent = np.zeros((40, 40), bool)
    bent[5:30, 5] = bent[29, 5:30] = True
    assert right_length(bent, bent, 4, EVERYTHING).whole <= 48


def test_only_the_predicted_length_near_truth_is_right() -> None:
    predicted, true = np.zeros((60, 100), bool), np.zeros((60, 100), bool)
    predicted[20, 0:100] = True
    true[24, 0:50] = True  # its edge is 3.5 pixels from the centers of the predicted row
    assert right_length(predicted, true, 4, EVERYTHING).value == pytest.approx(0.5, abs=0.03)
    assert right_length(predicted, true, 3, EVERYTHING).part == 0
    assert right_length(predicted, np.zeros_like(true), 4, EVERYTHING).part == 0


def test_cores_of_two_windows_add_up_to_the_whole() -> None:
    mask = np.zeros((40, 100), bool)
    mask[15:18, 5:95] = True
    whole = right_length(mask, mask, 4, EVERYTHING)
    left = right_length(mask[:, :60], mask[:, :60], 4, (slice(None), slice(0, 50)))
    right = right_length(mask[:, 40:], mask[:, 40:], 4, (slice(None), slice(10, None)))
    assert (left + right).whole == pytest.approx(whole.whole)


def test_counts_give_iou_and_f1() -> None:
    predicted, true = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    predicted[0, :3], true[0, 1:] = True, True
    valid = np.ones((4, 4), bool)
    counts = pixel_counts(predicted, true, valid)
    assert (counts.hit, counts.false, counts.missed) == (2, 1, 1)
    assert counts.iou == pytest.approx(0.5)
    assert counts.f1 == pytest.approx(2 / 3)
    assert pixel_counts(~valid, ~valid, valid).iou == 1.0
    assert pixel_counts(predicted, true, ~valid).iou == 1.0


def test_burn_marks_pixels_whose_center_is_inside() -> None:
    burned = burn([box(10, 5, 12, 8), Polygon()], row_off=4, col_off=9, shape=(5, 5))
    expected = np.zeros((5, 5), bool)
    expected[1:4, 1:3] = True
    np.testing.assert_array_equal(burned, expected)
    assert not burn([], 0, 0, (3, 3)).any()
