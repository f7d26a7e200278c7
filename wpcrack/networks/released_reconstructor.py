"""The paper's reconstructor: ResNet38d with the fused feature Z, and a decoder.

Shape letters: B images, H W pixels, h w = H/8 W/8, C channels of Z.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wpcrack.config import ModelConfig
from wpcrack.networks.classifier import Activation
from wpcrack.networks.encoder import Features
from wpcrack.networks.reconstructor import Encoding, make_decoder, paint
from wpcrack.networks.resnet38d import (
    ResNet38d,
    ResNet38dHead,
    Semantics,
    conv,
    load_backbone,
)

SHARES = 7
"""Z is 1/7 conv4, 2/7 conv5 and 4/7 F: 64 + 128 + 256 of 448 channels."""


class ReleasedReconstructor(nn.Module):
    """Same interface as `Reconstructor`; Z = concat[dr1(conv4), dr2(conv5), fc_recon(F)]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder, self.head = ResNet38d(config), ResNet38dHead(config)
        load_backbone(self.encoder, self.head, config)
        first = config.recon_channels // SHARES
        second = 2 * config.recon_channels // SHARES
        rest = config.recon_channels - first - second
        self.dr1 = conv(self.encoder.channels[8], first, 1)
        self.dr2 = conv(self.head.conv5_channels, second, 1)
        self.fc_recon = conv(self.head.final_channels, rest, 1)
        self.decoder = make_decoder(config)
        self.decoder_stride = config.decoder_stride

    def encode(self, image: Tensor, painted: Tensor | None = None) -> Encoding:
        """CAM, class logits and Z of (B, 3, H, W) images in [0, 1].

        Args:
            image: the images.
            painted: (C,) positions of those that Z is needed of; None: all. At the paper's size Z
                is the largest tensor of a step.
        """
        features = self.encoder(image)
        semantics = self.head.semantics(features)
        cam, logits = self.head.score(semantics)
        size = [side // self.decoder_stride for side in image.shape[-2:]]
        z = self.fuse(features, semantics)
        z = z if painted is None else z[painted]
        feature = F.interpolate(z, size=size, mode="bilinear", align_corners=False)
        return Encoding(Activation(cam, logits, features), feature)

    def fuse(self, features: Features, semantics: Semantics) -> Tensor:
        """Z at stride 8: (B, C, h, w)."""
        parts = [
            self.dr1(features.stride8),
            self.dr2(semantics.conv5),
            self.fc_recon(semantics.final),
        ]
        return torch.cat(parts, 1)

    def decode(self, feature: Tensor, keep: Tensor | None = None) -> Tensor:
        """Paints (B, 3, H, W) from Z where `keep` (B, 1, H, W) in [0, 1] lets it through."""
        return paint(self.decoder, feature, keep, self.decoder_stride)

    def reducers(self) -> list[nn.Module]:
        """The convolutions that make Z."""
        return [self.dr1, self.dr2, self.fc_recon]
