"""Scores equal their definitions, written again as short loops over pixels."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wpcrack.scoring import metrics
from wpcrack.scoring.metrics import Counts, TolerantCounts
from wpcrack.scoring.scores import ScoreBoard

EMPTY, FULL = np.zeros((4, 5), bool), np.ones((4, 5), bool)


def drawn(seed: int, shape: tuple[int, int] = (9, 13)) -> tuple[np.ndarray, np.ndarray]:
    """Draw a probability and a truth that agree somewhat; either may be empty."""
    rng = np.random.default_rng(seed)
    truth = rng.random(shape) < rng.choice([0, 0.02, 0.3, 1])
    noise = rng.integers(0, 256, shape)
    probability = np.clip(noise * rng.choice([0, 0.4, 1]) + 90 * truth, 0, 255)
    return probability.astype(np.uint8), truth


seeds = st.integers(0, 10**6)


def reference_f1(p: np.ndarray, t: np.ndarray) -> float:
    tp, both = (p & t).sum(), p.sum() + t.sum()
    return 2 * tp / both if both else 1.0


@given(seeds)
def test_pooled_scores_equal_their_formulas(seed: int) -> None:
    probability, t = drawn(seed)
    p = probability >= 128
    c = metrics.count(p, t)
    assert astuple(c) == ((p & t).sum(), (p & ~t).sum(), (~p & t).sum(), (~p & ~t).sum())
    assert metrics.iou(c) == ((p & t).sum() / (p | t).sum() if (p | t).any() else 1)
    assert metrics.f1(c) == reference_f1(p, t)
    if p.any():
        assert metrics.precision(c) == (p & t).sum() / p.sum()
    if t.any():
        assert metrics.recall(c) == (p & t).sum() / t.sum()
    both = [reference_f1(p, t), reference_f1(~p, ~t)]
    assert metrics.f1_macro(c) == pytest.approx(np.mean(both))
    background = metrics.iou(metrics.count(~p, ~t))
    assert metrics.miou_2class(c) == pytest.approx((metrics.iou(c) + background) / 2)


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [(EMPTY, EMPTY, 1), (EMPTY, FULL, 0), (FULL, EMPTY, 0), (FULL, FULL, 1)],
)
def test_nothing_to_find_is_perfect_unless_something_was_predicted(
    prediction: np.ndarray, truth: np.ndarray, expected: float
) -> None:
    c = metrics.count(prediction, truth)
    scores = [score(c) for score in (metrics.iou, metrics.precision, metrics.recall, metrics.f1)]
    assert scores == [expected] * 4
    assert metrics.f1_tolerant(metrics.count_tolerant(prediction, truth, 2)) == expected
    assert metrics.best_f1(metrics.histogram(prediction * np.uint8(255), truth)) == expected


def test_threshold_half_takes_128_and_leaves_127() -> None:
    assert metrics.mask_at(np.array([0, 127, 128, 255], np.uint8), 0.5).tolist() == [
        False,
        False,
        True,
        True,
    ]


@given(st.floats(0, 1), st.integers(0, 255))
def test_threshold_compares_the_level_over_255(threshold: float, level: int) -> None:
    found = metrics.mask_at(np.array([[level]], np.uint8), threshold)
    assert found.tolist() == [[level / 255 >= threshold]]


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(0, 5))
def test_tolerance_is_a_chebyshev_distance(seed: int, radius: int) -> None:
    probability, t = drawn(seed)
    p = probability >= 128

    def near(points: np.ndarray, others: np.ndarray) -> int:
        there = np.argwhere(others)
        distances = [np.abs(there - q).max(1).min(initial=99) for q in np.argwhere(points)]
        return sum(d <= radius for d in distances)

    c = metrics.count_tolerant(p, t, radius)
    assert c == TolerantCounts(int(p.sum()), near(p, t), int(t.sum()), near(t, p))
    if p.any() and t.any():
        a, b = near(p, t) / p.sum(), near(t, p) / t.sum()
        assert metrics.f1_tolerant(c) == pytest.approx(2 * a * b / (a + b) if a + b else 0)
    if radius == 0:
        assert metrics.f1_tolerant(c) == pytest.approx(metrics.f1(metrics.count(p, t)))


def test_a_shift_within_the_tolerance_is_free() -> None:
    truth = np.zeros((30, 30), bool)
    truth[:, 10] = True
    shifted = np.roll(truth, 2, axis=1)
    assert metrics.f1_tolerant(metrics.count_tolerant(shifted, truth, 2)) == 1
    assert metrics.f1_tolerant(metrics.count_tolerant(shifted, truth, 1)) == 0


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_best_f1_equals_the_maximum_over_thresholds(seed: int) -> None:
    probability, t = drawn(seed)
    sweep = [reference_f1(probability / 255 >= k / 100, t) for k in range(1, 100)]
    assert metrics.best_f1(metrics.histogram(probability, t)) == pytest.approx(max(sweep))


@settings(max_examples=25, deadline=None)
@given(st.lists(seeds, min_size=1, max_size=5))
def test_board_pools_pixels_of_images_of_any_size(image_seeds: list[int]) -> None:
    images = [drawn(s, shape=(6 + s % 5, 8 + s % 3)) for s in image_seeds]
    board = ScoreBoard(resize=8)
    for k, (probability, truth) in enumerate(images):
        board.add(str(k), probability, truth)
    scores = board.scores()
    p = np.concatenate([(x >= 128).ravel() for x, _ in images])
    t = np.concatenate([y.ravel() for _, y in images])
    assert scores.native.f1 == reference_f1(p, t)
    assert scores.native.iou == ((p & t).sum() / (p | t).sum() if (p | t).any() else 1)
    if p.any() and t.any():
        assert scores.native.precision == (p & t).sum() / p.sum()
        assert scores.native.recall == (p & t).sum() / t.sum()
    jaccard = [((x >= 128) & y).sum() / max(((x >= 128) | y).sum(), 1) for x, y in images]
    nothing = [not ((x >= 128) | y).any() for x, y in images]
    assert scores.per_image.iou == pytest.approx(np.mean(np.where(nothing, 1, jaccard)))
    for radius, found in ((2, scores.native.f1_tol2), (5, scores.native.f1_tol5)):
        near = sum(
            (metrics.count_tolerant(x >= 128, y, radius) for x, y in images),
            metrics.TolerantCounts(0, 0, 0, 0),
        )
        assert found == metrics.f1_tolerant(near)
    assert scores.n_images == len(images)
    singles = [reference_f1(x >= 128, y) for x, y in images]
    assert scores.per_image.f1 == pytest.approx(np.mean(singles))
    sweeps = [[reference_f1(x / 255 >= k / 100, y) for x, y in images] for k in range(1, 100)]
    assert scores.ois == pytest.approx(np.max(sweeps, axis=0).mean())
    flat = np.concatenate([x.ravel() for x, _ in images])
    assert scores.ods == pytest.approx(
        max(reference_f1(flat / 255 >= k / 100, t) for k in range(1, 100))
    )
    free = [(x >= 128).ravel() for x, y in images if not y.any()]
    assert scores.fp_area_share == (np.concatenate(free).mean() if free else None)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_resized_scores_take_the_nearest_pixel(seed: int) -> None:
    probability, truth = drawn(seed, shape=(11, 17))
    board = ScoreBoard(resize=7)
    board.add("a", probability, truth)
    rows, cols = np.arange(7) * 11 // 7, np.arange(7) * 17 // 7
    small = np.ix_(rows, cols)
    resized = board.scores().resized
    assert resized is not None
    assert resized.f1 == reference_f1((probability >= 128)[small], truth[small])
    assert ScoreBoard().resize is None


@pytest.mark.parametrize(("length", "side"), [(544, 400), (360, 400), (1944, 256), (384, 256)])
def test_pixel_i_of_a_resized_mask_shows_floor_of_i_times_length_by_side(
    length: int, side: int
) -> None:
    rows = [i * length // side for i in range(side)]
    cols = [i * (length + 1) // side for i in range(side)]
    for bit in range(11):  # of the number of each row
        mask = np.broadcast_to(((np.arange(length) >> bit) & 1 == 1)[:, None], (length, length + 1))
        assert np.array_equal(metrics.resize_nearest(mask, side), mask[np.ix_(rows, cols)])
    mask = np.eye(length, length + 1, dtype=bool)
    assert np.array_equal(metrics.resize_nearest(mask, side), mask[np.ix_(rows, cols)])


def test_road_images_count_for_false_area_alone() -> None:
    board = ScoreBoard()
    board.add("a", np.full((4, 5), 255, np.uint8), FULL)
    road = np.zeros((10, 10), np.uint8)
    road[0, :3] = 200
    board.add_road(road)
    scores = board.scores()
    assert (scores.n_images, scores.native.iou) == (1, 1)
    assert scores.fp_area_share == pytest.approx(0.03)


def test_bootstrap_holds_the_pooled_score_and_repeats() -> None:
    rng = np.random.default_rng(0)
    images = [Counts(*rng.integers(1, 100, 4).tolist()) for _ in range(40)]
    low, high = metrics.bootstrap_ci95(images, seed=0)["iou"]
    assert low < metrics.iou(sum(images, Counts())) < high
    assert metrics.bootstrap_ci95(images, seed=0)["iou"] == (low, high)
    assert metrics.bootstrap_ci95(images, seed=1)["iou"] != (low, high)
    same = metrics.bootstrap_ci95([images[0]] * 7)["f1"]
    assert same == (metrics.f1(images[0]), metrics.f1(images[0]))


def test_bootstrap_interval_has_the_spread_of_the_mean() -> None:
    rng = np.random.default_rng(1)
    images = [Counts(tp, 100 - tp) for tp in rng.integers(0, 101, 400).tolist()]
    low, high = metrics.bootstrap_ci95(images)["iou"]
    expected = 2 * 1.96 * np.std([c.tp / 100 for c in images]) / np.sqrt(400)
    assert high - low == pytest.approx(expected, rel=0.1)
