""""""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wpcrack.config import CeccmConfig
from wpcrack.labels.pseudo_label import PseudoLabel
from wpcrack.training import losses

Array = NDArray[np.float64]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def tensor(x: Array) -> torch.Tensor:
    return torch.from_numpy(x)


def count(n: float) -> torch.Tensor:
    return torch.tensor(n, dtype=torch.float64)


def test_classification_is_the_mean_binary_cross_entropy(rng: np.random.Generator) -> None:
    logits, label = rng.normal(size=(4, 2)), np.eye(2)[[0, 1, 1, 0]]
    p = sigmoid(logits)
    want = -(label * np.log(p) + (1 - label) * np.log(1 - p)).mean()
    got = losses.classification(tensor(logits), tensor(label), count(4))
    assert got.item() == pytest.approx(want, rel=1e-9)


def test_masked_l1_is_the_mean_over_all_elements_of_crack_images(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, 3, 3, 6, 5))
    weight = rng.random((3, 1, 6, 5)) * (rng.random((3, 1, 6, 5)) < 0.3)
    shown = np.array([1.0, 0.0, 1.0])
    want = np.mean([abs(a[k] * weight[k] - b[k] * weight[k]).mean() for k in (0, 2)])
    got = losses.masked_l1(tensor(a), tensor(b), tensor(weight), tensor(shown), count(2))
    assert got.item() == pytest.approx(want, rel=1e-9)


def test_masked_l1_does_not_grow_when_the_mask_shrinks(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, 1, 3, 8, 8))
    whole, half = np.ones((1, 1, 8, 8)), np.ones((1, 1, 8, 8))
    half[..., 4:] = 0
    shown = np.ones(1)
    full, part = (
        losses.masked_l1(tensor(a), tensor(b), tensor(w), tensor(shown), count(1)).item()
        for w in (whole, half)
    )
    assert part == pytest.approx(abs(a - b)[..., :4].mean() / 2)  # not divided by the mask's area
    assert part < full


def test_masked_l1_of_a_region_does_not_depend_on_its_area(rng: np.random.Generator) -> None:
    a, b = np.zeros((3, 3, 32, 32)), np.full((3, 3, 32, 32), 0.5)
    weight = np.zeros((3, 1, 32, 32))
    weight[0, :, :8] = 1
    weight[1] = rng.random((1, 32, 32))
    weight[2, :, :4, :4] = 1  # a quarter of what counts fully
    shown = np.array([1.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])
    found = [
        losses.masked_l1(*(tensor(x) for x in (a, b, weight, s)), count(s.sum()), region=True)
        for s in shown
    ]
    assert [v.item() for v in found] == pytest.approx([0.5, 0.125], rel=1e-6)


@pytest.mark.parametrize("center", [True, False])
def test_cam_consistency_compares_centered_maps(rng: np.random.Generator, center: bool) -> None:
    a, b = rng.normal(size=(2, 2, 1, 6, 6))

    def enhanced(cam: Array) -> Array:
        m = (cam - cam.min()) / (cam.max() - cam.min())
        y, x = np.mgrid[0:1:6j, 0:1:6j]
        my, mx = (m * y).sum() / m.sum(), (m * x).sum() / m.sum()
        gauss = np.exp(-((x - mx) ** 2 + (y - my) ** 2) / (2 * 0.5**2))
        return np.asarray(m * gauss) if center else m

    want = abs(enhanced(a[1, 0]) - enhanced(b[1, 0])).mean()  # image 0 is road
    got = losses.cam_consistency(
        tensor(a),
        tensor(b),
        torch.tensor([0.0, 1.0]),
        count(1),
        CeccmConfig(sigma=0.5, center=center),
    )
    assert got.item() == pytest.approx(want, rel=1e-6)


def test_equal_cams_are_consistent() -> None:
    cam = torch.randn(2, 1, 5, 5)
    assert losses.cam_consistency(cam, cam, torch.ones(2), count(2), CeccmConfig()) == 0


@pytest.mark.parametrize("pos_weight", [1.0, 5.0])
def test_detection_is_cross_entropy_outside_the_ignored_band(
    rng: np.random.Generator, pos_weight: float
) -> None:
    z, t = rng.normal(size=(2, 1, 5, 4)), (rng.random((2, 1, 5, 4)) < 0.5).astype(float)
    w = (rng.random((2, 1, 5, 4)) < 0.6).astype(float)
    bce = -(pos_weight * t * np.log(sigmoid(z)) + (1 - t) * np.log(1 - sigmoid(z)))
    want = np.mean([bce[k][w[k] > 0].mean() for k in range(2)])
    label = PseudoLabel(tensor(t), tensor(w))
    got = losses.detection(tensor(z), label, count(2), pos_weight)
    assert got.item() == pytest.approx(want, rel=1e-9)


def test_ignored_pixels_have_no_gradient(rng: np.random.Generator) -> None:
    z = tensor(rng.normal(size=(1, 1, 4, 4))).requires_grad_()
    weight = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    weight[..., 2:] = 0
    label = PseudoLabel((torch.rand(1, 1, 4, 4) < 0.5).double(), weight)
    loss = losses.detection(z, label, count(1), 1.0) + losses.region(
        z, label, torch.ones(1), count(1)
    )
    loss.backward()
    assert z.grad is not None
    assert not z.grad[..., 2:].any()
    assert z.grad[..., :2].all()


def test_an_image_that_is_wholly_ignored_is_finite() -> None:
    z = torch.randn(1, 1, 4, 4, requires_grad=True)
    label = PseudoLabel(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    loss = losses.detection(z, label, count(1), 1.0)
    loss.backward()
    assert loss.item() == 0
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_region_is_the_soft_dice_loss_of_crack_images(rng: np.random.Generator) -> None:
    z, t = rng.normal(size=(3, 1, 5, 4)), (rng.random((3, 1, 5, 4)) < 0.4).astype(float)
    w = (rng.random((3, 1, 5, 4)) < 0.7).astype(float)

    def dice(k: int) -> float:
        p, truth = sigmoid(z[k]) * w[k], t[k] * w[k]
        return float(1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1))

    got = losses.region(
        tensor(z), PseudoLabel(tensor(t), tensor(w)), torch.tensor([1.0, 0.0, 1.0]), count(2)
    )
    assert got.item() == pytest.approx((dice(0) + dice(2)) / 2, rel=1e-9)


def test_a_false_alarm_is_told_by_the_surest_pixels_of_road_images(
    rng: np.random.Generator,
) -> None:
    z = rng.normal(size=(3, 1, 5, 4))
    shown = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)

    def alarm(k: int) -> float:
        surest = np.sort(z[k].ravel())[-2:].mean()  # a tenth of 20 pixels
        return float(-np.log(1 - sigmoid(surest)))

    got = losses.false_alarm(tensor(z), shown, count(2), 0.1)
    assert got.item() == pytest.approx((alarm(1) + alarm(2)) / 2, rel=1e-9)


def test_counts_make_shards_add_up_to_the_whole(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, 4, 3, 6, 5))
    weight, shown = rng.random((4, 1, 6, 5)), np.array([1.0, 0.0, 0.0, 0.0])
    whole = losses.masked_l1(tensor(a), tensor(b), tensor(weight), tensor(shown), count(1))
    shards = [
        losses.masked_l1(*(tensor(x[part]) for x in (a, b, weight, shown)), count(1 / 2))
        for part in (slice(0, 2), slice(2, 4))  # the second has no crack image
    ]
    assert torch.stack(shards).mean().item() == pytest.approx(whole.item(), rel=1e-12)
