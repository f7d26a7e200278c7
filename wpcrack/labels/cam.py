"""Class activation maps: normalization and center enhancement. Pure functions on tensors.

Shape letters: B images, K classes, H W pixels, h w cells.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

MAXNORM_EPSILON = 1e-5


def max_normalize(cam: Tensor) -> Tensor:
    """Scale CAM logits to [0, 1] by the paper's maxnorm, per image and class.

    maxnorm(A) = ReLU(A+ - min A+ - e) / (max A+ - min A+ + e), A+ = ReLU(A).

    Args:
        cam: (B, K, h, w) CAM logits.

    Returns:
        (B, K, h, w) in [0, 1]: per image and class, the strongest cell close to 1; a map without
        any positive logit is 0 everywhere.
    """
    positive = torch.relu(cam)
    low = positive.amin((2, 3), keepdim=True)
    high = positive.amax((2, 3), keepdim=True)
    return torch.relu(positive - low - MAXNORM_EPSILON) / (high - low + MAXNORM_EPSILON)


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps bilinearly to (H, W), without aligning corners (paper)."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def crack_map(cam: Tensor, size: tuple[int, int], how: Literal["sigmoid", "max"]) -> Tensor:
    """Turn the crack channel of CAM logits into a map of the image.

    Args:
        cam: (B, 2, h, w) CAM logits, road and crack.
        size: (H, W) of the image.
        how: "sigmoid" gives each cell its own probability; "max" is the paper's maxnorm.

    Returns:
        (B, 1, H, W) in [0, 1].
    """
    crack = cam[:, 1:2].float()
    if how == "sigmoid":
        return torch.sigmoid(upsample(crack, size))
    return upsample(max_normalize(crack), size)


def label_map(cam: Tensor, size: tuple[int, int], how: Literal["sigmoid", "max"]) -> Tensor:
    """Turn the crack channel of CAM logits into the map that a pseudo label is refined from.

    That of `crack_map`; but before the dense CRF the paper enlarges first:
    v = maxnorm(ReLU(up(CAM))). A crack is narrower then, since cells below 0 pull its border down,
    and the surest pixel is 1.

    Args:
        cam: (B, 2, h, w) CAM logits, road and crack.
        size: (H, W) of the image.
        how: see `crack_map`.

    Returns:
        (B, 1, H, W) in [0, 1].
    """
    if how == "max":
        return max_normalize(upsample(cam[:, 1:2].float(), size))
    return crack_map(cam, size, how)


def min_max_normalize(maps: Tensor) -> Tensor:
    """Scale each map of (B, K, h, w) to [0, 1]; a constant map becomes 0."""
    low = maps.amin((2, 3), keepdim=True)
    high = maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp_min(MAXNORM_EPSILON)


def enhance_center(maps: Tensor, sigma: float) -> Tensor:
    """Weigh maps by a Gaussian around their center, the center part of CECCM (paper 3.4).

    E(M) = M * exp(-((x-mx)^2 + (y-my)^2) / (2 sigma^2)).

    (mx, my) is the center of mass of each map, x and y run over [0, 1].

    Args:
        maps: (B, K, h, w), >= 0.
        sigma: in image sides. The paper's 0.2 suppresses the ends of a crack that crosses the
            image; larger values keep them.

    Returns:
        (B, K, h, w). A map that is 0 everywhere stays 0 (and does not switch off the others,
        as it does in the released code).
    """
    h, w = maps.shape[-2:]
    y = torch.linspace(0, 1, h, dtype=maps.dtype, device=maps.device).view(1, 1, h, 1)
    x = torch.linspace(0, 1, w, dtype=maps.dtype, device=maps.device).view(1, 1, 1, w)
    mass = maps.sum((2, 3), keepdim=True).clamp_min(MAXNORM_EPSILON)
    my = (maps * y).sum((2, 3), keepdim=True) / mass
    mx = (maps * x).sum((2, 3), keepdim=True) / mass
    return maps * torch.exp(-((x - mx) ** 2 + (y - my) ** 2) / (2 * sigma**2))
