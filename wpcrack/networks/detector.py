"""Detector: classifier semantics + reconstructor structure -> crack logits at full resolution.

Its path-aware attention (PAAM, paper 3.3): cracks are thin paths, so attend along lines.

Shape letters: B images, H W pixels, h w = H/8 W/8, C channels, D detector channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wpcrack.config import ModelConfig, PaamConfig
from wpcrack.networks.encoder import Features, ImageEncoder

DIRECTIONS_DEG = (0, 45, 90, 135)


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
        """Compute (B, 1, H, W) crack logits of both encoders' features; size = (H, W)."""
        logits = self.logit(self.pyramid(classifier, reconstructor))
        return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)

    def pyramid(self, classifier: Features, reconstructor: Features) -> Tensor:
        """Fuse and attend to features: (B, D, ...) at the finest of the low levels."""
        deep = torch.cat([classifier.deep, classifier.stride8, reconstructor.deep], 1)
        x: Tensor = self.top(self.paam(self.semantic(deep)))
        for stride, lateral, path, smooth in zip(
            self.low_levels, self.lateral, self.path, self.smooth, strict=True
        ):
            structure = lateral(reconstructor.at(stride))
            x = F.interpolate(x, size=structure.shape[-2:], mode="bilinear", align_corners=False)
            x = smooth(path(x + structure))
        return x


class DirectionalConv(nn.Module):
    """Depthwise line filters in four true directions, any input size.

    The released code initializes two of four kernels to [-1, 0, 1] and makes the diagonal ones
    plain 2x2; here each kernel is masked to its line, and starts at random along it.
    """

    mask: Tensor

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        self.length = length + (length + 1) % 2  # odd
        self.weight = nn.Parameter(torch.empty(4, channels, self.length, self.length))
        self.register_buffer("mask", line_masks(self.length), persistent=False)
        nn.init.normal_(self.weight, std=1 / math.sqrt(self.length))

    def forward(self, x: Tensor) -> Tensor:
        """Respond to lines: (B, C, h, w) -> (B, 4, C, h, w), along 0, 45, 90, 135 degrees."""
        b, c, h, w = x.shape
        kernel = (
            (self.weight * self.mask[:, None])
            .transpose(0, 1)
            .reshape(4 * c, 1, *self.mask.shape[1:])
        )
        y = nn.functional.conv2d(x, kernel, padding=self.length // 2, groups=c)
        return y.view(b, c, 4, h, w).transpose(1, 2)


class PathAttention(nn.Module):
    """Spatial attention from the strongest directional response, channel attention from the mean.

    y = x * s(x) * c(x) (+ x if residual), both maps in (0, 2) around 1, so that neither saturates
    however many channels are summed (the released sum over 2048 channels does).
    """

    def __init__(self, channels: int, config: PaamConfig) -> None:
        super().__init__()
        self.config = config
        squeezed = max(4, channels // config.reduction)
        if config.spatial:
            self.project = nn.Conv2d(channels, squeezed, 1)
            self.direction = DirectionalConv(squeezed, config.kernel_length)
            self.spatial = nn.Conv2d(squeezed, 1, 1)
        if config.channel:
            self.squeeze = nn.Linear(channels, squeezed)
            self.excite = nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        y = x
        if self.config.spatial:
            along = self.direction(torch.relu(self.project(x))).amax(1)
            y = y * (2 * torch.sigmoid(self.spatial(along)))
        if self.config.channel:
            mean = x.mean((2, 3))
            gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(mean))))
            y = y * (2 * gate)[:, :, None, None]
        return x + y if self.config.residual else y


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each pixel: depends on neither batch nor window."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        y: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y


class Mix(nn.Module):
    """3x3 convolution, per-pixel channel norm, ReLU."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = ChannelNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, width, h, w)."""
        return torch.relu(self.norm(self.conv(x)))


def line_masks(length: int) -> Tensor:
    """Draw (4, L, L) masks of the lines through the center at 0, 45, 90, 135 degrees.

    >>> line_masks(3)[1].int().tolist()
    [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    """
    row, diagonal = torch.zeros(length, length), torch.eye(length)
    row[length // 2] = 1
    return torch.stack([row, diagonal.flip(1), row.T, diagonal])
