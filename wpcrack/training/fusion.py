"""Fuse what the detector sees at several scales: a small network, trained on drawn pavement.

The mean of the scales blurs what one of them sees well: fine cracks vanish at 1/4, wide ones are
outlined at 1. Three small convolutions look at the logits of all scales around each pixel and
correct their mean. They start as exactly the mean.

Shape letters: N windows, S scales, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from wpcrack.config import Block, Count, Positive
from wpcrack.synthetic.pavement import PavementConfig, draw_pavement
from wpcrack.training.drawn import crack_logits

LOGIT_LIMIT = 8.0
"""Logits are cut at this size: beyond it a scale is only sure, not surer."""


class FusionConfig(Block):
    """How the fusion is trained."""

    scales: Annotated[tuple[Positive, ...], Field(min_length=2)] = (1.0, 0.5, 0.25)
    """Sizes of the image that the detector sees."""
    channels: Count = 8
    """Width of the hidden layers."""
    windows: Count = 160
    """Drawn windows."""
    side: Annotated[int, Field(ge=64, multiple_of=32)] = 384
    """Of a window, in pixels; the smallest scale needs context, too."""
    steps: Count = 300
    """Updates."""
    batch: Count = 4
    """Crops of an update."""
    crop: Annotated[int, Field(ge=32)] = 192
    """Side of a crop in pixels."""
    learning_rate: Positive = 5e-3
    """At the start; it falls along a cosine to 0."""
    seed: Annotated[int, Field(ge=0)] = 1_000_003
    """Of windows and crops; another one than the detector's."""


class ScaleFusion(nn.Module):
    """Logits of several scales -> one logit per pixel: their mean and a learned correction."""

    def __init__(self, scales: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(scales, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=2, dilation=2)
        self.last = nn.Conv2d(channels, 1, 1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, logits: Tensor) -> Tensor:
        """(N, S, H, W) -> (N, 1, H, W)."""
        x = logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        mean = x.mean(1, keepdim=True)
        hidden = F.relu(self.first(x / LOGIT_LIMIT))
        correction: Tensor = self.last(F.relu(self.second(hidden)))
        return mean + LOGIT_LIMIT * correction


@dataclass(frozen=True)
class ScaleSample:
    """What the detector says about drawn windows at each scale, and the truth.

    Attributes:
        logits: (N, S, H, W) float16, every scale enlarged to the window.
        truth: (N, H, W) bool.
    """

    logits: Tensor
    truth: Tensor


@torch.no_grad()
def scale_logits(
    encoder: nn.Module, detector: nn.Module, image: Tensor, scales: Sequence[float]
) -> Tensor:
    """Logits of images (N, 3, H, W) in [0, 1] at each scale, enlarged to the image, (N, S, H, W).

    Sides must be multiples of 8 at every scale.
    """
    size = image.shape[-2:]
    found = []
    for scale in scales:
        small = image
        if scale != 1:
            wanted = [round(side * scale) for side in size]
            small = F.interpolate(image, size=wanted, mode="area" if scale < 1 else "bilinear")
        logits = crack_logits(encoder, detector, small)
        found.append(F.interpolate(logits, size=size, mode="bilinear", align_corners=False))
    return torch.cat(found, 1).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)


def draw_scale_sample(encoder: nn.Module, detector: nn.Module, config: FusionConfig) -> ScaleSample:
    """Draw windows and look at them at each scale."""
    pavement = PavementConfig(size=config.side)
    logits, truth = [], []
    for k in range(config.windows):
        drawn = draw_pavement(np.random.SeedSequence([config.seed, k]), pavement)
        image = torch.from_numpy(drawn.image).permute(2, 0, 1)[None].float() / 255
        logits.append(scale_logits(encoder, detector, image, config.scales)[0].half())
        truth.append(torch.from_numpy(drawn.mask))
    return ScaleSample(torch.stack(logits), torch.stack(truth))


def fit_fusion(sample: ScaleSample, config: FusionConfig) -> ScaleFusion:
    """Train the fusion on what the scales said: cross-entropy and soft Dice."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    fusion = ScaleFusion(sample.logits.shape[1], config.channels)
    optimizer = torch.optim.Adam(fusion.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    for _ in range(config.steps):
        logits, truth = _crops(sample, rng, config)
        fused = fusion(logits)
        probability = torch.sigmoid(fused)
        overlap = 2 * (probability * truth).sum() + 1
        dice = 1 - overlap / (probability.sum() + truth.sum() + 1)
        loss = F.binary_cross_entropy_with_logits(fused, truth) + 0.5 * dice
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return fusion.eval().requires_grad_(False)


def _crops(
    sample: ScaleSample, rng: np.random.Generator, config: FusionConfig
) -> tuple[Tensor, Tensor]:
    """Random squares of random windows: logits (B, S, h, w) and truth (B, 1, h, w)."""
    count, _, height, width = sample.logits.shape
    side = min(config.crop, height, width)
    logits, truth = [], []
    for k in rng.integers(count, size=config.batch).tolist():
        row, col = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        part = slice(row, row + side), slice(col, col + side)
        logits.append(sample.logits[(k, slice(None), *part)])
        truth.append(sample.truth[(k, *part)])
    return torch.stack(logits).float(), torch.stack(truth)[:, None].float()
