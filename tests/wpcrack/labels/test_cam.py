"""Class activation maps: normalization, upsampling and center enhancement by their formulas."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wpcrack.labels.cam import (
    MAXNORM_EPSILON,
    crack_map,
    enhance_center,
    label_map,
    max_normalize,
    min_max_normalize,
    upsample,
)

logits = hnp.arrays(
    np.float32,
    st.tuples(st.just(2), st.just(2), st.integers(1, 6), st.integers(1, 6)),
    elements=st.floats(-50, 50, width=32),
)


@given(cam=logits, how=st.sampled_from(["sigmoid", "max"]))
def test_a_crack_map_lies_between_0_and_1(cam: np.ndarray, how: str) -> None:
    got = crack_map(torch.from_numpy(cam), (24, 40), how)
    assert got.shape == (2, 1, 24, 40)
    assert got.min() >= 0
    assert got.max() <= 1


@given(cam=logits)
def test_maxnorm_follows_its_formula(cam: np.ndarray) -> None:
    got = max_normalize(torch.from_numpy(cam)).numpy()
    for b, k in np.ndindex(2, 2):
        a = np.maximum(cam[b, k], 0)
        e = MAXNORM_EPSILON
        want = np.maximum(a - a.min() - e, 0) / (a.max() - a.min() + e)
        np.testing.assert_allclose(got[b, k], want, atol=1e-6)


def test_a_cam_without_a_positive_logit_shows_nothing() -> None:
    assert not max_normalize(-torch.rand(2, 2, 4, 4)).any()


def test_the_crack_map_reads_the_crack_channel_only() -> None:
    cam = torch.full((1, 2, 3, 3), -30.0)
    cam[:, 0] = 30.0  # road
    assert crack_map(cam, (24, 24), "sigmoid").max() < 1e-6
    assert crack_map(cam.flip(1), (24, 24), "sigmoid").min() > 1 - 1e-6


def test_the_papers_label_map_is_enlarged_before_it_is_normalized() -> None:
    cam = np.random.default_rng(4).normal(size=(1, 2, 6, 7)).astype(np.float32)
    large = np.maximum(cv2.resize(cam[0, 1], (56, 48), interpolation=cv2.INTER_LINEAR), 0)
    want = (large - large.min()) / (large.max() - large.min())
    got = label_map(torch.from_numpy(cam), (48, 56), "max")[0, 0].numpy()
    np.testing.assert_allclose(got, want, atol=1e-4)
    tensor = torch.from_numpy(cam)
    same = label_map(tensor, (48, 56), "sigmoid"), crack_map(tensor, (48, 56), "sigmoid")
    assert torch.equal(*same)


def test_upsampling_is_opencvs_bilinear() -> None:
    small = np.random.default_rng(0).random((5, 7), np.float32)
    want = cv2.resize(small, (56, 40), interpolation=cv2.INTER_LINEAR)
    got = upsample(torch.from_numpy(small)[None, None], (40, 56))[0, 0].numpy()
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.2, 0.5])
def test_center_enhancement_weighs_by_a_gaussian_around_the_center_of_mass(sigma: float) -> None:
    m = 0.01 * np.random.default_rng(1).random((5, 8)).astype(np.float32)
    y, x = np.mgrid[0:1:5j, 0:1:8j]
    my, mx = (m * y).sum() / m.sum(), (m * x).sum() / m.sum()
    want = m * np.exp(-((x - mx) ** 2 + (y - my) ** 2) / (2 * sigma**2))
    got = enhance_center(torch.from_numpy(m)[None, None], sigma)[0, 0].numpy()
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_an_empty_map_does_not_switch_center_enhancement_off_for_others() -> None:
    maps = torch.zeros(2, 1, 9, 9)
    maps[1, 0, 4, :] = 1
    got = enhance_center(maps, 0.2)
    assert not got[0].any()
    assert got[1, 0, 4, 4] == pytest.approx(1)
    assert got[1, 0, 4, 0] < 0.1


def test_min_max_normalization_spans_0_to_1_and_flattens_constants() -> None:
    maps = 0.1 * torch.randn(2, 3, 4, 5)
    maps[0, 0] = 7
    got = min_max_normalize(maps)
    assert not got[0, 0].any()
    assert torch.equal(got[1].amin((1, 2)), torch.zeros(3))
    assert torch.allclose(got[1].amax((1, 2)), torch.ones(3))
