"""What the networks see in a few validation windows, side by side, for people to watch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wpcrack.augment import as_planes
from wpcrack.batches import Images
from wpcrack.cam import crack_map
from wpcrack.config import MethodConfig
from wpcrack.networks import Classifier, Networks
from wpcrack.pseudo_label import refine
from wpcrack.selection import THRESHOLD

COLUMNS = ("image", "CAM", "pseudo label", "prediction", "mask")
"""Of a panel, from left to right; the pseudo label is the refined CAM before its thresholds."""
GAP_PX = 2


def chosen(images: Images, count: int) -> list[int]:
    """Positions of windows to watch, the same in every epoch: every fourth a road, spread evenly.

    Args:
        images: the validation windows.
        count: how many, if there are so many.
    """
    cracks = [k for k, item in enumerate(images.items) if item.has_crack]
    roads = [k for k, item in enumerate(images.items) if not item.has_crack]
    wanted = ((cracks, count - count // 4), (roads, count // 4))
    return [
        side[k * len(side) // min(n, len(side))]
        for side, n in wanted
        for k in range(min(n, len(side)))
    ]


@torch.no_grad()
def panels(nets: Networks, teacher: Classifier, images: Tensor, config: MethodConfig) -> Tensor:
    """One row of `COLUMNS` for each image; networks are in eval mode.

    Args:
        nets: whose detector predicts.
        teacher: whose CAM labels.
        images: (N, 3, H, W) in [0, 1].
        config: how a CAM becomes a map, and the refiners.

    Returns:
        (N, 3, H, W') in [0, 1] on the CPU.
    """
    size = (images.shape[-2], images.shape[-1])
    cam = crack_map(teacher(images).cam, size, config.model.cam_norm)
    refined = refine(images, cam, config.pseudo_label)
    predicted = torch.sigmoid(nets(images).float())
    maps = (cam, refined, predicted, (predicted >= THRESHOLD).float())
    gap = torch.ones(len(images), 3, size[0], GAP_PX)
    parts = [images.float().cpu()]
    for values in maps:
        shown = values.float().nan_to_num().cpu()  # of a network that has diverged
        parts += [gap, shown.expand(-1, 3, -1, -1)]
    return torch.cat(parts, 3).clamp(0, 1)


def watched(images: Images, positions: list[int]) -> Tensor:
    """(N, 3, H, W) in [0, 1], unchanged."""
    return torch.from_numpy(np.stack([as_planes(images.still(k)) for k in positions]))
