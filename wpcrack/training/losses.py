"""Each term of the adversarial step as a pure function (paper).

Sums run over the local images and are divided by the number of images that count over all
ranks, per rank (`counts`), so that averaging gradients over ranks gives exactly the gradient of
the global batch, also when a rank has no crack image. Nothing branches on data.

Shape letters: B images, K classes, H W pixels, h w cells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wpcrack.config import CeccmConfig
from wpcrack.labels.cam import enhance_center, min_max_normalize
from wpcrack.labels.pseudo_label import PseudoLabel
from wpcrack.networks.classifier import top_mean

DICE_SMOOTH = 1.0
LEAST_REGION = 64.0
"""Pixels, one cell of a CAM at stride 8: a smaller region counts less than others."""


def classification(logits: Tensor, label: Tensor, count: Tensor) -> Tensor:
    """Average the binary cross-entropy of (B, K) logits against one-hot (B, K) labels."""
    terms = F.binary_cross_entropy_with_logits(logits, label, reduction="none").mean(1)
    return terms.sum() / count


def masked_l1(
    a: Tensor, b: Tensor, weight: Tensor, shown: Tensor, count: Tensor, *, region: bool = False
) -> Tensor:
    """Compute L1m(a, b, w) = mean over ALL elements of |a w - b w|, over the images shown.

    With `region` it is the mean over the elements that count, sum |a w - b w| / sum w: as large
    for the one percent of a picture that is crack as for the rest of it.

    Args:
        a: (B, 3, H, W).
        b: (B, 3, H, W).
        weight: (B, 1, H, W).
        shown: (B,) 1 for images that count (cracks), else 0.
        count: scalar, number of images that count (global, per rank); clamped to >= 1 image.
        region: see above.
    """
    per_image = ((a - b) * weight).abs().mean((1, 2, 3))
    if region:
        least = LEAST_REGION / weight[0].numel()
        per_image = per_image / weight.mean((1, 2, 3)).clamp_min(least)
    return (per_image * shown).sum() / count


def cam_consistency(
    cls_cam: Tensor, rec_cam: Tensor, shown: Tensor, count: Tensor, config: CeccmConfig
) -> Tensor:
    """Compute CECCM: mean |E(norm M_cls) - E(norm M_rec)| of the crack channel, crack images.

    Args:
        cls_cam: (B, 1, h, w) crack CAM of the classifier.
        rec_cam: (B, 1, h, w) crack CAM of the reconstructor, held fixed by the caller.
        shown: (B,) 1 for images that count (cracks), else 0.
        count: scalar, number of images that count (global, per rank).
        config: Width of the center, or no center.
    """
    a, b = min_max_normalize(cls_cam), min_max_normalize(rec_cam)
    if config.center:
        a, b = enhance_center(a, config.sigma), enhance_center(b, config.sigma)
    return ((a - b).abs().mean((1, 2, 3)) * shown).sum() / count


def detection(logits: Tensor, label: PseudoLabel, count: Tensor, pos_weight: float) -> Tensor:
    """Average BCE with logits over the pixels that count, per image, then over images."""
    weight = torch.as_tensor(pos_weight, dtype=logits.dtype, device=logits.device)
    terms = F.binary_cross_entropy_with_logits(
        logits, label.target, reduction="none", pos_weight=weight
    )
    per_image = (terms * label.weight).sum((1, 2, 3)) / label.weight.sum((1, 2, 3)).clamp_min(1)
    return per_image.sum() / count


def region(logits: Tensor, label: PseudoLabel, shown: Tensor, count: Tensor) -> Tensor:
    """Compute soft Dice 1 - (2 |P T| + 1) / (|P| + |T| + 1) per crack image, pixels that count."""
    probability = torch.sigmoid(logits) * label.weight
    target = label.target * label.weight
    overlap = (probability * target).sum((1, 2, 3))
    total = (probability + target).sum((1, 2, 3))
    dice = 1 - (2 * overlap + DICE_SMOOTH) / (total + DICE_SMOOTH)
    return (dice * shown).sum() / count


def false_alarm(logits: Tensor, has_crack: Tensor, count: Tensor, fraction: float) -> Tensor:
    """Compute the cross-entropy of "this road image shows no crack", said by its surest pixels.

    The image-level label of a road image is exact for each of its pixels; averaged over all of
    them, a few false ones hardly count. -log(1 - sigmoid(mean of the highest `fraction`)).

    Args:
        logits: (B, 1, H, W).
        has_crack: (B,) 0 or 1.
        count: scalar, road images of the global batch per rank.
        fraction: of the pixels, pooled as class logits are pooled from CAMs.
    """
    alarm = F.softplus(top_mean(logits, fraction)[:, 0])
    return (alarm * (1 - has_crack)).sum() / count
