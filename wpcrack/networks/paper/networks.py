"""The paper's reconstructor and detector; tensor names are those of the authors' checkpoint.

The reconstructor is ResNet38d with a fused feature Z, and a decoder. The detector is path attention
over both trunks, squeeze-and-excitation, three upsamplings. `paam.kind` = released computes the
authors' attention; directional puts that of `wpcrack.networks.detector` in its place, and
`paam.low_levels` adds structure of the reconstructor at strides 4 and 2, as the paper's text
describes it.

Shape letters: B images, H W pixels, h w = H/8 W/8, C channels of Z, T of a trunk (1024).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wpcrack.config import ModelConfig, PaamConfig
from wpcrack.errors import ConfigError
from wpcrack.networks.detector import PathAttention
from wpcrack.networks.encoder import Features, ImageEncoder
from wpcrack.networks.norm import GlobalBatchNorm
from wpcrack.networks.paper.resnet38d import (
    RESNET38D,
    ResNet38d,
    ResNet38dHead,
    Semantics,
    build_backbone,
    conv,
)
from wpcrack.networks.reconstructor import BaseReconstructor, make_decoder

SHARES = 7
"""Z is 1/7 conv4, 2/7 conv5 and 4/7 F: 64 + 128 + 256 of 448 channels."""
EDGE = (-1.0, 0.0, 1.0)
"""Start of the horizontal and the vertical kernel, on every channel."""
SPATIAL_ONLY = {"channel": False}
"""Channel attention follows the fusion, in `SqueezeExcite`."""


class ReleasedReconstructor(BaseReconstructor):
    """Z = concat[dr1(conv4), dr2(conv5), fc_recon(F)]."""

    encoder: ResNet38d
    head: ResNet38dHead

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder, self.head = build_backbone(config)
        if config.recon_channels < SHARES:
            raise ConfigError(
                f"model.recon_channels is {config.recon_channels}, and model.encoder={RESNET38D} "
                f"takes them from three maps as 1, 2 and 4 of {SHARES}; set {SHARES} or more"
            )
        first = config.recon_channels // SHARES
        second = 2 * config.recon_channels // SHARES
        rest = config.recon_channels - first - second
        self.dr1 = conv(self.encoder.channels[8], first, 1)
        self.dr2 = conv(self.head.conv5_channels, second, 1)
        self.fc_recon = conv(self.head.final_channels, rest, 1)
        self.decoder = make_decoder(config)
        self.decoder_stride = config.decoder_stride

    def see(self, features: Features) -> tuple[Tensor, Tensor]:
        """Compute CAM logits (B, 2, h, w) and Z (B, C, h, w) from the encoder's features."""
        semantics = self.head.semantics(features)
        return self.head.score(semantics), self.fuse(features, semantics)

    def fuse(self, features: Features, semantics: Semantics) -> Tensor:
        """Fuse features to Z at stride 8: (B, C, h, w)."""
        parts = [
            self.dr1(features.stride8),
            self.dr2(semantics.conv5),
            self.fc_recon(semantics.final),
        ]
        return torch.cat(parts, 1)

    def reducers(self) -> list[nn.Module]:
        """List the convolutions that make Z."""
        return [self.dr1, self.dr2, self.fc_recon]


