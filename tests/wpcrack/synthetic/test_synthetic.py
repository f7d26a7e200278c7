"""The drawn pavement: exact truth, no step at tile borders, the promised labels."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wpcrack.errors import ConfigError
from wpcrack.synthetic import (
    City,
    CityConfig,
    Frame,
    Street,
    WindowConfig,
    draw_city,
    draw_training_street,
    draw_window,
    windows,
)
from wpcrack.synthetic.noise import line_noise, smooth, white
from wpcrack.synthetic.street import paint, true_mask
from wpcrack.synthetic.strokes import Stroke, darkening, mask

SMALL = CityConfig(tile_px=1024, main_tiles=2, side_tiles=1, side_columns=(1,))


@pytest.fixture(scope="module")
def city() -> City:
    return draw_city(CityConfig(), seed=5)


@pytest.fixture(scope="module")
def streets() -> list[Street]:
    config = WindowConfig()
    rng = np.random.default_rng(11)
    return [draw_training_street(rng, config, name=f"street{k}") for k in range(4)]


def stroke(points: list[tuple[float, float]], width: float, depth: float = 1.0) -> Stroke:
    count = len(points)
    return Stroke(np.array(points, float), np.full(count, width), np.full(count, depth))


@settings(max_examples=30, deadline=None)
@given(
    row=st.integers(-5000, 5000),
    col=st.integers(-5000, 5000),
    dr=st.integers(0, 20),
    dc=st.integers(0, 20),
)
def test_noise_of_a_frame_does_not_depend_on_the_frame(
    row: int, col: int, dr: int, dc: int
) -> None:
    whole = Frame(row, col, 40, 41)
    part = Frame(row + dr, col + dc, 12, 9)
    inner = whole.slices(part)
    np.testing.assert_array_equal(white(3, whole)[inner], white(3, part))
    np.testing.assert_allclose(smooth(3, whole, 7.3)[inner], smooth(3, part, 7.3), atol=1e-5)


def test_noise_has_mean_zero_and_deviation_one() -> None:
    for noise in (white(1, Frame(0, 0, 400, 400)), smooth(1, Frame(0, 0, 800, 800), 5.0)):
        assert abs(float(noise.mean())) < 0.03
        assert float(noise.std()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("columns", range(4, 9))
def test_bytes_left_on_the_stack_by_others_raise_no_warning(columns: int) -> None:
    signalling = np.full(600, 0x7FA00000, np.uint32).view(np.float32)
    with np.errstate(invalid="ignore"):
        for rows in (5, 16, 70):  # a strided vector is copied to where OpenBLAS works
            np.ones((rows, 200), np.float32) @ signalling[::3]
    cell_px = 70 / (columns - 3.5)
    assert np.isfinite(line_noise(1, 0, 70, cell_px)).all()  # a warning is an error here
    assert np.isfinite(smooth(1, Frame(0, 0, 70, 1), cell_px)).all()
    assert np.isfinite(smooth(1, Frame(0, 0, 1, 70), cell_px)).all()


def test_darkening_of_a_straight_stroke_sums_to_its_area() -> None:
    for width in (0.4, 1.0, 2.7, 5.0):
        for y in (20.0, 20.3, 20.5):
            loss = darkening([stroke([(-9, y), (60, y)], width)], Frame(0, 0, 40, 50))
            assert float(loss.sum()) == pytest.approx(50 * width, rel=1e-4)


def test_a_stroke_thinner_than_a_pixel_darkens_in_proportion() -> None:
    for width in (0.2, 0.6):
        loss = darkening([stroke([(-9, 10.5), (60, 10.5)], width, 0.8)], Frame(0, 0, 20, 20))
        np.testing.assert_allclose(loss[10], 0.8 * width, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    ends=st.tuples(*[st.floats(-8, 40)] * 4),
    widths=st.tuples(st.floats(0.3, 6.0), st.floats(0.3, 6.0)),
)
def test_mask_is_the_pixels_whose_center_lies_within_half_the_width(
    ends: tuple[float, float, float, float], widths: tuple[float, float]
) -> None:
    a, b = np.array(ends[:2]), np.array(ends[2:])
    drawn = mask([Stroke(np.stack([a, b]), np.array(widths), np.ones(2))], Frame(0, 0, 32, 32))
    for row in range(32):
        for col in range(32):
            p = np.array([col + 0.5, row + 0.5])
            t = np.clip((p - a) @ (b - a) / max((b - a) @ (b - a), 1e-12), 0, 1)
            half = (widths[0] * (1 - t) + widths[1] * t) / 2
            slack = half - np.hypot(*(p - a - t * (b - a)))
            if slack > 1e-6:
                assert drawn[row, col]
            elif slack < -1e-6 and half >= 0.5 + 0.5 * abs(widths[1] - widths[0]):
                assert not drawn[row, col]


@settings(max_examples=40, deadline=None)
@given(angle=st.floats(0, np.pi), x=st.floats(15, 16), y=st.floats(15, 16))
def test_a_hair_crack_is_an_8_connected_line_one_pixel_wide(
    angle: float, x: float, y: float
) -> None:
    run = 14 * np.array([np.cos(angle), np.sin(angle)])
    ends = [(x - run[0], y - run[1]), (x + run[0], y + run[1])]
    drawn = mask([stroke(ends, 0.3)], Frame(0, 0, 32, 32))
    assert cv2.connectedComponents(drawn.astype(np.uint8), connectivity=8)[0] == 2
    rows, cols = np.nonzero(drawn)
    off = np.abs((cols + 0.5 - x) * run[1] - (rows + 0.5 - y) * run[0]) / 14
    assert off.max() <= np.sqrt(0.5) + 1e-9


def test_mask_and_darkening_do_not_depend_on_the_frame(streets: list[Street]) -> None:
    for street in streets:
        whole = Frame(100, 100, 300, 280)
        part = Frame(177, 231, 90, 101)
        inner = whole.slices(part)
        np.testing.assert_array_equal(true_mask([street], whole)[inner], true_mask([street], part))
        np.testing.assert_array_equal(
            darkening(street.cracks, whole)[inner], darkening(street.cracks, part)
        )


def test_the_image_has_no_step_where_two_frames_abut(city: City) -> None:
    for row, col in ((0, 1024), (0, 3 * 1024), (1024, 3 * 1024 + 200)):
        whole, valid = paint(city.drawn, Frame(row, col - 90, 400, 180))
        left, right = (paint(city.drawn, Frame(row, col + k, 400, 90)) for k in (-90, 0))
        joined = np.concatenate([left[0], right[0]], axis=1).astype(int)
        assert np.abs(joined - whole).max() <= 1
        np.testing.assert_array_equal(np.concatenate([left[1], right[1]], axis=1), valid)


@pytest.mark.parametrize("size", [96, 128])
def test_a_crack_window_shows_a_crack_and_a_road_window_none(
    size: int, streets: list[Street]
) -> None:
    config = WindowConfig(size=size)
    rng = np.random.default_rng(2)
    border = size // 16
    for street in streets:
        for _ in range(4):
            crack = draw_window(rng, config, True, street)
            assert crack.image.shape == (size, size, 3)
            core = crack.mask[border:-border, border:-border]
            assert core.sum() > 0.47 * size
            road = draw_window(rng, config, False, street)
            assert not road.mask.any()
            assert min(crack.image.min(), road.image.min()) > 0, "windows lie on the carriageway"
            margin = Frame(road.row, road.col, size, size).grow(border)
            if road.source == street.name:
                assert not true_mask([street], margin).any()


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"size": 1024}, "are 5.12 m, and these streets have place for less than 4 m; give a smal"),
        ({"size": 128, "gsd_m": 0.5}, "are 64 m"),
        ({"size": 0}, "size is 0 and gsd_m 0.005; give at least 1 pixel"),
        ({"gsd_m": -0.005}, "more than 0 meters"),
        ({"gsd_m": float("nan")}, "gsd_m nan"),
        ({"size": "64"}, "size is '64'"),
        ({"size": 64.5}, "size is 64.5"),
        ({"gsd_m": None}, "gsd_m None"),
    ],
)
def test_windows_for_which_no_street_has_a_place_are_refused(
    sizes: dict[str, float], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        WindowConfig(**sizes)  # type: ignore[arg-type]


def test_a_seed_in_the_place_of_a_generator_is_refused() -> None:
    for rng, config in ((0, WindowConfig(size=64)), (np.random.default_rng(0), None)):
        with pytest.raises(ConfigError, match="default_rng"):
            draw_window(rng, config, True)  # type: ignore[arg-type]


def test_drawing_a_window_ends_although_no_street_has_such_a_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(windows, "_STREETS", 2)
    monkeypatch.setattr(windows, "_ATTEMPTS", 1)
    config = WindowConfig(size=64, street_length_m=2, crack_pixels=1e9)
    with pytest.raises(ConfigError, match="none of 2 streets has place for a window with a crack"):
        draw_window(np.random.default_rng(0), config, True)


def test_cracks_are_darker_than_their_surroundings_but_some_are_faint() -> None:
    config, rng = WindowConfig(), np.random.default_rng(0)
    contrasts = []
    for _ in range(24):
        drawn = draw_window(rng, config, True)
        grey = drawn.image.mean(axis=2)
        contrasts.append(float(grey[~drawn.mask].mean() - grey[drawn.mask].mean()))
    assert np.mean(np.array(contrasts) > 8) > 0.7
    assert max(contrasts) > 2.5 * float(np.median(contrasts)) or min(contrasts) < 25


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others() -> None:
    config = WindowConfig()
    first, again, other = (
        draw_window(np.random.default_rng(seed), config, True) for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert not np.array_equal(first.image, other.image)
    tiles = [next(draw_city(SMALL, seed).tiles()) for seed in (4, 4, 5)]
    np.testing.assert_array_equal(tiles[0].image, tiles[1].image)
    assert not np.array_equal(tiles[0].image, tiles[2].image)


def test_city_has_24_abutting_tiles_that_are_no_full_rectangle(city: City) -> None:
    places = set(city.places)
    assert len(places) == len(city.places) >= 24
    rows, cols = city.shape
    assert len(places) * city.config.tile_px**2 < rows * cols
    for row, col in places:
        assert places & {(row + 1, col), (row - 1, col), (row, col + 1), (row, col - 1)}
    assert len(city.streets) == 3


def test_tiles_hold_ragged_nodata_and_the_truth_lies_on_valid_pixels() -> None:
    small = draw_city(SMALL, seed=2)
    assert len(small.places) == 3
    for tile in small.tiles():
        assert 0.5 < tile.valid.mean() < 0.99
        assert not tile.image[~tile.valid].any()
        assert tile.image[tile.valid].min() >= 1, "0 means no data"
        assert tile.mask.shape == tile.valid.shape
        assert not (tile.mask & ~tile.valid).any()
        frame = Frame(tile.row_off, tile.col_off, *tile.valid.shape)
        np.testing.assert_array_equal(tile.mask, small.mask(frame))
        np.testing.assert_array_equal(tile.valid, small.valid(frame))


def test_cracks_lie_inside_their_street_and_have_the_promised_widths(city: City) -> None:
    ids = {crack.crack_id for crack in city.cracks}
    assert ids == set(range(1, len(ids) + 1))
    assert {crack.kind for crack in city.cracks} == {
        "longitudinal",
        "transverse",
        "branching",
        "alligator",
    }
    for crack in city.cracks:
        width_m = crack.width_px * city.gsd_m
        assert width_m.min() >= 0.003 - 1e-9
        assert width_m.max() <= 0.025 + 1e-9
        assert len(crack.points_px) == len(crack.width_px) == len(crack.depth)
    for street in city.drawn:
        points = np.concatenate([crack.points_px for crack in street.cracks])
        for x, y in points[::97]:
            assert street.inside(Frame(int(y), int(x), 1, 1)).all()


def test_some_cracks_cross_tile_borders(city: City) -> None:
    crossing = {
        crack.crack_id
        for crack in city.cracks
        if len(np.unique(np.floor(crack.points_px / city.config.tile_px), axis=0)) > 1
    }
    assert len(crossing) >= 3


def test_no_crack_runs_through_a_manhole(city: City) -> None:
    covers = [cover for street in city.drawn for cover in street.furniture.covers]
    assert covers
    for street in city.drawn:
        for cover in street.furniture.covers:
            for crack in street.cracks:
                away = np.hypot(*(crack.points_px - cover.center_px).T) - crack.width_px / 2
                assert away.min() >= cover.radius_px


def test_objects_are_seen_but_not_in_the_truth(city: City) -> None:
    cover = next(c for s in city.drawn for c in s.furniture.covers if c.radius_px > 40)
    x, y = cover.center_px
    frame = Frame(int(y - 60), int(x - 60), 120, 120)
    assert not true_mask(city.drawn, Frame(int(y - 20), int(x - 20), 40, 40)).any()
    plain = [Street(s.name, s.axis, s.style, s.furniture, (), s.config) for s in city.drawn]
    assert not true_mask(plain, frame).any()


def test_a_tile_needs_no_memory_for_the_rest_of_the_city(city: City) -> None:
    tracemalloc.start()
    next(city.tiles())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 250e6, "one tile of 1 Mpx, not the canvas of 84 Mpx"
