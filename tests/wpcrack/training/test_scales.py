"""Fusion of scales: between mean and maximum, and every scale is seen."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from wpcrack.training.scales import fuse_scales, scale_probabilities


class Brightness(nn.Module):
    """Stands for encoder and detector: dark is crack."""

    def forward(self, first: Tensor, *rest: object) -> Tensor:
        return first if not rest else 4 * (0.5 - first.mean(1, keepdim=True))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5))
def test_the_fusion_lies_between_the_mean_and_the_largest(values: list[float]) -> None:
    fused = float(fuse_scales(torch.tensor(values).view(1, -1, 1, 1)))
    assert sum(values) / len(values) - 1e-5 <= fused <= max(values) + 1e-5


def test_scales_that_agree_are_left_alone() -> None:
    probability = torch.rand(2, 1, 8, 8).expand(2, 3, 8, 8)
    torch.testing.assert_close(fuse_scales(probability), probability[:, :1])


def test_every_scale_is_seen_and_enlarged_to_the_image() -> None:
    image = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    found = scale_probabilities(Brightness(), Brightness(), image, (1.0, 0.5, 0.25))
    assert found.shape == (2, 3, 64, 32)
    dark = 4 * (0.5 - image.mean(1))
    torch.testing.assert_close(found[:, 0], torch.sigmoid(dark))
    blocks = torch.sigmoid(dark.view(2, 16, 4, 8, 4).mean((2, 4)))
    torch.testing.assert_close(found[:, 2].mean((1, 2)), blocks.mean((1, 2)), atol=0.02, rtol=0)
