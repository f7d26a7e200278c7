"""Which windows teach most: the rule of the guess, and the order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wpcrack.data.build import label_windows
from wpcrack.inference.teaching import crack_probability, describe, teaching_order


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([16, 33, 64]), st.floats(0.05, 0.95))
def test_the_guess_is_the_largest_threshold_at_which_dataset_says_crack(seed, side, threshold):
    rng = np.random.default_rng(seed)
    probability = rng.random((side, side)) ** rng.uniform(1, 40)
    is_crack = len(label_windows(probability >= threshold, side).crack) > 0
    assert is_crack == (crack_probability(probability) >= threshold)


def drawn(rng, *, dark=0.0, angle=0):
    """A window of gray noise with a dark line."""
    image = rng.integers(110, 150, (64, 64, 3)).astype(np.uint8)
    image[30:34] = np.uint8(130 - 120 * dark)
    return np.rot90(image, angle).copy()


def test_windows_of_one_kind_do_not_fill_the_first_labels():
    """Ninety equal windows of road and ten of other kinds: the ten come early."""
    rng = np.random.default_rng(0)
    kinds = [drawn(rng, dark=k / 10, angle=k % 2) for k in range(1, 11)]
    images = [*(drawn(rng) for _ in range(90)), *kinds]
    described = np.stack([describe(image, np.zeros((64, 64))) for image in images])
    order = teaching_order(described, np.full(100, 0.5))
    assert sorted(order) == list(range(100))
    assert sum(index >= 90 for index in order[:20]) >= 6  # 2 at random


def test_of_every_two_windows_one_is_unsure_and_one_at_random():
    rng = np.random.default_rng(1)
    described = rng.random((400, 2, 11)).astype(np.float32)
    probability = rng.choice([0.02, 0.98, 0.5], 400, p=[0.6, 0.3, 0.1])
    order = teaching_order(described, probability)
    unsure = probability[order[:80]] == 0.5
    assert probability[order[0]] == 0.5
    assert unsure[::2].mean() > 0.5
    assert unsure[1::2].mean() < 0.25  # 0.1 are
    assert not np.array_equal(order, teaching_order(described, probability, seed=1))


def test_the_units_of_figures_do_not_count_and_one_odd_window_changes_little():
    rng = np.random.default_rng(2)
    described, probability = rng.random((50, 2, 11)), rng.random(50)
    scaled = described * rng.uniform(0.01, 100, (2, 11)) + 7
    order = teaching_order(described, probability)
    assert np.array_equal(order, teaching_order(scaled, probability))
    described[7] = 1e6
    first = set(order[:25]) & set(teaching_order(described, probability)[:25])
    assert len(first) >= 15


@pytest.mark.parametrize("count", [1, 2])
def test_few_windows_are_ordered_too(count):
    order = teaching_order(np.zeros((count, 2, 11), np.float32), np.full(count, 0.3))
    assert sorted(order) == list(range(count))


def test_many_windows_are_all_listed(monkeypatch):
    monkeypatch.setattr("wpcrack.inference.teaching.MOST_CHOSEN", 5)
    described = np.random.default_rng(3).random((30, 2, 11)).astype(np.float32)
    assert sorted(teaching_order(described, np.linspace(0, 1, 30))) == list(range(30))
