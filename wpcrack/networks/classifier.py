"""Classifier: image -> class activation map (CAM), pooled to class logits.

Shape letters: B images, H W pixels, h w = H/8 W/8. Classes: road (0), crack (1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wpcrack.config import ModelConfig
from wpcrack.networks.encoder import Encoder, Features, ImageEncoder
from wpcrack.networks.paper.resnet38d import RESNET38D, ResNet38dHead, build_backbone

ROAD, CRACK = 0, 1


@dataclass(frozen=True)
class Activation:
    """What an encoder with a CAM head says about a batch."""

    cam: Tensor
    """(B, 2, h, w) CAM logits."""
    logits: Tensor
    """(B, 2) class logits, pooled from the CAM."""
    features: Features

    @classmethod
    def of(cls, cam: Tensor, features: Features, pool_fraction: float) -> Activation:
        """Pool the class logits from a CAM."""
        return cls(cam, top_mean(cam, pool_fraction), features)

    def detach(self) -> Activation:
        """Return the same without its graph."""
        return Activation(self.cam.detach(), self.logits.detach(), self.features.detach())


class CamHead(nn.Module):
    """1x1 convolutions from the two stride-8 maps to a two-class CAM."""

    def __init__(self, encoder: Encoder, config: ModelConfig) -> None:
        super().__init__()
        self.pool_fraction = config.pool_fraction
        self.shallow = nn.Conv2d(encoder.channels[8], config.cam_channels, 1)
        self.deep = nn.Conv2d(encoder.channels["deep"], config.cam_channels, 1)
        self.score = nn.Conv2d(config.cam_channels, 2, 1)

    def forward(self, features: Features) -> Tensor:
        """Compute CAM logits (B, 2, h, w)."""
        hidden = torch.relu(self.shallow(features.stride8) + self.deep(features.deep))
        cam: Tensor = self.score(hidden)
        return cam

    def pretrained_layers(self) -> list[nn.Module]:
        """List the layers that ImageNet weights exist for: none."""
        return []

    def new_layers(self) -> list[nn.Module]:
        """List the layers that start at random: all."""
        return [self]


class Classifier(nn.Module):
    """Encoder and CAM head, trained with image-level labels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder: ImageEncoder
        self.head: CamHead | ResNet38dHead
        self.encoder, self.head = encoder_and_head(config)

    def forward(self, image: Tensor) -> Activation:
        """Compute the activation of (B, 3, H, W) images in [0, 1]."""
        features = self.encoder(image)
        return Activation.of(self.head(features), features, self.head.pool_fraction)


def encoder_and_head(config: ModelConfig) -> tuple[ImageEncoder, CamHead | ResNet38dHead]:
    """Build what `model.encoder` names: the paper's backbone, or any timm encoder with our head."""
    if config.encoder == RESNET38D:
        return build_backbone(config)
    encoder = Encoder(config.encoder, config.pretrained)
    return encoder, CamHead(encoder, config)


def top_mean(cam: Tensor, fraction: float) -> Tensor:
    """Average the highest `fraction` of cells: (B, K, h, w) -> (B, K).

    Fraction 1 is global average pooling (the paper); under a small one a thin crack, which fills
    few cells, is not averaged away.
    """
    cells = cam.flatten(2)
    count = max(1, round(fraction * cells.shape[2]))
    return cells.topk(count, dim=2).values.mean(2)
