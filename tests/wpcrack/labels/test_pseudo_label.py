"""Pseudo labels: each refiner by its formula, the order of refiners, and the two thresholds."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from wpcrack.label_config import DarknessConfig, ParConfig, PseudoLabelConfig
from wpcrack.labels.pseudo_label import (
    MIN_DEVIATION,
    box_mean,
    darkness,
    dilate,
    follow,
    gaussian_blur,
    guided_filter,
    pseudo_label,
    refine,
    refine_by_darkness,
)

BORDER = cv2.BORDER_REFLECT_101


def picture(height: int = 40, width: int = 56, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((1, 3, height, width), np.float32))


def cracked(side: int = 64) -> torch.Tensor:
    image = 0.5 + 0.03 * torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    image[..., 30:34, :] = 0.2
    return image.clamp(0, 1)


def test_darkness_is_counted_in_local_deviations() -> None:
    image, rule = picture(), DarknessConfig(blur_px=5, surround_px=21)
    gray = cv2.GaussianBlur(image[0].mean(0).numpy(), (5, 5), 1.0, borderType=BORDER)
    mean = cv2.blur(gray, (21, 21), borderType=BORDER)
    deviation = np.sqrt(cv2.blur(gray**2, (21, 21), borderType=BORDER) - mean**2)
    want = (mean - gray) / (deviation + MIN_DEVIATION)
    np.testing.assert_allclose(darkness(image, rule)[0, 0].numpy(), want, atol=1e-4)


def test_an_even_surface_has_no_darkness() -> None:
    assert darkness(torch.full((1, 3, 40, 40), 0.4), DarknessConfig()).abs().max() < 1e-3


def test_darkness_does_not_depend_on_contrast_above_the_noise() -> None:
    image = cracked()
    faint = 0.5 + (image - 0.5) * 0.5
    a, b = (
        darkness(x, DarknessConfig(surround_px=41))[..., 31:33, :].mean() for x in (image, faint)
    )
    assert a > 2
    assert b == pytest.approx(a.item(), rel=0.2)


def test_darkness_sharpens_a_broad_cam_to_the_dark_line() -> None:
    config = PseudoLabelConfig(refiners=("darkness",))
    label = pseudo_label(
        refine(cracked(), torch.full((1, 1, 64, 64), 0.9), config), torch.ones(1), config
    )
    line = torch.zeros(64, dtype=torch.bool)
    line[31:33] = True
    assert label.target[0, 0, line].all()
    assert not label.target[0, 0, :28].any()
    assert not label.target[0, 0, 36:].any()


def test_par_follows_its_formula() -> None:
    image, cam = picture(9, 11), picture(9, 11, seed=1)[:, :1]
    rule = ParConfig(iterations=2, dilations=(1, 3))
    shifts = [
        (d * dy, d * dx)
        for d in rule.dilations
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
        if (dy, dx) != (0, 0)
    ]
    x, m = image[0].numpy().astype(float), cam[0, 0].numpy().astype(float)
    distance = np.hypot(*np.array(shifts, float).T)
    position = np.exp(-((distance / distance.std(ddof=1) / 0.3) ** 2))
    position /= position.sum()
    for _ in range(rule.iterations):
        fresh = np.empty_like(m)
        for r, c in np.ndindex(*m.shape):
            at = [(min(max(r + dy, 0), 8), min(max(c + dx, 0), 10)) for dy, dx in shifts]
            around = np.array([x[:, i, j] for i, j in at])  # (N, 3)
            distances = abs(around - x[:, r, c]) / (around.std(0, ddof=1) + 1e-8)
            color = np.exp(-((distances / 0.3) ** 2).mean(1))
            weight = color / color.sum() + 0.01 * position
            fresh[r, c] = sum(
                w * m[i, j] for w, (i, j) in zip(weight / weight.sum(), at, strict=True)
            )
        m = fresh
    config = PseudoLabelConfig(refiners=("par",), par=rule)
    np.testing.assert_allclose(refine(image, cam, config)[0, 0].numpy(), m, atol=1e-4)


def test_par_keeps_a_constant_map() -> None:
    config = PseudoLabelConfig(refiners=("par",))
    got = refine(picture(32, 32), torch.full((1, 1, 32, 32), 0.7), config)
    torch.testing.assert_close(got, torch.full_like(got, 0.7))


@pytest.mark.parametrize("guide", ["gray", "color"])
def test_the_guided_filter_moves_the_edges_of_a_coarse_map_to_those_of_the_image(
    guide: str,
) -> None:
    image = cracked()
    coarse = torch.zeros(1, 1, 64, 64)
    coarse[..., 24:40, :] = 1  # two cells of a CAM; the crack is rows 30 to 33
    config = PseudoLabelConfig.model_validate(
        {"refiners": ["guided"], "guided": {"eps": 1e-3, "guide": guide}}
    )
    refined = refine(image, coarse, config)
    crack = torch.zeros(64, 64, dtype=torch.bool)
    crack[30:34] = True
    beside = (coarse[0, 0] > 0) & ~crack
    assert refined[0, 0][crack].mean() > refined[0, 0][beside].mean() + 0.15
    config = PseudoLabelConfig.model_validate({"refiners": ["guided"], "guided": {"eps": 1e3}})
    blind = refine(image, coarse, config)  # against such a penalty every image is flat
    assert blind[0, 0][crack].mean() < blind[0, 0][beside].mean() + 0.15


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 99),
    refiners=st.sampled_from([(), ("darkness",), ("par",), ("guided",), ("par", "darkness")]),
)
def test_a_refined_map_stays_between_0_and_1(seed: int, refiners: tuple[str, ...]) -> None:
    config = PseudoLabelConfig.model_validate({"refiners": refiners})
    got = refine(picture(32, 48, seed), picture(32, 48, seed + 1)[:, :1], config)
    assert got.shape == (1, 1, 32, 48)
    assert got.min() >= 0
    assert got.max() <= 1


@pytest.mark.parametrize("names", [("darkness", "par"), ("guided", "darkness"), ("par", "guided")])
def test_refiners_run_in_the_order_of_the_config(names: tuple[str, str]) -> None:
    image, cam = cracked(), torch.rand(1, 1, 64, 64)
    one, two = (PseudoLabelConfig.model_validate({"refiners": [r]}) for r in names)
    both = PseudoLabelConfig.model_validate({"refiners": names})
    assert torch.equal(refine(image, cam, both), refine(image, refine(image, cam, one), two))


def test_refining_treats_each_image_alone() -> None:
    config = PseudoLabelConfig(refiners=("darkness", "par", "guided"))
    images = torch.cat([picture(32, 32, s) for s in range(3)])
    cams = torch.cat([picture(32, 32, s + 9)[:, :1] for s in range(3)])
    alone = torch.cat([refine(images[k : k + 1], cams[k : k + 1], config) for k in range(3)])
    torch.testing.assert_close(refine(images, cams, config), alone)


def test_a_road_image_is_road_in_every_pixel_and_every_pixel_counts() -> None:
    label = pseudo_label(torch.rand(2, 1, 8, 8), torch.tensor([0.0, 0.0]), PseudoLabelConfig())
    assert not label.target.any()
    assert label.weight.all()


def test_between_the_two_thresholds_pixels_are_ignored() -> None:
    refined = torch.tensor([0.0, 0.19, 0.2, 0.49, 0.5, 1.0]).view(1, 1, 1, 6)
    config = PseudoLabelConfig(cam_crack=0.5, cam_road=0.2)
    label = pseudo_label(refined, torch.ones(1), config)
    assert label.target.flatten().tolist() == [0, 0, 0, 0, 1, 1]
    assert label.weight.flatten().tolist() == [1, 1, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"cam_crack": 0.3, "cam_road": 0.4}, "cam_road .* must not lie above cam_crack"),
        ({"darkness": {"zero": 1, "one": 1}}, "must lie above zero"),
        ({"darkness": {"blur_px": 4}}, "set an odd number such as 5"),
        ({"par": {"dilations": []}}, "at least 1 item"),
        ({"guided": {"radius_px": 0}}, "greater than or equal to 1"),
        ({"guided": {"eps": 0}}, "greater than 0"),
    ],
)
def test_rules_that_make_no_label_are_refused(values: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        PseudoLabelConfig.model_validate(values)


def band(width: int, gray: float, around: float = 0.6) -> torch.Tensor:
    """(1, 3, 128, 128) noisy road with a vertical band of another gray in the middle."""
    g = torch.Generator().manual_seed(0)
    image = around + 0.03 * torch.randn(1, 1, 128, 128, generator=g)
    left = 64 - width // 2
    image[..., left : left + width] += gray - around
    return image.clamp(0, 1).repeat(1, 3, 1, 1)


@pytest.mark.parametrize("beside", [True, False])
def test_a_wide_crack_is_dark_only_against_the_road_beside_it(beside: bool) -> None:
    cam = torch.zeros(1, 1, 128, 128)
    cam[..., 30:98] = 0.95
    rule = PseudoLabelConfig(darkness=DarknessConfig(beside=beside))
    found = refine(band(60, 0.3), cam, rule)[..., 34:94] >= rule.cam_crack
    assert (found.float().mean() > 0.99) == beside


def test_the_shoulder_of_a_deep_crack_is_road_and_the_same_gray_alone_is_crack() -> None:
    cam = torch.full((1, 1, 128, 128), 0.0)
    cam[..., 48:80] = 1.0
    deep = band(16, 0.48)
    deep[..., 61:67] -= 0.4
    rule = PseudoLabelConfig()
    shoulder = (slice(None), slice(None), slice(None), slice(68, 70))
    assert (refine(deep, cam, rule)[shoulder] < rule.cam_crack).float().mean() > 0.95
    assert (refine(band(16, 0.48), cam, rule)[shoulder] >= rule.cam_crack).float().mean() > 0.95


# -- hysteresis ----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_following_spreads_the_seed_one_pixel_at_a_time_below_the_path(
    seed: int, reach: int
) -> None:
    rng = np.random.default_rng(seed)
    marker, path = (rng.random((9, 7)).astype(np.float32) for _ in range(2))
    grown = np.minimum(marker, path)
    for _ in range(reach):
        padded = np.pad(grown, 1)
        around = [padded[r : r + 9, c : c + 7] for r in range(3) for c in range(3)]
        grown = np.minimum(np.max(around, 0), path)
    got = follow(*(torch.from_numpy(x)[None, None] for x in (marker, path)), reach)
    assert np.array_equal(got[0, 0].numpy(), np.maximum(marker, grown))


def test_a_crack_is_followed_where_the_cam_is_weak_and_no_further_than_the_cam_goes() -> None:
    image = torch.full((1, 3, 64, 128), 0.6)
    image += 0.02 * torch.from_numpy(np.random.default_rng(0).standard_normal((64, 128))).float()
    image[..., 30:34, :] = 0.2  # a crack across the image
    cam = torch.full((1, 1, 64, 128), 0.05)
    cam[..., 20:44, :40] = 0.9  # seen
    cam[..., 20:44, 40:90] = 0.3  # half seen
    config = PseudoLabelConfig()
    label = refine_by_darkness(image, cam, config) >= config.cam_crack
    assert label[..., 31:33, :90].all()
    assert not label[..., 92:].any()
    assert not label[..., :28, :].any()
    alone = PseudoLabelConfig(darkness=DarknessConfig(follow_px=0))
    unfollowed = refine_by_darkness(image, cam, alone) >= alone.cam_crack
    assert unfollowed[..., 31:33, :40].all()
    assert not unfollowed[..., 42:].any()


# -- filters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 3, 5, 21, 33])
def test_dilating_takes_the_maximum_around_each_pixel(side: int) -> None:
    x = torch.rand(2, 1, 24, 31)
    assert torch.equal(dilate(x, side), F.max_pool2d(x, side, 1, side // 2))


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
