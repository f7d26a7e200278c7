"""Torch networks -> OpenVINO graph: the whole path from 8-bit pixels to probability.

The networks are first folded into a form of equal values that takes fewer passes over memory
(measured with bf16 on one window of 512x512 and one thread: 54.5 -> 37.3 ms).

Shape letters: B images, C channels, h w cells.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wpcrack.inference.machine import openvino
from wpcrack.inference.rewrite import bilinear_kernel
from wpcrack.inference.scales import ScaledProbability
from wpcrack.networks import Detector, Features, Networks
from wpcrack.networks.detector import ChannelNorm, DirectionalConv, Mix, PathAttention


def convert(networks: Networks, scales: Sequence[float] = (1.0,), power: float = 2.0) -> Any:
    """Return the `openvino.Model` of networks: (1, H, W, 3) uint8 -> (1, 1, H, W) float32.

    It has an output for the first scale, for the first two fused with a power, and so on.
    """
    ov = openvino()
    example = torch.zeros(1, 3, 64, 96)
    steps = _Steps(ScaledProbability(fold(networks), scales, power)).cpu().eval()
    with warnings.catch_warnings():  # torch.jit.trace is deprecated, and the converter needs it
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        # Here and not by the converter, which traces again to compare: a third of the time
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            steps, example, strict=False, check_trace=False
        )
        graph = ov.convert_model(
            traced, example_input=example, input=[ov.PartialShape([1, 3, -1, -1])]
        )
    pixels = ov.preprocess.PrePostProcessor(graph)
    pixels.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    pixels.input().model().set_layout(ov.Layout("NCHW"))
    pixels.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
    return pixels.build()


class _Steps(nn.Module):
    """`ScaledProbability.fused_steps` as a module."""

    def __init__(self, scaled: ScaledProbability) -> None:
        super().__init__()
        self.scaled = scaled

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map (B, 3, H, W) -> (B, 1, H, W) per number of scales."""
        return self.scaled.fused_steps(image)


def fold(networks: Networks) -> Networks:
    """Return a copy for inference that computes the same logits (to float32 rounding) in less time.

    Three parts are rewritten, the encoders are left to the engine:
    the channel norm after a convolution (its mean moves into the weights), the directional kernels
    (each becomes as narrow as its line), and the last doubling (a convolution instead of a resize).

    Args:
        networks: Trained networks; not changed.

    Returns:
        Networks in eval mode without gradients.
    """
    folded = copy.deepcopy(networks).eval().requires_grad_(False)
    for module in list(folded.modules()):
        if isinstance(module, Mix):
            module.norm = CenteredNorm(module.norm)  # type: ignore[assignment]
            center_outputs(module.conv)
        elif isinstance(module, PathAttention) and module.config.spatial:
            module.direction = LineFilters(module.direction)  # type: ignore[assignment]
    if isinstance(folded.detector, Detector) and folded.detector.low_levels[-1:] == (2,):
        folded.detector = DoublingDetector(folded.detector)  # type: ignore[assignment]
    return folded


def center_outputs(conv: nn.Conv2d) -> None:
    """Make the outputs of a convolution without bias sum to zero at every pixel.

    mean_c(W_c * x) = mean_c(W_c) * x, so a norm behind it need not subtract the mean.
    """
    assert conv.bias is None
    conv.weight.sub_(conv.weight.mean(0, keepdim=True))


class CenteredNorm(nn.Module):
    """`ChannelNorm` of an input whose channels have mean zero: no transposition, no mean."""

    def __init__(self, norm: ChannelNorm) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.norm.weight[:, None, None], requires_grad=False)
        self.bias = nn.Parameter(norm.norm.bias[:, None, None], requires_grad=False)
        self.epsilon = norm.norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) -> (B, C, h, w)."""
        variance = (x * x).mean(1, keepdim=True)
        return x * torch.rsqrt(variance + self.epsilon) * self.weight + self.bias


class LineFilters(nn.Module):
    """`DirectionalConv` and the maximum over its directions; horizontal and vertical are 1D."""

    def __init__(self, direction: DirectionalConv) -> None:
        super().__init__()
        kernels = direction.weight * direction.mask[:, None]  # (4, C, L, L): 0 45 90 135 degrees
        center = slice(direction.length // 2, direction.length // 2 + 1)
        lines = kernels[0][:, center], kernels[1], kernels[2][:, :, center], kernels[3]
        self.kernels = nn.ParameterList(
            nn.Parameter(line[:, None].clone(), requires_grad=False) for line in lines
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) -> (B, 1, C, h, w): the strongest response."""
        first, *others = self.responses(x)
        for other in others:
            first = torch.maximum(first, other)
        return first[:, None]

    def responses(self, x: Tensor) -> Iterator[Tensor]:
        """Yield (B, C, h, w) along each direction."""
        for kernel in self.kernels:
            height, width = kernel.shape[-2:]
            yield F.conv2d(x, kernel, padding=(height // 2, width // 2), groups=kernel.shape[0])


class DoublingDetector(nn.Module):
    """`Detector` whose pyramid ends at stride 2; a 3x3 convolution gives 2x2 pixels per cell.

    With half-pixel centers a doubled line is .25 left + .75 here, .75 here + .25 right; beyond the
    edge the nearest cell counts.
    """

    phases: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        self.register_buffer("phases", torch.from_numpy(bilinear_kernel(2)))

    def forward(self, classifier: Features, reconstructor: Features, size: Sequence[int]) -> Tensor:
        """Return (B, 1, H, W) crack logits of the features of both encoders; size = (H, W)."""
        logits = self.detector.logit(self.detector.pyramid(classifier, reconstructor))
        cells = F.pad(logits, (1, 1, 1, 1), mode="replicate")
        return F.pixel_shuffle(F.conv2d(cells, self.phases), 2)
