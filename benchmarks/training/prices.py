"""What the game asks for each of several maps: does it want whole cracks?

The classifier descends - cls_crack * L1(painted from the map alone, image, off the map)
- cls_rest * L1(painted from the rest alone, image, on the map), both means as losses.error_mean
says. Here the map is not learned but drawn from the true mask, and both errors are measured with
the reconstructor as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wpcrack.labels.cam import crack_map
from wpcrack.training.losses import masked_l1
from wpcrack.training.stages import Learner

CELL_PX = 8
"""Width of a cell of the CAM: a whole crack's map is that much wider than the crack."""

Truth = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""Image and mask."""


@torch.no_grad()
def print_prices(learner: Learner, truth: Sequence[Truth]) -> None:
    """Print for each map: share of the picture, both errors, and what the classifier pays.

    Errors are of normalized images. "on all" is the paper's mean over all pixels of the picture,
    "on its own" the mean over the pixels that the error is about.
    """
    weights, one = learner.config.losses, torch.ones(1)
    region = weights.error_mean == "region"
    found: dict[str, list[list[float]]] = {}
    reconstructor = learner.nets.reconstructor.eval()
    teacher = learner.teacher.eval()
    for image, mask in truth:
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        target = reconstructor.encoder.normalize(x)
        z = reconstructor.encode(x).feature
        cam = teacher(x).cam
        maps = maps_of(mask)
        maps["classifier's CAM"] = crack_map(cam, mask.shape, learner.config.model.cam_norm)
        for name, m in maps.items():
            painted = (reconstructor.decode(z, m), 1 - m), (reconstructor.decode(z, 1 - m), m)
            off, on = (masked_l1(p, target, part, one, one) for p, part in painted)
            asked = [masked_l1(p, target, part, one, one, region=region) for p, part in painted]
            paid = -weights.cls_crack * asked[0] - weights.cls_rest * asked[1]
            found.setdefault(name, []).append([float(v) for v in (m.mean(), off, on, paid)])
    heads = "area", "off: all", "own", "on: all", "own", "paid"
    widths = 6, 8, 6, 8, 6, 7
    columns = " ".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True))
    print(f"      {'map':18} {columns}")
    for name, rows in found.items():
        area, all_off, all_on, sum_paid = (float(v) for v in np.mean(rows, 0))
        own_off, own_on = all_off / max(1 - area, 1e-6), all_on / max(area, 1e-6)
        print(
            f"      {name:18} {area:6.3f} {all_off:8.4f} {own_off:6.3f} {all_on:8.4f} {own_on:6.3f}"
            f" {sum_paid:7.4f}",
            flush=True,
        )


def maps_of(mask: NDArray[np.bool_]) -> dict[str, Tensor]:
    """Return maps (1, 1, H, W) of 0 and 1 that a classifier could have of a true mask."""
    whole = widen(mask, CELL_PX)
    columns = np.flatnonzero(np.cumsum(mask.sum(0)) * 2 >= mask.sum())
    left = np.arange(mask.shape[1]) < columns[0]
    maps = {
        "whole crack": whole,
        "half of it": whole & left,
        "four times as wide": widen(mask, 4 * CELL_PX),
        "the crack's pixels": mask,
        "nothing": np.zeros_like(mask),
        "everything": np.ones_like(mask),
    }
    return {name: torch.from_numpy(m.astype(np.float32))[None, None] for name, m in maps.items()}


def widen(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Grow a mask by about half of `by` pixels to each side."""
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (by + 1, by + 1))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disk) > 0)
