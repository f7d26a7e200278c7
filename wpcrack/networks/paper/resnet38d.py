"""ResNet38d, the paper's backbone (Wu, Shen, van den Hengel: Wider or Deeper, model A1).

The encoder ends with the block b5, the trunk that the detector reads; what the class activation
maps need on top of it (b5_1 to fc9) is the head. So inference never computes the head.
Tensor names are those of the authors' checkpoint.

Shape letters: B images, H W pixels, h w = H/8 W/8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wpcrack.config import ModelConfig
from wpcrack.errors import CheckpointError, ConfigError
from wpcrack.networks.encoder import Features, ImageEncoder
from wpcrack.networks.norm import FrozenBatchNorm
from wpcrack.tensor_files import compare, read_tensors

RESNET38D = "resnet38d"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, RGB in [0, 1]."""
WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096)
"""Of the paper, before `width_divisor`."""
DROPOUT = 0.2
"""Of whole channels, in b6 and b7."""
HEAD_BLOCKS = ("b5_1", "b5_2", "b6", "b7", "bn7")
"""Backbone blocks above the trunk; pretrained like it."""


@dataclass(frozen=True)
class Shape:
    """Widths and strides of a residual block."""

    inner: int
    out: int
    stride: int = 1
    dilation: tuple[int, int] = (1, 1)


class Residual(nn.Module):
    """Pre-activated block of two 3x3 convolutions: out = short(x) + f(x), tap = ReLU(BN(x))."""

    def __init__(self, channels: int, shape: Shape) -> None:
        super().__init__()
        d1, d2 = shape.dilation
        self.bn_branch2a = FrozenBatchNorm(channels)
        self.conv_branch2a = conv(channels, shape.inner, 3, stride=shape.stride, dilation=d1)
        self.bn_branch2b1 = FrozenBatchNorm(shape.inner)
        self.conv_branch2b1 = conv(shape.inner, shape.out, 3, dilation=d2)
        self.projects = channels != shape.out or shape.stride != 1
        if self.projects:
            self.conv_branch1 = conv(channels, shape.out, 1)
            self.stride = shape.stride

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W) to the output (B, O, H/s, W/s) and the tap (B, C, H, W)."""
        tap = self.bn_branch2a(x).relu_()
        short = self.conv_branch1(self._thin(tap)) if self.projects else x
        inner = self.bn_branch2b1(self.conv_branch2a(tap)).relu_()
        return short + self.conv_branch2b1(inner), tap

    def _thin(self, tap: Tensor) -> Tensor:
        """Keep every s-th cell: what a 1x1 convolution of stride s reads.

        Its backward pass in channels_last writes beyond its memory on CPUs if there are fewer than
        16 channels (torch 2.15), so the convolution itself has no stride.
        """
        return tap[..., :: self.stride, :: self.stride] if self.stride > 1 else tap


class Bottleneck(nn.Module):
    """Pre-activated 1x1, dilated 3x3, 1x1 with dropout of whole channels; tap = ReLU(BN(x))."""

    def __init__(self, channels: int, out: int, dilation: int) -> None:
        super().__init__()
        self.bn_branch2a = FrozenBatchNorm(channels)
        self.conv_branch2a = conv(channels, out // 4, 1)
        self.bn_branch2b1 = FrozenBatchNorm(out // 4)
        self.conv_branch2b1 = conv(out // 4, out // 2, 3, dilation=dilation)
        self.bn_branch2b2 = FrozenBatchNorm(out // 2)
        self.conv_branch2b2 = conv(out // 2, out, 1)
        self.conv_branch1 = conv(channels, out, 1)
        self.dropout = nn.Dropout2d(DROPOUT)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, h, w) to the output (B, O, h, w) and the tap (B, C, h, w)."""
        tap = self.bn_branch2a(x).relu_()
        y = self.dropout(self.bn_branch2b1(self.conv_branch2a(tap)).relu_())
        y = self.dropout(self.bn_branch2b2(self.conv_branch2b1(y)).relu_())
        return self.conv_branch1(tap) + self.conv_branch2b2(y), tap


