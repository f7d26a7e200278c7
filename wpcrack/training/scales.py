"""What the detector sees at several scales of an image, and one map of it.

Shape letters: N images, S scales, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALES = (1.0, 0.5, 0.25)
"""Sizes of a photograph of unknown scale that the detector looks at."""


def fuse_scales(probability: Tensor) -> Tensor:
    """Root of the mean square over the scales: sqrt(sum_s p_s^2 / S).

    It lies between the mean and the maximum: a scale that is sure is outvoted less than by the
    mean. With three scales of one model, against the mean: F1 within 5 px on CrackSC .799 (.671);
    IoU on Crack500 .574 (.558), on CrackForest within 2 px .876 (.846), but IoU on DeepCrack .672
    (.703), whose wide rims it takes in. A fusion that was learned on drawn windows trusted scale 1
    alone, and was worse than the mean on three of the four.

    Args:
        probability: (N, S, H, W) in [0, 1].

    Returns:
        (N, 1, H, W) in [0, 1].

    >>> fuse_scales(torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 4, 1, 1)).item()
    0.5
    """
    return probability.square().mean(1, keepdim=True).sqrt()


@torch.no_grad()
def scale_probabilities(
    encoder: nn.Module, detector: nn.Module, image: Tensor, scales: Sequence[float] = SCALES
) -> Tensor:
    """Crack probability at each scale, enlarged to the image.

    Args:
        encoder: Feeds both inputs of the detector.
        detector: Makes logits.
        image: (N, 3, H, W) in [0, 1]; sides are multiples of 8 at every scale.
        scales: Sizes of the image relative to its own.

    Returns:
        (N, S, H, W).
    """
    size = image.shape[-2:]
    found = []
    for scale in scales:
        small = image
        if scale != 1:
            wanted = [round(side * scale) for side in size]
            small = F.interpolate(image, size=wanted, mode="area" if scale < 1 else "bilinear")
        features = encoder(small)
        probability = torch.sigmoid(detector(features, features, small.shape[-2:]))
        found.append(F.interpolate(probability, size=size, mode="bilinear", align_corners=False))
    return torch.cat(found, 1)
