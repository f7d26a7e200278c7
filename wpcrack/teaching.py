"""What the detector is taught: the pseudo label of a batch, from a CAM and the averaged detector.

Shape letters: B images, H W pixels.
"""

from __future__ import annotations

from typing import Literal

import torch

from wpcrack.batch import Batch, CrackPart
from wpcrack.cam import crack_map
from wpcrack.config import PseudoLabelConfig
from wpcrack.networks import Classifier, Features, Networks
from wpcrack.pseudo_label import PseudoLabel, pseudo_label, refine


def label_batch(
    teacher: Classifier,
    batch: Batch,
    config: PseudoLabelConfig,
    cam_norm: Literal["sigmoid", "max"],
    features: Features | None = None,
    averaged: Networks | None = None,
) -> PseudoLabel:
    """Pseudo label from the CAM of `teacher` (by default the averaged classifier), no gradient.

    A road image has no crack to refine, so only the crack images are looked at.

    Args:
        teacher: the classifier whose CAM counts.
        batch: the local batch.
        config: refiners and thresholds.
        cam_norm: how CAM logits become a map.
        features: of the teacher's encoder on the batch, if they are known.
        averaged: networks in eval mode whose detector has a say too (self-training).
    """
    part = CrackPart.of(batch)
    image, shown = batch.to_label[part.index], part.shown.view(-1, 1, 1, 1)
    with torch.no_grad():
        if features is None:
            cam = teacher(image).cam
        else:
            cam, _ = teacher.head(features.of(part.index))
        with torch.autocast(image.device.type, enabled=False):
            found = refine(image, shown * crack_map(cam, batch.size, cam_norm), config)
        if averaged is not None:
            seen = shown * torch.sigmoid(averaged(image).float())
            found = torch.lerp(found, seen, config.self_training)
        refined = torch.zeros_like(batch.erased)
        refined[part.index] = found
        return pseudo_label(refined, batch.has_crack, config)
