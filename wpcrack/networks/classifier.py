"""Classifier: image -> class activation maps (CAM) and class logits.

Shape letters: B images, H W pixels, h w = H/8 W/8. Classes: road (0), crack (1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wpcrack.config import ModelConfig
from wpcrack.networks.encoder import Encoder, Features, ImageEncoder
from wpcrack.networks.norm import top_mean
from wpcrack.networks.paper.resnet38d import RESNET38D, ResNet38d, ResNet38dHead, load_backbone

ROAD, CRACK = 0, 1


@dataclass(frozen=True)
class Activation:
    """What an encoder with a CAM head says about a batch."""

    cam: Tensor
    """(B, 2, h, w) CAM logits."""
    logits: Tensor
    """(B, 2) class logits, pooled from the CAM."""
    features: Features

    def detach(self) -> Activation:
        """The same without its graph."""
        return Activation(self.cam.detach(), self.logits.detach(), self.features.detach())


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

    def pretrained_layers(self) -> list[nn.Module]:
        """Layers that ImageNet weights exist for: none."""
        return []

    def new_layers(self) -> list[nn.Module]:
        """Layers that start at random: all."""
        return [self]


class Classifier(nn.Module):
    """Encoder and CAM head, trained with image-level labels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder: ImageEncoder
        self.head: CamHead | ResNet38dHead
        self.encoder, self.head = encoder_and_head(config)

    def forward(self, image: Tensor) -> Activation:
        """Activation of (B, 3, H, W) images in [0, 1]."""
        features = self.encoder(image)
        cam, logits = self.head(features)
        return Activation(cam, logits, features)


def encoder_and_head(config: ModelConfig) -> tuple[ImageEncoder, CamHead | ResNet38dHead]:
    """What `model.encoder` names: the paper's backbone, or any timm encoder with our head."""
    if config.encoder == RESNET38D:
        backbone, head = ResNet38d(config), ResNet38dHead(config)
        load_backbone(backbone, head, config)
        return backbone, head
    encoder = Encoder(config.encoder, config.pretrained)
    return encoder, CamHead(encoder, config)
