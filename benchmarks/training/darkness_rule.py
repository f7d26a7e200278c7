"""How well each darkness rule draws the pseudo label, judged on drawn pavement alone.

    python -m benchmarks.training.darkness_rule [--streets 40] [--seed 77]

The default of `pseudo_label.darkness` is the best row of this table. No photograph and no mask
of a data set is read, so the choice holds for every set alike. Cracks are seen at three scales
(windows enlarged 1, 2 and 4 times, with the camera's noise added again), since photographs come
from any height; the CAM is imitated by the truth, widened and blurred to stride 8, sure of some
parts of a crack and half sure of others, as real ones are.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import product
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from wpcrack.label_config import DarknessConfig, PseudoLabelConfig
from wpcrack.labels.pseudo_label import refine_by_darkness
from wpcrack.synthetic import DrawnWindow, WindowConfig, draw_training_street, draw_window

SCALES = (1, 2, 4)
PER_STREET = 4
WINDOW = 128
CAM_REACH_PX = 10
"""An imitated CAM covers this much more than the crack on each side."""
CAM_RANGE = (0.25, 0.95)
"""An imitated CAM says this much on a crack, changing over FIELD_PX pixels."""
FIELD_PX = 32
NOISE_LEVELS = 8.0
"""Standard deviation (of 255) of the noise that enlarging removed."""
PLAIN: dict[str, Any] = {"combine": "product", "follow_px": 0}
BEFORE = DarknessConfig(blur_px=5, beside=False, zero=0.0, one=2.0, peak_share=0.0, **PLAIN)
"""The default of the first version, for comparison."""


@dataclass(frozen=True)
class View:
    """Windows at one scale."""

    image: torch.Tensor
    """(N, 3, H, W) in [0, 1]."""
    truth: torch.Tensor
    """(N, 1, H, W) bool."""

    @property
    def cam(self) -> torch.Tensor:
        """(N, 1, H, W) in [0, 1], the truth as a CAM of stride 8 would show it."""
        wide = F.max_pool2d(self.truth.float(), 2 * CAM_REACH_PX + 1, 1, CAM_REACH_PX)
        coarse = F.interpolate(F.avg_pool2d(wide, 8), scale_factor=8, mode="bilinear")
        cells = WINDOW // FIELD_PX
        field = torch.rand(len(wide), 1, cells, cells, generator=torch.Generator().manual_seed(0))
        sure = F.interpolate(field, size=(WINDOW, WINDOW), mode="bilinear")
        return coarse * (CAM_RANGE[0] + (CAM_RANGE[1] - CAM_RANGE[0]) * sure)


def main() -> None:
    """Print a row per rule, best first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streets", type=int, default=40)
    parser.add_argument("--seed", type=int, default=77)
    given = parser.parse_args()
    windows = draw_windows(given.streets, given.seed)
    views = [view(windows, scale) for scale in SCALES]
    rules = {"before": BEFORE, "default": DarknessConfig()}
    for combine, follow in product(("min", "product"), (0, 64)):
        name = f"default, {combine}, follow {follow} px"
        rules[name] = DarknessConfig(combine=combine, follow_px=follow)
    for blur, beside, share, zero, one in product(
        (3, 5), (False, True), (0.0, 0.4, 0.5), (0.5, 1.0), (2.0, 3.0)
    ):
        name = f"blur {blur}, beside {beside}, share {share}, ramp {zero}-{one}"
        rules[name] = DarknessConfig(
            blur_px=blur, beside=beside, peak_share=share, zero=zero, one=one
        )
    scored = [([iou(v, rule) for v in views], name) for name, rule in rules.items()]
    print(f"{len(windows)} drawn windows, seed {given.seed}; IoU of the label at scales {SCALES}")
    for values, name in sorted(scored, key=lambda row: -sum(row[0])):
        cells = "  ".join(f"{value:.3f}" for value in values)
        print(f"{sum(values) / len(values):.3f}  {cells}  {name}")


def draw_windows(streets: int, seed: int) -> list[DrawnWindow]:
    """Draw windows with a crack."""
    windows = []
    for k, child in enumerate(np.random.SeedSequence(seed).spawn(streets)):
        rng = np.random.default_rng(child)
        street = draw_training_street(rng, WindowConfig(), name=f"street{k:03d}")
        windows += [draw_window(rng, WindowConfig(), True, street) for _ in range(PER_STREET)]
    return windows


def view(windows: list[DrawnWindow], scale: int) -> View:
    """Show all windows, enlarged around a random crack pixel."""
    rng = np.random.default_rng(scale)
    pairs = [enlarged(window, scale, rng) for window in windows]
    image = torch.from_numpy(np.stack([p[0] for p in pairs])).permute(0, 3, 1, 2) / 255
    return View(image.float(), torch.from_numpy(np.stack([p[1] for p in pairs]))[:, None])


def enlarged(
    window: DrawnWindow, scale: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) image of 255 and (H, W) mask of a part that is 1 / scale as wide."""
    image, mask = window.image.astype(np.float32), window.mask
    if scale == 1 or not mask.any():
        return image, mask
    side = WINDOW // scale
    points = np.argwhere(mask)
    row, col = np.clip(points[rng.integers(len(points))] - side // 2, 0, WINDOW - side)
    part = np.s_[row : row + side, col : col + side]
    image = cv2.resize(image[part], (WINDOW, WINDOW), interpolation=cv2.INTER_CUBIC)
    image += rng.normal(0, NOISE_LEVELS, (WINDOW, WINDOW, 1)).astype(np.float32)
    soft = cv2.resize(mask[part].astype(np.float32), (WINDOW,) * 2, interpolation=cv2.INTER_CUBIC)
    return image.clip(0, 255), soft > 0.5


def iou(seen: View, rule: DarknessConfig) -> float:
    """IoU of the label with the truth, pooled over all pixels."""
    config = PseudoLabelConfig(darkness=rule)
    found = refine_by_darkness(seen.image, seen.cam, config) >= config.cam_crack
    return float((found & seen.truth).sum() / (found | seen.truth).sum())


if __name__ == "__main__":
    main()
