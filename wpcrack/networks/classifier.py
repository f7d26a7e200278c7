"""Classifier: image -> class activation maps (CAM) and class logits.

Shape letters: B images, H W pixels, h w = H/8 W/8. Classes: road (0), crack (1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wpcrack.config import ModelConfig
from wpcrack.networks.encoder import Encoder, Features

ROAD, CRACK = 0, 1


@dataclass(frozen=True)
class Activation:
    """What an encoder with a CAM head says about a batch."""

    cam: Tensor
    """(B, 2, h, w) CAM logits."""
    logits: Tensor
    """(B, 2) class logits, pooled from the CAM."""
    features: Features


class CamHead(nn.Module):
    """1x1 convolutions from the two stride-8 maps to a two-class CAM, and pooled logits."""

    def __init__(self, encoder: Encoder, config: ModelConfig) -> None:
        super().__init__()
        self.pool_fraction = config.pool_fraction
        self.shallow = nn.Conv2d(encoder.channels[8], config.cam_channels, 1)
        self.deep = nn.Conv2d(encoder.channels["deep"], config.cam_channels, 1)
        self.score = nn.Conv2d(config.cam_channels, 2, 1)

    def forward(self, features: Features) -> tuple[Tensor, Tensor]:
        """CAM logits (B, 2, h, w) and class logits (B, 2)."""
        hidden = torch.relu(self.shallow(features.stride8) + self.deep(features.deep))
        cam = self.score(hidden)
        return cam, top_mean(cam, self.pool_fraction)


class Classifier(nn.Module):
    """Encoder and CAM head, trained with image-level labels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config.encoder, config.pretrained)
        self.head = CamHead(self.encoder, config)

    def forward(self, image: Tensor) -> Activation:
        """Activation of (B, 3, H, W) images in [0, 1]."""
        features = self.encoder(image)
        cam, logits = self.head(features)
        return Activation(cam, logits, features)


def top_mean(cam: Tensor, fraction: float) -> Tensor:
    """Mean of the highest `fraction` of cells: (B, K, h, w) -> (B, K).

    Fraction 1 is global average pooling (the paper); a small fraction tolerates a crack that
    fills few cells, since a thin crack then is not averaged away.
    """
    cells = cam.flatten(2)
    count = max(1, round(fraction * cells.shape[2]))
    return cells.topk(count, dim=2).values.mean(2)
