"""Path-aware attention module (PAAM, paper 3.3): cracks are thin paths, so attend along lines.

Shape letters: B images, C channels, h w cells.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wpcrack.config import PaamConfig

DIRECTIONS_DEG = (0, 45, 90, 135)


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
        """(B, C, h, w) -> (B, 4, C, h, w): the response along 0, 45, 90, 135 degrees."""
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
        """(B, C, h, w) -> (B, C, h, w)."""
        y = x
        if self.config.spatial:
            along = self.direction(torch.relu(self.project(x))).amax(1)
            y = y * (2 * torch.sigmoid(self.spatial(along)))
        if self.config.channel:
            mean = x.mean((2, 3))
            gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(mean))))
            y = y * (2 * gate)[:, :, None, None]
        return x + y if self.config.residual else y


def line_masks(length: int) -> Tensor:
    """(4, L, L) masks of the lines through the center at 0, 45, 90, 135 degrees.

    >>> line_masks(3)[1].int().tolist()
    [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    """
    row, diagonal = torch.zeros(length, length), torch.eye(length)
    row[length // 2] = 1
    return torch.stack([row, diagonal.flip(1), row.T, diagonal])
