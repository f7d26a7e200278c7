""""""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wpcrack.labels.refiners import box_mean, gaussian_blur, guided_filter

BORDER = cv2.BORDER_REFLECT_101


def picture(height: int = 40, width: int = 56, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((1, 3, height, width), np.float32))


@pytest.mark.parametrize("side", [1, 3, 11, 31])
def test_box_mean_is_opencvs_blur(side: int) -> None:
    x = picture()[:, :1]
    want = cv2.blur(x[0, 0].numpy(), (side, side), borderType=BORDER)
    np.testing.assert_allclose(box_mean(x, side)[0, 0].numpy(), want, atol=1e-6)


def test_a_box_larger_than_the_image_is_cut_to_it() -> None:
    x = picture(20, 9)[:, :1]
    want = cv2.blur(x[0, 0].numpy(), (2 * 8 + 1, 2 * 19 + 1), borderType=BORDER)
    np.testing.assert_allclose(box_mean(x, 101)[0, 0].numpy(), want, atol=1e-6)


@pytest.mark.parametrize("side", [1, 3, 5, 9])
def test_gaussian_blur_is_opencvs(side: int) -> None:
    x = picture()[:, :1]
    want = cv2.GaussianBlur(x[0, 0].numpy(), (side, side), side / 5, borderType=BORDER)
    np.testing.assert_allclose(gaussian_blur(x, side)[0, 0].numpy(), want, atol=1e-6)


def guided_reference(
    guide: NDArray[np.float64], x: NDArray[np.float64], side: int, eps: float
) -> NDArray[np.float64]:
    def mean(v: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([cv2.blur(c, (side, side), borderType=BORDER) for c in v])

    pairs = np.stack(
        [mean(guide[i] * guide) - mean(guide)[i] * mean(guide) for i in range(len(guide))]
    )
    cov = mean(guide * x) - mean(guide) * mean(x[None])
    a = np.einsum(
        "hwij,jhw->ihw", np.linalg.inv(pairs.transpose(2, 3, 0, 1) + eps * np.eye(len(guide))), cov
    )
    b = mean(x[None]) - (a * mean(guide)).sum(0)
    return (mean(a) * guide).sum(0) + mean(b)[0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "eps"), [(3, 1e-2), (9, 1e-4), (17, 1e-1)])
def test_the_guided_filter_is_that_of_the_paper(channels: int, side: int, eps: float) -> None:
    guide, x = picture()[:, :channels], picture(seed=1)[:, :1]
    want = guided_reference(guide[0].double().numpy(), x[0, 0].double().numpy(), side, eps)
    got = guided_filter(guide, x, side, eps)[0, 0].numpy()
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert np.ptp(want) > 0.02


@pytest.mark.parametrize("channels", [1, 3])
def test_a_map_that_is_linear_in_its_guide_passes_the_guided_filter(channels: int) -> None:
    guide = picture()[:, :channels]
    x = 0.3 * guide.sum(1, keepdim=True) + 0.1
    torch.testing.assert_close(guided_filter(guide, x, 9, 1e-7), x, atol=1e-3, rtol=0)


def test_under_a_flat_guide_the_guided_filter_is_a_box_mean_of_a_box_mean() -> None:
    guide, x = torch.full((1, 3, 40, 56), 0.5), picture()[:, :1]
    got = guided_filter(guide, x, 9, 1e-4)
    torch.testing.assert_close(got, box_mean(box_mean(x, 9), 9), atol=1e-5, rtol=0)
