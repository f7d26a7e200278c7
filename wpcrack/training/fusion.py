"""By which power a trained model fuses its scales: the one whose masks of drawn pavement are best.

How much a scale is to be trusted differs from model to model. One that has learned from photographs
for long finds more at every scale than one that has learned little, and the same power then marks
too much. Photographs without masks cannot tell; drawn pavement of all pixel sizes can.

Shape letters: S scales, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wpcrack.inference.predict import DEFAULT_THRESHOLD
from wpcrack.inference.scales import ScaledProbability, fuse
from wpcrack.model import ModelInfo
from wpcrack.networks import Networks
from wpcrack.scoring.metrics import Counts, count, iou
from wpcrack.synthetic.pavement import draw_alternating

POWERS = (1.75, 2.0, 2.5, 3.0)
"""What is tried. Lower ones suit drawn pavement alone: of the shipped model it would choose 1.5,
which is worse than 1.75 on four sets of photographs. Above 3 little changes any more."""

WINDOWS, SIDE, SEED = 120, 256, 3_000_029
"""Drawn windows, every other one without a crack; their side in pixels; their seed, which no
training and no check of `wpcrack adapt` uses."""


@dataclass(frozen=True)
class Fusion:
    """A choice, and the IoU of the masks on drawn pavement at each power that was tried."""

    power: float
    drawn_iou: Mapping[float, float]


def with_fusion(
    info: ModelInfo, networks: Networks, device: torch.device | None = None
) -> ModelInfo:
    """Return what is known of a model, with the power that suits its networks.

    A model that looks at one scale has nothing to fuse, and stays as it is.

    Args:
        info: Of the model.
        networks: See `choose_fusion`.
        device: Where to compute.
    """
    if len(info.scales) == 1:
        return info
    found = choose_fusion(networks, info.scales, device)
    trained = info.trained | {"drawn_iou": round(found.drawn_iou[found.power], 4)}
    return info.model_copy(update={"fusion_power": found.power, "trained": trained})


@torch.inference_mode()
def choose_fusion(
    networks: Networks,
    scales: Sequence[float],
    device: torch.device | None = None,
    windows: int = WINDOWS,
) -> Fusion:
    """Return the power with the highest IoU, pooled over drawn windows; the smallest of equals.

    Args:
        networks: Trained, in eval mode; moved to the device.
        scales: At which they look.
        device: Where to compute.
        windows: How many are drawn.
    """
    device = device or torch.device("cpu")
    network = ScaledProbability(networks, scales).to(device)
    counts = dict.fromkeys(POWERS, Counts())
    for image, mask in _draw(windows):
        seen = network.at_each_scale(image[None].to(device))
        for power in POWERS:
            found = fuse(seen, power)[0, 0] >= DEFAULT_THRESHOLD
            counts[power] += count(found.cpu().numpy(), mask)
    scores = {power: iou(counts[power]) for power in POWERS}
    return Fusion(max(POWERS, key=scores.__getitem__), scores)


def _draw(windows: int) -> Iterator[tuple[Tensor, NDArray[np.bool_]]]:
    """Yield images (3, H, W) in [0, 1] and their masks (H, W)."""
    for window in draw_alternating(SEED, windows, SIDE):
        yield torch.from_numpy(window.image).permute(2, 0, 1).float() / 255, window.mask
