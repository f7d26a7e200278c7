"""Reconstructor: encode (image -> CAM and feature Z) and decode (masked Z -> image).

Shape letters: B images, H W pixels, h w = H/8 W/8, C channels of Z.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wpcrack.config import ModelConfig
from wpcrack.networks.classifier import Activation, CamHead, encoder_and_head
from wpcrack.networks.encoder import Features, ImageEncoder
from wpcrack.networks.paper.decoder import ReleasedDecoder
from wpcrack.networks.paper.resnet38d import ResNet38dHead

LEAK = 0.2


@dataclass(frozen=True)
class Encoding:
    """What the reconstructor's encoder gives."""

    activation: Activation
    feature: Tensor
    """(B, C, H/s, W/s) Z, upsampled to the decoder's stride s: the canvas that masks act on."""

    def detach(self) -> Encoding:
        """Return the same without its graph."""
        return Encoding(self.activation.detach(), self.feature.detach())


class BaseReconstructor(nn.Module):
    """Encoder with CAM head and fused feature Z, and the decoder that paints the image from Z."""

    encoder: ImageEncoder
    head: CamHead | ResNet38dHead
    decoder: nn.Module
    decoder_stride: int

    def see(self, features: Features) -> tuple[Tensor, Tensor]:
        """Compute CAM logits (B, 2, h, w) and Z (B, C, h, w) from the encoder's features."""
        raise NotImplementedError

    def reducers(self) -> list[nn.Module]:
        """List the convolutions that make Z."""
        raise NotImplementedError

    def encode(self, image: Tensor, painted: Tensor | None = None) -> Encoding:
        """Compute CAM, class logits and Z of (B, 3, H, W) images in [0, 1].

        Args:
            image: the images.
            painted: (C,) positions of those that Z is needed of; None: all. At the paper's size Z
                is the largest tensor of a step.
        """
        features = self.encoder(image)
        cam, z = self.see(features)
        z = z if painted is None else z[painted]
        size = [side // self.decoder_stride for side in image.shape[-2:]]
        feature = F.interpolate(z, size=size, mode="bilinear", align_corners=False)
        return Encoding(Activation.of(cam, features, self.head.pool_fraction), feature)

    def decode(self, feature: Tensor, keep: Tensor | None = None) -> Tensor:
        """Paint (B, 3, H, W) from Z where `keep` (B, 1, H, W) in [0, 1] lets it through.

        Args:
            feature: Z, (B, C, H/s, W/s).
            keep: None: everywhere.
        """
        if keep is not None:
            kept = F.interpolate(keep, size=feature.shape[-2:], mode="area")
            feature = feature * kept.to(feature.dtype)
        stride = self.decoder_stride
        size = feature.shape[-2] * stride, feature.shape[-1] * stride
        image: Tensor = self.decoder(feature, size)
        return image


class Reconstructor(BaseReconstructor):
    """Z is half reduced from the shallow, half from the deep stride-8 map."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder, self.head = encoder_and_head(config)
        half = config.recon_channels // 2
        self.reduce_shallow = nn.Conv2d(self.encoder.channels[8], half, 1, bias=False)
        self.reduce_deep = nn.Conv2d(
            self.encoder.channels["deep"], config.recon_channels - half, 1, bias=False
        )
        self.decoder = make_decoder(config)
        self.decoder_stride = config.decoder_stride

    def see(self, features: Features) -> tuple[Tensor, Tensor]:
        """Compute CAM logits (B, 2, h, w) and Z (B, C, h, w) from the encoder's features."""
        parts = [self.reduce_shallow(features.stride8), self.reduce_deep(features.deep)]
        return self.head(features), torch.cat(parts, 1)

    def reducers(self) -> list[nn.Module]:
        """List the convolutions that make Z."""
        return [self.reduce_shallow, self.reduce_deep]


def make_decoder(config: ModelConfig) -> nn.Module:
    """Build the decoder that `model.decoder` names; called with a canvas and the image's (H, W)."""
    if config.decoder == "released":
        return ReleasedDecoder(config.recon_channels, config.decoder_widths)
    return Decoder(config.recon_channels, config.decoder_widths)


class Decoder(nn.Module):
    """U-Net from a (masked) feature canvas to the normalized image."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        ins = (channels, *widths[:-1])
        last = len(widths) - 1
        self.downs = nn.ModuleList(
            Down(i, o, norm=0 < k < last) for k, (i, o) in enumerate(zip(ins, widths, strict=True))
        )
        ups, current = [], widths[-1]
        for width in reversed(widths[:-1]):
            ups.append(Up(current, width))
            current = 2 * width
        self.ups = nn.ModuleList(ups)
        self.paint = nn.Conv2d(current, 3, 3, padding=1)

    def forward(self, canvas: Tensor, size: tuple[int, int]) -> Tensor:
        """Paint (B, 3, H, W), in the encoder's normalized units, from (B, C, H/s, W/s)."""
        skips = []
        x = canvas
        for down in self.downs:
            x = down(x)
            skips.append(x)
        for up, skip in zip(self.ups, reversed(skips[:-1]), strict=True):
            x = up(x, skip)
        x = F.interpolate(x, size=canvas.shape[-2:], mode="nearest")
        return F.interpolate(self.paint(x), size=size, mode="bilinear", align_corners=False)


def instance_norm(width: int) -> nn.GroupNorm:
    """Make an InstanceNorm without affine map; this one keeps the order of channels in memory."""
    return nn.GroupNorm(width, width, affine=False)


class Down(nn.Module):
    """Conv4x4 stride 2, InstanceNorm without affine, LeakyReLU: halves both sides."""

    def __init__(self, channels: int, width: int, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 4, 2, 1, bias=not norm)
        self.norm = instance_norm(width) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, width, H/2, W/2)."""
        return F.leaky_relu(self.norm(self.conv(x)), LEAK)


class Up(nn.Module):
    """Nearest upsampling to the skip's size, 3x3 convolution, norm, ReLU, then [up, skip]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = instance_norm(width)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map (B, C, ...) and the skip (B, S, h, w) to (B, width + S, h, w)."""
        x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
        return torch.cat([torch.relu(self.norm(self.conv(x))), skip], 1)
