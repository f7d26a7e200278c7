"""The paper's reconstruction decoder: a U-Net from the masked feature canvas to the image.

Tensor names are those of the authors' checkpoint (`genUnet`). Shape letters: B images, C channels
of the canvas, H W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.2
DROPOUT = 0.5
WIDE_FROM = 3
"""Downs from this one on, and as many ups less one, drop values (512 channels in the paper)."""


class ReleasedDown(nn.Module):
    """Conv4x4 stride 2, InstanceNorm without affine, LeakyReLU, dropout: halves both sides."""

    def __init__(self, channels: int, width: int, *, norm: bool, drop: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1, bias=False)]
        layers += [nn.InstanceNorm2d(width)] if norm else []
        layers += [nn.LeakyReLU(LEAK)]
        layers += [nn.Dropout(DROPOUT)] if drop else []
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, width, H/2, W/2)."""
        y: Tensor = self.model(x)
        return y


class ReleasedUp(nn.Module):
    """ConvTranspose4x4 stride 2, InstanceNorm, ReLU, dropout, then [up, skip]."""

    def __init__(self, channels: int, width: int, *, drop: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(channels, width, 4, 2, 1, bias=False),
            nn.InstanceNorm2d(width),
            nn.ReLU(),
        ]
        layers += [nn.Dropout(DROPOUT)] if drop else []
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map (B, C, h/2, w/2) and the skip (B, S, h, w) to (B, width + S, h, w)."""
        return torch.cat([self.model(x), skip], 1)


class ReleasedDecoder(nn.Module):
    """As many downs as widths (the paper: 64 128 256 512 512 512 512 512), one up less, paint.

    A canvas whose sides are no multiples of 2^downs is continued by its edge, and the painting is
    cut back; the paper's 256 x 256 needs neither.
    """

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.count = len(widths)
        ins = (channels, *widths[:-1])
        for k, (i, o) in enumerate(zip(ins, widths, strict=True)):
            down = ReleasedDown(i, o, norm=0 < k < self.count - 1, drop=k >= WIDE_FROM)
            self.add_module(f"down{k + 1}", down)
        current = widths[-1]
        for k, width in enumerate(reversed(widths[:-1])):
            drop = k < self.count - 1 - WIDE_FROM
            self.add_module(f"up{k + 1}", ReleasedUp(current, width, drop=drop))
            current = 2 * width
        self.final = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(current, 3, 3, padding=1))

    def forward(self, canvas: Tensor, size: tuple[int, int]) -> Tensor:
        """Paint (B, 3, H, W), in the encoder's normalized units, from (B, C, H/s, W/s)."""
        height, width = canvas.shape[-2:]
        whole = 2**self.count
        x = F.pad(canvas, (0, -width % whole, 0, -height % whole), mode="replicate")
        skips = []
        for k in range(self.count):
            x = self.get_submodule(f"down{k + 1}")(x)
            skips.append(x)
        for k, skip in enumerate(reversed(skips[:-1])):
            x = self.get_submodule(f"up{k + 1}")(x, skip)
        image: Tensor = self.final(x)[..., :height, :width]
        if (height, width) == tuple(size):
            return image
        return F.interpolate(image, size=size, mode="bilinear", align_corners=False)
