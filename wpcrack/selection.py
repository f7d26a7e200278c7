"""Which epoch is best, judged without any pixel label; or with masks, if the user gives some.

score = 0.5 IoU(detector, refined CAM of the averaged classifier; crack windows)
      + 0.5 F1 of "the detector finds a crack in this window" (image-level labels)
      - 10 x share of pixels that the detector marks on road windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from wpcrack import distributed
from wpcrack.config import TrainConfig

THRESHOLD = 0.5

LABEL_FREE, MASKED_IOU = "val/score", "val/iou"
"""Metrics by which an epoch is judged; the second only where a masked validation set is given."""


def objective(metrics: Mapping[str, object]) -> str:
    """The name of the metric that decides among epochs that were measured like this one."""
    return MASKED_IOU if MASKED_IOU in metrics else LABEL_FREE


@dataclass(frozen=True)
class Agreement:
    """Figures of one validation pass over the held-out windows."""

    score: float
    agreement_iou: float
    image_f1: float
    road_share: float
    cam_f1: float

    def named(self) -> dict[str, float]:
        """By metric name."""
        return {
            "val/score": self.score,
            "val/agreement_iou": self.agreement_iou,
            "val/image_f1": self.image_f1,
            "val/road_share": self.road_share,
            "val/cam_f1": self.cam_f1,
        }


@dataclass
class AgreementCounter:
    """Sums over windows, exact over ranks."""

    config: TrainConfig
    sums: Tensor = field(default_factory=lambda: torch.zeros(10, dtype=torch.float64))

    def add(self, detected: Tensor, refined: Tensor, seen: Tensor, has_crack: Tensor) -> None:
        """Adds windows.

        Args:
            detected: (B, 1, H, W) bool, detector's mask.
            refined: (B, 1, H, W) bool, refined CAM's mask.
            seen: (B,) bool, the averaged classifier says crack.
            has_crack: (B,) bool, the image-level label.
        """
        crack = has_crack.view(-1, 1, 1, 1)
        found = detected.double().mean((1, 2, 3)) >= self.config.label_min_share
        self.sums += torch.stack(
            [
                (detected & refined & crack).sum(),
                ((detected | refined) & crack).sum(),
                (found & has_crack).sum(),
                (found & ~has_crack).sum(),
                (~found & has_crack).sum(),
                (detected & ~crack).sum(),
                (~has_crack).sum() * detected[0].numel(),
                (seen & has_crack).sum(),
                (seen & ~has_crack).sum(),
                (~seen & has_crack).sum(),
            ]
        ).double()

    def result(self, device: torch.device) -> Agreement:
        """The figures over all ranks (which talk through `device`); without any case 0."""
        both, either, tp, fp, fn, marked, road, ctp, cfp, cfn = distributed.total(
            self.sums, device
        ).tolist()
        iou = both / either if either else 0.0
        f1 = 2 * tp / (2 * tp + fp + fn) if tp else 0.0
        share = marked / road if road else 0.0
        return Agreement(
            score=0.5 * iou + 0.5 * f1 - self.config.false_alarm_weight * share,
            agreement_iou=iou,
            image_f1=f1,
            road_share=share,
            cam_f1=2 * ctp / (2 * ctp + cfp + cfn) if ctp else 0.0,
        )
