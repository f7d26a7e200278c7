"""Detector: classifier semantics + reconstructor structure -> crack logits at full resolution.

Shape letters: B images, H W pixels, h w = H/8 W/8, D detector channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wpcrack.config import ModelConfig
from wpcrack.networks.attention import PathAttention
from wpcrack.networks.encoder import Features, ImageEncoder


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each pixel: depends on neither batch nor window."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        y: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y


class Mix(nn.Module):
    """3x3 convolution, per-pixel channel norm, ReLU."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = ChannelNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, width, h, w)."""
        return torch.relu(self.norm(self.conv(x)))


class Detector(nn.Module):
    """PAAM over fused features, then a pyramid down to stride 2 and logits per pixel."""

    def __init__(
        self, classifier: ImageEncoder, reconstructor: ImageEncoder, config: ModelConfig
    ) -> None:
        super().__init__()
        width = config.detector_channels
        c, r = classifier.channels, reconstructor.channels
        self.low_levels = tuple(sorted(config.paam.low_levels, reverse=True))
        self.semantic = nn.Conv2d(c["deep"] + c[8] + r["deep"], width, 1)
        self.paam = PathAttention(width, config.paam)
        self.top = Mix(width, width)
        self.lateral = nn.ModuleList(nn.Conv2d(r[s], width, 1) for s in self.low_levels)
        self.path = nn.ModuleList(PathAttention(width, config.paam) for _ in self.low_levels)
        self.smooth = nn.ModuleList(Mix(width, width) for _ in self.low_levels)
        self.logit = nn.Conv2d(width, 1, 3, padding=1)
        assert self.logit.bias is not None
        nn.init.constant_(self.logit.bias, -3.0)  # cracks are rare: start at 5 %

    def forward(self, classifier: Features, reconstructor: Features, size: Sequence[int]) -> Tensor:
        """(B, 1, H, W) crack logits of the features of both encoders; size = (H, W)."""
        logits = self.logit(self.pyramid(classifier, reconstructor))
        return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)

    def pyramid(self, classifier: Features, reconstructor: Features) -> Tensor:
        """(B, D, ...) attended and fused features at the finest of the low levels."""
        deep = torch.cat([classifier.deep, classifier.stride8, reconstructor.deep], 1)
        x: Tensor = self.top(self.paam(self.semantic(deep)))
        for stride, lateral, path, smooth in zip(
            self.low_levels, self.lateral, self.path, self.smooth, strict=True
        ):
            structure = lateral(reconstructor.at(stride))
            x = F.interpolate(x, size=structure.shape[-2:], mode="bilinear", align_corners=False)
            x = smooth(path(x + structure))
        return x
