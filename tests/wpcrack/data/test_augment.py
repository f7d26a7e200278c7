"""Random changes of a sample: each stays within its limit and strikes as often as it should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wpcrack.config import AugmentConfig, EraseConfig
from wpcrack.data.augment import as_planes, erase_grid, recolor, reorient, texture

STILL = AugmentConfig(flip=False, brightness=0, contrast=0, color=0, fade=0, blur_px=0, grain=0)


def image(height: int = 8, width: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def augment(
    source: NDArray[np.uint8], rng: np.random.Generator, config: AugmentConfig
) -> NDArray[np.float32]:
    return recolor(reorient(source, rng, config), rng, config)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), height=st.integers(2, 9), width=st.integers(2, 9))
def test_a_changed_image_is_an_image_of_the_same_size(seed: int, height: int, width: int) -> None:
    got = augment(image(height, width), np.random.default_rng(seed), AugmentConfig())
    assert got.shape == (3, height, width)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    assert got.min() >= 0
    assert got.max() <= 1


def test_the_generator_alone_decides_the_change() -> None:
    a, b, c = (augment(image(), np.random.default_rng(s), AugmentConfig()) for s in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_without_changes_the_image_stays() -> None:
    got = augment(image(), np.random.default_rng(0), STILL)
    np.testing.assert_allclose(got, as_planes(image()), atol=1e-6)


def test_planes_scale_255_to_1_and_put_channels_first() -> None:
    got = as_planes(image(4, 6))
    np.testing.assert_allclose(got[1, 2, 3], image(4, 6)[2, 3, 1] / 255, rtol=1e-6)


@pytest.mark.parametrize(("width", "views"), [(8, 8), (6, 4)])
def test_all_flips_and_for_squares_transposes_occur(width: int, views: int) -> None:
    config = STILL.model_copy(update={"flip": True})
    source = image(8, width)
    seen = {augment(source, np.random.default_rng(seed), config).tobytes() for seed in range(100)}
    assert len(seen) == views
    values = np.sort(as_planes(source).reshape(3, -1))
    got = augment(source, np.random.default_rng(3), config)
    np.testing.assert_allclose(np.sort(got.reshape(3, -1)), values, atol=1e-6)


def test_changes_of_brightness_stay_within_their_limit() -> None:
    config = STILL.model_copy(update={"brightness": 0.25})
    gray = np.full((4, 4, 3), 100, np.uint8)
    means = [augment(gray, np.random.default_rng(s), config).mean() * 255 for s in range(200)]
    assert 75 <= min(means) < 80
    assert 120 < max(means) <= 125


def test_fading_brings_every_pixel_closer_to_the_mean_in_half_of_the_samples() -> None:
    config = STILL.model_copy(update={"fade": 0.5})
    source = image(16, 16)
    spread = as_planes(source).std()
    kept = [augment(source, np.random.default_rng(s), config).std() / spread for s in range(200)]
    assert 0.5 <= min(kept) < 0.55
    assert 0.4 < np.mean(np.isclose(kept, 1)) < 0.6


def test_blur_smooths_and_grain_roughens_an_even_surface_alone() -> None:
    even = np.full((32, 32, 3), 128, np.uint8)
    edge = even.copy()
    edge[:, :16] = 0
    blurred = STILL.model_copy(update={"blur_px": 2.0})
    steps = [
        np.abs(np.diff(augment(edge, np.random.default_rng(s), blurred))).max() for s in range(50)
    ]
    assert min(steps) < 0.2
    assert max(steps) == pytest.approx(128 / 255, abs=1e-6)
    grainy = STILL.model_copy(update={"grain": 0.1})
    rough = [augment(even, np.random.default_rng(s), grainy).std() for s in range(100)]
    assert 0.08 < max(rough) <= 0.1
    assert 0.4 < np.mean(np.array(rough) == 0) < 0.6


def test_texture_has_mean_0_and_deviation_1() -> None:
    got = texture(np.random.default_rng(0), (40, 30))
    assert got.mean() == pytest.approx(0, abs=1e-5)
    assert got.std() == pytest.approx(1, abs=1e-5)


def test_zoom_keeps_the_size() -> None:
    config = STILL.model_copy(update={"zoom": (1.5, 2.0)})
    assert augment(image(8, 6), np.random.default_rng(0), config).shape == (3, 8, 6)


@pytest.mark.parametrize(("epoch", "share"), [(0, 0.2), (20, 0.4), (40, 0.6), (500, 0.6)])
def test_the_erased_share_grows_to_its_limit(epoch: int, share: float) -> None:
    config = EraseConfig(grid=64, start=0.2, growth=0.01, limit=0.6)
    got = erase_grid((64, 64), epoch, np.random.default_rng(0), config)
    assert got.mean() == pytest.approx(share, abs=0.03)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(16, 80), width=st.integers(16, 80))
def test_erased_cells_are_whole_cells_of_the_grid(height: int, width: int) -> None:
    config = EraseConfig(grid=4, start=0.5)
    got = erase_grid((height, width), 0, np.random.default_rng(1), config)
    assert got.shape == (1, height, width)
    assert set(np.unique(got)) <= {0.0, 1.0}
    edges = [np.flatnonzero(np.diff(got[0], axis=axis).any(axis=1 - axis)) + 1 for axis in (0, 1)]
    for axis, side in enumerate((height, width)):
        lines = {-(-k * side // 4) for k in range(1, 4)}
        assert set(edges[axis]) <= lines
