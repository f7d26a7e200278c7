"""Drawn windows of pavement: exact truth, honest light, the same window from the same seed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wpcrack.synthetic.pavement import Kind, PavementConfig, draw_pavement
from wpcrack.synthetic.pavement.canvas import Canvas, View, coverage
from wpcrack.synthetic.pavement.carving import THIN_PX, trace
from wpcrack.synthetic.pavement.draw import draw_view, faint_pixels
from wpcrack.synthetic.pavement.fields import blur, cloud, cut, draw_streaks, rough_line, smooth
from wpcrack.synthetic.pavement.ground import draw_stones
from wpcrack.synthetic.pavement.light import Sun, cast, shade
from wpcrack.synthetic.pavement.lines import (
    PATTERNS,
    Branches,
    Habit,
    around_stones,
    draw_tapes,
    rough_branches,
)
from wpcrack.synthetic.pavement.things import OVER, UNDER

SMALL = PavementConfig(size=96)


def flat_canvas(side: int = 64) -> Canvas:
    shape = side, side
    return Canvas(
        view=View(np.eye(3), shape, shape),
        gsd_mm=2.0,
        albedo=np.full((*shape, 3), 0.3, np.float32),
        relief=np.zeros(shape, np.float32),
        gloom=np.zeros(shape, np.float32),
        classes=np.zeros(shape, np.uint8),
        mask=np.zeros(shape, bool),
        width_px=np.zeros(shape, np.float32),
    )


def even_habit(width: float) -> Habit:
    tapes = draw_tapes(np.random.default_rng(0), 0.7, width)
    return Habit(width, rough=0.1, hurst=0.7, ragged=0.0, swing=0.0, snap=0.0, tapes=tapes)


def straight(start: tuple[float, float], stop: tuple[float, float], width: float) -> Branches:
    axis = np.linspace(start, stop, 120)[None]
    half = np.full((1, 120), width / 2)
    return Branches(axis, half, half)


@pytest.mark.parametrize("seed", range(6))
def test_the_same_seed_gives_the_same_window_and_another_seed_another(seed: int) -> None:
    first, again, other = (
        draw_pavement(np.random.SeedSequence([3, s]), SMALL) for s in (seed, seed, seed + 100)
    )
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)
    np.testing.assert_array_equal(first.classes, again.classes)
    np.testing.assert_array_equal(first.width_px, again.width_px)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("gsd", [(0.3, 0.5), (1.0, 3.0), (8.0, 10.0)])
def test_mask_widths_and_classes_tell_the_same_truth(gsd: tuple[float, float]) -> None:
    config = PavementConfig(size=96, gsd_mm=gsd)
    for seed in range(25):
        drawn = draw_pavement(seed, config)
        assert drawn.image.shape == (96, 96, 3)
        assert drawn.image.dtype == np.uint8
        assert gsd[0] <= drawn.gsd_mm <= gsd[1]
        np.testing.assert_array_equal(drawn.mask, drawn.classes == Kind.CRACK)
        np.testing.assert_array_equal(drawn.mask, drawn.width_px > 0)
        assert not (drawn.faint & ~drawn.mask).any()


def test_parts_are_the_window_cut_into_squares() -> None:
    drawn = draw_pavement(3, SMALL)
    parts = drawn.parts(40)
    assert len(parts) == 4
    for name in ("image", "mask", "faint", "width_px", "classes"):
        rows = [np.concatenate([getattr(p, name) for p in parts[k : k + 2]], 1) for k in (0, 2)]
        np.testing.assert_array_equal(np.concatenate(rows), getattr(drawn, name)[:80, :80])


def test_a_crack_is_faint_where_it_looks_like_its_surroundings() -> None:
    rng = np.random.default_rng(0)
    picture = rng.normal(128, 10, (60, 60, 1)).repeat(3, axis=2).clip(0, 255).astype(np.uint8)
    mask = np.zeros((60, 60), bool)
    mask[20:22] = mask[40:42] = True
    picture[20:22] -= 40
    faint = faint_pixels(picture, mask)
    assert not faint[20:22].any()
    assert faint[40:42].mean() > 0.6
    assert not faint[~mask].any()


def test_a_share_of_zero_draws_no_crack_and_of_one_mostly_some() -> None:
    none = PavementConfig(size=96, crack_share=0.0)
    all_of_them = PavementConfig(size=96, crack_share=1.0)
    assert not any(draw_pavement(seed, none).mask.any() for seed in range(30))
    shown = [draw_pavement(seed, all_of_them).mask.any() for seed in range(30)]
    assert np.mean(shown) > 0.8


def test_most_cracks_are_darker_than_their_surroundings_and_some_are_lighter() -> None:
    config = PavementConfig(size=96, crack_share=1.0)
    contrasts = []
    for seed in range(60):
        drawn = draw_pavement(seed, config)
        grey = drawn.image.mean(axis=2)
        ring = cv2.dilate(drawn.mask.astype(np.uint8), np.ones((13, 13), np.uint8)) > 0
        ring &= drawn.classes == Kind.SURFACE
        if drawn.mask.sum() > 40 and ring.sum() > 40:
            contrasts.append(grey[ring].mean() - grey[drawn.mask].mean())
    assert np.mean(np.array(contrasts) > 5) > 0.7
    assert min(contrasts) < -5


def test_every_kind_of_thing_is_drawn_somewhere() -> None:
    config = PavementConfig(size=64, gsd_mm=(2.0, 10.0), crack_share=0.4)
    seen: set[int] = set()
    for seed in range(500):
        seen |= set(np.unique(draw_pavement(seed, config).classes).tolist())
        if seen == set(Kind):
            break
    assert seen == set(Kind)


@pytest.mark.parametrize("painter", [row[0] for row in (*UNDER, *OVER)], ids=lambda p: p.__name__)
def test_things_leave_numbers_and_never_make_a_crack(painter) -> None:  # type: ignore[no-untyped-def]
    for seed in range(6):
        canvas = flat_canvas()
        canvas.mask[30:33] = True
        canvas.classes[30:33] = Kind.CRACK
        canvas.width_px[30:33] = 3
        painter(np.random.default_rng(seed), canvas)
        for field in (canvas.albedo, canvas.relief, canvas.gloom):
            assert np.isfinite(field).all()
        assert canvas.gloom.min() >= 0
        assert canvas.gloom.max() < 1
        assert not canvas.mask[:30].any()
        assert not canvas.mask[33:].any()
        np.testing.assert_array_equal(canvas.mask, canvas.classes == Kind.CRACK)
        np.testing.assert_array_equal(canvas.mask, canvas.width_px > 0)


@settings(max_examples=40, deadline=None)
@given(
    x0=st.floats(1, 10), y0=st.floats(1, 10), width=st.floats(0.5, 15), height=st.floats(0.5, 15)
)
def test_coverage_is_the_overlap_and_at_most_a_sample_more_at_each_side(
    x0: float, y0: float, width: float, height: float
) -> None:
    corners = np.array([[x0, y0], [x0 + width, y0], [x0 + width, y0 + height], [x0, y0 + height]])
    cover = coverage([corners], (32, 32))
    k = np.arange(32)
    across = (np.minimum(k + 1, x0 + width) - np.maximum(k, x0)).clip(0, None)
    down = (np.minimum(k + 1, y0 + height) - np.maximum(k, y0)).clip(0, None)
    assert (cover >= np.outer(down, across) - 0.26).all()
    assert cover.sum() <= (width + 2 / 4) * (height + 2 / 4) + 0.1
    assert cover.sum() >= width * height - 0.13 * (width + height)


@settings(max_examples=25, deadline=None)
@given(width=st.floats(THIN_PX, 14), y=st.floats(28, 36))
def test_a_straight_crack_covers_the_pixels_that_are_half_inside(width: float, y: float) -> None:
    canvas = flat_canvas()
    line = straight((-5, y), (69, y), width)
    traces = trace(np.random.default_rng(0), canvas, [line], even_habit(width), None)
    k = np.arange(64)
    inside = np.minimum(k + 1, y + width / 2) - np.maximum(k, y - width / 2)
    sure, maybe = inside > 0.5 + 0.26, inside > 0.5 - 0.26
    column = traces.mask[:, 32]
    assert column[sure].all()
    assert not column[~maybe].any()
    assert (traces.mask == column[:, None]).all()
    np.testing.assert_allclose(traces.width_px[traces.mask], width, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(angle=st.floats(0, np.pi), width=st.floats(0.45, 0.9))
def test_a_crack_below_a_pixel_is_one_connected_line(angle: float, width: float) -> None:
    canvas = flat_canvas()
    run = 25 * np.array([np.cos(angle), np.sin(angle)])
    line = straight(tuple(32 - run), tuple(32 + run), width)
    traces = trace(np.random.default_rng(0), canvas, [line], even_habit(width), None)
    assert cv2.connectedComponents(traces.mask.astype(np.uint8), connectivity=8)[0] == 2
    rows, cols = np.nonzero(traces.mask)
    off = np.abs((cols + 0.5 - 32) * run[1] - (rows + 0.5 - 32) * run[0]) / 25
    assert off.max() <= 1.0


def test_flat_ground_sends_all_light_back_and_gloom_none() -> None:
    flat, dark = np.zeros((20, 20), np.float32), np.full((20, 20), 1.0, np.float32)
    sun = Sun(azimuth=0.3, elevation=0.8, share=0.6)
    np.testing.assert_allclose(shade(flat, flat, sun), 1.0, atol=1e-6)
    np.testing.assert_allclose(shade(flat, dark, sun), 0.0, atol=1e-6)


def test_a_slope_towards_the_sun_is_lighter_than_one_away() -> None:
    ramp = np.tile(np.abs(np.arange(40, dtype=np.float32) - 20) * np.float32(-0.3), (40, 1))
    light = shade(ramp, np.zeros_like(ramp), Sun(azimuth=0.0, elevation=0.9, share=0.8))
    assert light[20, 30] > 1.02, "the right side falls to the right, where the sun is"
    assert light[20, 10] < 0.98


def test_a_post_casts_its_shadow_away_from_the_sun() -> None:
    relief = np.zeros((40, 40), np.float32)
    relief[18:22, 18:22] = 6
    shadow = cast(relief, Sun(azimuth=0.0, elevation=np.pi / 4, share=0.8))
    assert shadow[20, 15] > 0.5
    assert shadow[20, 25] == 0
    assert shadow[10, 20] == 0


def test_a_spot_of_the_plane_is_seen_where_it_is_projected_to() -> None:
    config = PavementConfig(size=80, oblique=1.0)
    for seed in range(8):
        view = draw_view(np.random.default_rng(seed), config)
        field = np.zeros(view.plane, np.float32)
        row, col = view.plane[0] // 2, view.plane[1] // 2
        field[row, col] = 1
        seen = view.warp(blur(field, 1.5))
        peak = np.unravel_index(seen.argmax(), seen.shape)
        x, y = view.project(np.array([[col + 0.5, row + 0.5]]))[0]
        assert abs(peak[1] + 0.5 - x) <= 1
        assert abs(peak[0] + 0.5 - y) <= 1


def test_magnification_is_what_a_small_square_grows_by() -> None:
    view = draw_view(np.random.default_rng(1), PavementConfig(size=80, oblique=1.0))
    at = np.array([[40.0, 50.0]])
    square = at + np.array([[0, 0], [0.01, 0], [0.01, 0.01], [0, 0.01]])
    area = cv2.contourArea(np.asarray(view.project(square) * 1000, np.float32)) / 1e6
    assert view.magnification(at)[0] == pytest.approx(np.sqrt(area) / 0.01, rel=0.02)


def test_points_on_stones_move_to_their_rims_and_others_stay() -> None:
    rng = np.random.default_rng(0)
    stones = draw_stones(rng, (80, 80), 14.0)
    points = rng.uniform(2, 78, (400, 2))
    moved = around_stones(points, stones, 1.0)
    col, row = np.floor(points).astype(int).T
    on = stones.inside[row, col] > 0
    np.testing.assert_array_equal(moved[~on], points[~on])
    centers = stones.center[stones.label[row, col]]
    assert (np.hypot(*(moved - centers).T) >= np.hypot(*(points - centers).T) - 1e-6)[on].all()
    on &= np.hypot(*(points - centers).T) > 0.5
    ahead = np.hypot(*(moved - points).T)[on]
    np.testing.assert_allclose(ahead, stones.inside[row, col][on], rtol=1e-3, atol=1e-3)


def test_each_pixel_knows_its_nearest_stone() -> None:
    stones = draw_stones(np.random.default_rng(2), (30, 30), 8.0)
    used = np.unique(stones.label)
    for row, col in ((3, 4), (15, 20), (28, 9)):
        away = np.hypot(*(stones.center[used] - (col + 0.5, row + 0.5)).T)
        mine = np.hypot(*(stones.center[stones.label[row, col]] - (col + 0.5, row + 0.5)))
        assert mine <= away.min() + 1.5, "seeds are rounded to pixels"


@pytest.mark.parametrize("cell", [0.5, 1.0, 2.0, 5.0, 12.0, 40.0, 300.0])
def test_smooth_noise_has_about_unit_deviation_above_a_pixel(cell: float) -> None:
    values = [smooth(np.random.default_rng(k), (64, 64), cell) for k in range(150)]
    deviation = float(np.sqrt(np.mean(np.square(values))))
    assert deviation == pytest.approx(min(1.0, cell), rel=0.2)


def test_stretched_noise_is_longer_along_its_longer_cell() -> None:
    field = draw_streaks(np.random.default_rng(0), (100, 100), (2.0, 30.0))
    assert np.abs(np.diff(field, axis=1)).mean() < 0.3 * np.abs(np.diff(field, axis=0)).mean()
    assert cloud(np.random.default_rng(0), (50, 40), 30.0).shape == (50, 40)


def test_a_rough_line_deviates_with_the_power_of_the_distance() -> None:
    rng = np.random.default_rng(0)
    lines = [rough_line(rng, 1024, longest=256, hurst=0.7) for _ in range(60)]
    far, near = (np.mean([np.std(x[k:] - x[:-k]) for x in lines]) for k in (64, 8))
    assert np.log(far / near) / np.log(8) == pytest.approx(0.7, abs=0.12)


def test_cut_pieces_are_parts_of_the_line_turned_and_mirrored() -> None:
    rng = np.random.default_rng(0)
    tape = rng.normal(size=50).astype(np.float32)
    for piece in cut(rng, tape, (12, 20)):
        assert any(
            np.array_equal(piece, sign * tape[k : k + 20][::turn])
            for k in range(31)
            for sign in (1, -1)
            for turn in (1, -1)
        )
    assert cut(rng, tape, (3, 130)).shape == (3, 130)


def test_a_branch_runs_from_end_to_end_and_thins_out_where_it_is_free() -> None:
    rng = np.random.default_rng(5)
    chord = np.array([[5.0, 5.0], [90.0, 60.0]])
    habit = even_habit(4.0)
    for _ in range(10):
        line = rough_branches(rng, chord[None], habit, (True, False))
        np.testing.assert_allclose(line.axis[0, [0, -1]], chord, atol=0.5)
        assert line.width[0, 0] < 0.2 * habit.width
        assert (line.left >= 0).all()
        assert (line.right >= 0).all()


def test_shares_of_patterns_add_up_to_one() -> None:
    assert sum(PATTERNS.values()) == pytest.approx(1.0)