class ReleasedDetector(nn.Module):
    """Logits (the released network ends in a sigmoid) at full resolution from two trunks."""

    def __init__(
        self, classifier: ImageEncoder, reconstructor: ImageEncoder, config: ModelConfig
    ) -> None:
        super().__init__()
        t = reconstructor.channels["deep"]
        assert classifier.channels["deep"] == t, "both encoders are of one kind"
        paam = config.paam
        self.path_fusion = ReleasedFusion(t, paam)
        self.se_block = SqueezeExcite(t, paam.reduction) if paam.channel else nn.Identity()
        self.conv1, self.bn1 = nn.Conv2d(t, t // 2, 3, padding=1), GlobalBatchNorm(t // 2)
        self.conv2, self.bn2 = nn.Conv2d(t // 2, t // 4, 3, padding=1), GlobalBatchNorm(t // 4)
        self.conv3, self.bn3 = nn.Conv2d(t // 4, t // 8, 3, padding=1), GlobalBatchNorm(t // 8)
        self.deconv1, self.bn4 = nn.ConvTranspose2d(t // 8, t // 16, 2, 2), GlobalBatchNorm(t // 16)
        self.deconv2, self.bn5 = (
            nn.ConvTranspose2d(t // 16, t // 32, 2, 2),
            GlobalBatchNorm(t // 32),
        )
        self.deconv3 = nn.ConvTranspose2d(t // 32, 1, 2, 2)
        widths = {8: t // 8, 4: t // 16, 2: t // 32}
        self.lateral = nn.ModuleDict(
            {str(s): nn.Conv2d(reconstructor.channels[s], widths[s], 1) for s in paam.low_levels}
        )

    def forward(self, classifier: Features, reconstructor: Features, size: Sequence[int]) -> Tensor:
        """Compute (B, 1, H, W) crack logits of both encoders' features; size = (H, W)."""
        x = self.path_fusion(torch.cat([reconstructor.deep, classifier.deep], 1))
        x = self.se_block(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = torch.relu(self.bn3(self.conv3(x)))
        x = self._with_structure(x, reconstructor, 8)
        x = torch.relu(self.bn4(self.deconv1(x)))
        x = self._with_structure(x, reconstructor, 4)
        x = torch.relu(self.bn5(self.deconv2(x)))
        logits: Tensor = self.deconv3(self._with_structure(x, reconstructor, 2))
        return logits[..., : size[0], : size[1]]  # sides that are no multiple of 8 were rounded up

    def _with_structure(self, x: Tensor, reconstructor: Features, stride: int) -> Tensor:
        """Add the reconstructor's map of this stride, if `paam.low_levels` names it."""
        if str(stride) not in self.lateral:
            return x
        structure: Tensor = self.lateral[str(stride)](reconstructor.at(stride))
        return x + structure


class ReleasedDirections(nn.Module):
    """Four plain convolutions to one channel; the "diagonal" ones are 2x2, as released."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_0 = nn.Conv2d(channels, 1, (1, 3), padding=(0, 1), bias=False)
        self.conv_45 = nn.Conv2d(channels, 1, 2, padding=1, bias=False)
        self.conv_90 = nn.Conv2d(channels, 1, (3, 1), padding=(1, 0), bias=False)
        self.conv_135 = nn.Conv2d(channels, 1, 2, padding=1, bias=False)
        with torch.no_grad():
            self.conv_0.weight.copy_(torch.tensor(EDGE).view(1, 1, 1, 3))
            self.conv_90.weight.copy_(torch.tensor(EDGE).view(1, 1, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Sum absolute responses: (B, C, h, w) -> (B, 1, h, w); 2x2 ones are cut to size."""
        h, w = x.shape[-2:]
        responses = (self.conv_0(x), self.conv_45(x), self.conv_90(x), self.conv_135(x))
        return torch.stack([r[..., :h, :w].abs() for r in responses]).sum(0)


class ReleasedFusion(nn.Module):
    """X * sigmoid(sum of |responses|), then 1x1 convolution 2T -> T, BatchNorm, ReLU."""

    def __init__(self, channels: int, config: PaamConfig) -> None:
        super().__init__()
        if config.kind == "released":
            self.direction_conv = ReleasedDirections(2 * channels)
        else:
            self.attention = PathAttention(2 * channels, config.model_copy(update=SPATIAL_ONLY))
        self.released = config.kind == "released"
        self.reduce_conv = nn.Conv2d(2 * channels, channels, 1)
        self.bn = GlobalBatchNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Fuse (B, 2 T, h, w) to (B, T, h, w)."""
        x = x * torch.sigmoid(self.direction_conv(x)) if self.released else self.attention(x)
        y: Tensor = torch.relu(self.bn(self.reduce_conv(x)))
        return y


class SqueezeExcite(nn.Module):
    """Channel attention: x * sigmoid(W2 ReLU(W1 mean(x)))."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        squeezed = max(1, channels // reduction)
        self.fc = nn.Sequential(
            nn.Linear(channels, squeezed), nn.ReLU(), nn.Linear(squeezed, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of (B, T, h, w)."""
        gate: Tensor = self.fc(x.mean((2, 3)))
        return x * gate[:, :, None, None]