class ResNet38d(ImageEncoder):
    """conv1a to b5: taps at strides 2, 4, 8 and the trunk (raw output of b5, 1024 channels)."""

    def __init__(self, config: ModelConfig) -> None:
        c64, c128, c256, c512, c1024 = (w // config.width_divisor for w in WIDTHS[:5])
        super().__init__({2: c128, 4: c256, 8: c512, "deep": c1024}, MEAN, STD)
        self.conv1a = conv(3, c64, 3)
        self.b2, self.b2_1, self.b2_2 = stage(c64, Shape(c128, c128, 2), 3)
        self.b3, self.b3_1, self.b3_2 = stage(c128, Shape(c256, c256, 2), 3)
        self.b4, self.b4_1, self.b4_2, self.b4_3, self.b4_4, self.b4_5 = stage(
            c256, Shape(c512, c512, 2), 6
        )
        self.b5 = Residual(c512, Shape(c512, c1024, 1, (1, 2)))

    def forward(self, image: Tensor) -> Features:
        """Compute features of (B, 3, H, W) images in [0, 1]; H and W multiples of 8."""
        x = self.conv1a(self.normalize(image))
        for block in (self.b2, self.b2_1, self.b2_2):
            x, _ = block(x)
        x, stride2 = self.b3(x)
        for block in (self.b3_1, self.b3_2):
            x, _ = block(x)
        x, stride4 = self.b4(x)
        for block in (self.b4_1, self.b4_2, self.b4_3, self.b4_4, self.b4_5):
            x, _ = block(x)
        trunk, conv4 = self.b5(x)
        return Features(stride2, stride4, conv4, trunk)


@dataclass(frozen=True)
class Semantics:
    """What the head computes from the trunk."""

    conv5: Tensor
    """(B, 1024, h, w) tap of b6."""
    final: Tensor
    """(B, 4096, h, w) F, output of bn7 and ReLU."""


class ResNet38dHead(nn.Module):
    """b5_1 to bn7, then two 1x1 convolutions to CAM logits."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c512, c1024, c2048, c4096 = (w // config.width_divisor for w in WIDTHS[3:])
        self.pool_fraction = config.pool_fraction
        self.conv5_channels, self.final_channels = c1024, c4096
        self.b5_1 = Residual(c1024, Shape(c512, c1024, 1, (2, 2)))
        self.b5_2 = Residual(c1024, Shape(c512, c1024, 1, (2, 2)))
        self.b6 = Bottleneck(c1024, c2048, 4)
        self.b7 = Bottleneck(c2048, c4096, 4)
        self.bn7 = FrozenBatchNorm(c4096)
        self.fc8 = conv(c4096, config.cam_channels, 1)
        self.fc9 = conv(config.cam_channels, 2, 1)

    def semantics(self, features: Features) -> Semantics:
        """Compute the maps above the trunk."""
        x, _ = self.b5_1(features.deep)
        x, _ = self.b5_2(x)
        x, conv5 = self.b6(x)
        x, _ = self.b7(x)
        return Semantics(conv5, self.bn7(x).relu_())

    def score(self, semantics: Semantics) -> Tensor:
        """Compute CAM logits (B, 2, h, w) from the maps above the trunk."""
        cam: Tensor = self.fc9(torch.relu(self.fc8(semantics.final)))
        return cam

    def forward(self, features: Features) -> Tensor:
        """Compute CAM logits (B, 2, h, w)."""
        return self.score(self.semantics(features))

    def pretrained_layers(self) -> list[nn.Module]:
        """List the layers that ImageNet weights exist for."""
        return [self.b5_1, self.b5_2, self.b6, self.b7]

    def new_layers(self) -> list[nn.Module]:
        """List the layers that start at random."""
        return [self.fc8, self.fc9]


def conv(channels: int, out: int, side: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Make a convolution without bias, padded by its dilation."""
    padding = dilation * (side // 2)
    return nn.Conv2d(channels, out, side, stride, padding, dilation, bias=False)


def stage(channels: int, first: Shape, count: int) -> list[Residual]:
    """Make `count` blocks; the first changes width and stride."""
    rest = Shape(first.inner, first.out)
    return [Residual(channels, first), *(Residual(first.out, rest) for _ in range(count - 1))]


def build_backbone(config: ModelConfig) -> tuple[ResNet38d, ResNet38dHead]:
    """Build the backbone and its head, pretrained as `model.pretrained` says."""
    encoder, head = ResNet38d(config), ResNet38dHead(config)
    load_backbone(encoder, head, config)
    return encoder, head


def load_backbone(encoder: ResNet38d, head: ResNet38dHead, config: ModelConfig) -> None:
    """Fill conv1a to bn7 from `weights_file`, a state dict of this backbone's tensor names.

    Other tensors of the file, such as an ImageNet classification layer, are not used.

    Raises:
        ConfigError: `pretrained` asks for weights that do not exist for this encoder.
        CheckpointError: The file cannot be read, or tensors are missing or misshapen.
    """
    if config.pretrained == "none":
        return
    if config.pretrained != "file" or config.weights_file is None:
        raise ConfigError(
            f"model.pretrained={config.pretrained} has no weights of {RESNET38D}; set "
            "model.pretrained=file and model.weights_file=FILE (a state dict with its tensor "
            "names), or model.pretrained=none"
        )
    found = read_tensors(config.weights_file)
    for module, prefix in ((encoder, ()), (head, HEAD_BLOCKS)):
        wanted = {
            name: tensor
            for name, tensor in module.state_dict().items()
            if name not in ("mean", "std") and (not prefix or name.split(".")[0] in prefix)
        }
        module.load_state_dict(choose(found, wanted, str(config.weights_file)), strict=False)


def choose(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Choose the tensors of `found` that `wanted` names; counters of batches may be absent.

    Raises:
        CheckpointError: One is missing or of another shape.
    """
    odd = compare(found, wanted)
    missing = [name for name in odd.missing if not name.endswith("num_batches_tracked")]
    if missing:
        raise CheckpointError(
            f"{source} holds no tensor {missing[0]}; give a state dict of {RESNET38D}"
        )
    if odd.misshapen:
        raise CheckpointError(f"{source}: {odd.misshapen[0]}; give a state dict of {RESNET38D}")
    return {name: found[name] for name in wanted if name in found}
