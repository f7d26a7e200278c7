"""Fusion of scales: starts as their mean, learns whom to trust."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from wpcrack.training.fusion import (
    LOGIT_LIMIT,
    FusionConfig,
    ScaleFusion,
    ScaleSample,
    draw_scale_sample,
    fit_fusion,
    scale_logits,
)


class Brightness(nn.Module):
    """Stands for encoder and detector: dark is crack."""

    def forward(self, first: Tensor, *rest: object) -> Tensor:
        return first if not rest else 10 * (0.5 - first.mean(1, keepdim=True))


def test_an_untrained_fusion_is_the_mean_of_the_logits() -> None:
    logits = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(ScaleFusion(3, 4)(logits), logits.mean(1, keepdim=True))


def test_a_trained_fusion_follows_the_scale_that_is_right() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(8, 48, 48, generator=generator) < 0.3
    noise = torch.randn(8, 2, 48, 48, generator=generator)
    right = 4.0 * truth.float() - 2
    logits = torch.cat([right[:, None] + noise[:, :1] * 0.5, 4 * noise[:, 1:]], 1)
    config = FusionConfig(scales=(1.0, 0.5), steps=150, crop=48)
    fusion = fit_fusion(ScaleSample(logits.half(), truth), config)

    def errors(fused: Tensor) -> float:
        return float(((fused[:, 0] > 0) != truth).float().mean())

    assert errors(fusion(logits)) < 0.5 * errors(logits.mean(1, keepdim=True))


def test_every_scale_is_seen_and_enlarged_to_the_image() -> None:
    image = torch.rand(2, 3, 64, 32)
    found = scale_logits(Brightness(), Brightness(), image, (1.0, 0.5, 0.25))
    assert found.shape == (2, 3, 64, 32)
    wanted = 10 * (0.5 - image.mean(1))
    torch.testing.assert_close(found[:, 0], wanted.clamp(-LOGIT_LIMIT, LOGIT_LIMIT))
    blocks = wanted.view(2, 16, 4, 8, 4).mean((2, 4))
    torch.testing.assert_close(found[:, 2].mean((1, 2)), blocks.mean((1, 2)), atol=0.2, rtol=0)


def test_a_sample_is_drawn_from_its_seed() -> None:
    config = FusionConfig(windows=2, side=64)
    a, b = (draw_scale_sample(Brightness(), Brightness(), config) for _ in range(2))
    assert a.logits.shape == (2, 3, 64, 64)
    assert torch.equal(a.logits, b.logits)
    assert torch.equal(a.truth, b.truth)
    other = draw_scale_sample(Brightness(), Brightness(), config.model_copy(update={"seed": 5}))
    assert not torch.equal(a.logits, other.logits)


def test_the_same_sample_gives_the_same_fusion() -> None:
    config = FusionConfig(windows=2, side=64, steps=5, crop=32)
    sample = draw_scale_sample(Brightness(), Brightness(), config)
    a, b = (fit_fusion(sample, config).state_dict() for _ in range(2))
    for name in a:
        assert torch.equal(a[name], b[name]), name
    with pytest.raises(ValueError, match="scales"):
        FusionConfig(scales=(1.0,))
