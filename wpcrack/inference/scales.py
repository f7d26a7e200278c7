"""What the networks see at several scales of an image, fused to one probability.

A crack is a line of 2 to some 15 pixels to the detector: finer or wider ones show at another scale.
The scales of a window are fused inside the window, so the lattice stays one.

Shape letters: B windows, S scales, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wpcrack.networks import Networks


class ScaledProbability(nn.Module):
    """Networks -> crack probability, fused over scales."""

    def __init__(
        self, networks: Networks, scales: Sequence[float] = (1.0,), power: float = 2.0
    ) -> None:
        """Wrap networks.

        Args:
            networks: Trained networks.
            scales: Sizes of the image that they look at: 1, 1/2, 1/4.
            power: Of the fusion, see `fuse`.
        """
        super().__init__()
        self.networks, self.scales, self.power = networks, tuple(scales), power

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 3, H, W) in [0, 1], sides multiples of 32 -> (B, 1, H, W) probability."""
        if self.scales == (1.0,):
            return torch.sigmoid(self.networks(image).float())
        return fuse(self.at_each_scale(image), self.power)

    def fused_steps(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the fusion of the first scale, of the first two, ..., (B, 1, H, W) each."""
        found = self.at_each_scale(image)
        return tuple(fuse(found[:, : count + 1], self.power) for count in range(len(self.scales)))

    def at_each_scale(self, image: Tensor) -> Tensor:
        """Return the probability at each scale, enlarged to the image, (B, S, H, W)."""
        found = []
        for scale in self.scales:
            step = round(1 / scale)
            small = F.avg_pool2d(image, step) if step > 1 else image
            probability = torch.sigmoid(self.networks(small).float())
            if step > 1:
                probability = F.interpolate(
                    probability, size=image.shape[-2:], mode="bilinear", align_corners=False
                )
            found.append(probability)
        return torch.cat(found, 1)


def fuse(probability: Tensor, power: float = 2.0) -> Tensor:
    """Return the power mean over the scales: (sum_s p_s^power / S)^(1 / power).

    Powers above 1 lie between the mean and the maximum: a scale that is sure is outvoted less than
    by the mean. A fusion that was learned on drawn windows trusted scale 1 alone, and was worse
    than the mean on photographs.

    Args:
        probability: (B, S, H, W) in [0, 1].
        power: 1: the mean; 2: the root of the mean square.

    Returns:
        (B, 1, H, W) in [0, 1].

    >>> fuse(torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 4, 1, 1)).item()
    0.5
    """
    if power == 2:
        return probability.square().mean(1, keepdim=True).sqrt()
    return probability.pow(power).mean(1, keepdim=True).pow(1 / power)
