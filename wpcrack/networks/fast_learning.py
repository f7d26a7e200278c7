"""Convolutions and norms of a timm EfficientNet that learn fast on CPUs.

torch computes both with oneDNN, whose forward pass is fast. Of a training step of the encoder,
nearly half was spent on other things:

* the gradient of the input of a depthwise convolution with a dilation: twenty times as long as the
  forward pass. It is a convolution with the turned kernel, so it is computed as one;
* the gradient of depthwise kernels with a dilation, or with more than 3 columns: ten times as long
  as up to 3. A dilation d never mixes cells whose rows or columns differ modulo d, so cells are
  sorted by that and have no dilation then; of a wide kernel, 3 columns are computed at a time;
* norms whose statistics are frozen, as those of a pretrained encoder are: they only scale and shift
  what a convolution gives, so its kernels and bias are scaled and shifted instead. That also keeps
  a map less in memory for the backward pass;
* copies of maps that torch makes to clamp and to pad them.

Weights have the names of timm's, and mean the same. Outputs and gradients are equal up to rounding.
On GPUs, under autocast, where nothing is learned or a graph is traced, all runs as timm has it.

Shape letters: B images, C channels, H W cells, d dilation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pad = Callable[..., Tensor]

_COLUMNS = 3
"""Columns of a depthwise kernel whose gradient oneDNN computes fast."""

_STEM = (("conv_stem", "bn1"),)
"""A convolution and the norm that follows it, in timm's EfficientNets."""

_SEPARABLE = (("conv_dw", "bn1"), ("conv_pw", "bn2"))
"""The same in their DepthwiseSeparableConv."""

_INVERTED = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))
"""The same in their InvertedResidual."""


class FoldableNorm(nn.BatchNorm2d):
    """timm's BatchNormAct2d; does nothing but its activation where its convolution did the rest.

    Attributes:
        devices: Where it is folded; "meta" among them counts what a CPU would hold.
    """

    devices: tuple[str, ...] = ("cpu",)

    def __init__(self, old: nn.BatchNorm2d, act: nn.Module) -> None:
        super().__init__(old.num_features, old.eps, old.momentum, device="meta")
        self.weight, self.bias = old.weight, old.bias
        for name, buffer in old.named_buffers():
            self.register_buffer(name, buffer)
        self.act = act

    def is_folded(self, x: Tensor) -> bool:
        """Whether the convolution before scales and shifts (of its input, or of its output, x)."""
        if self.training or x.device.type not in self.devices or x.dtype != torch.float32:
            return False
        is_traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        return torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu") and not is_traced

    def fold(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return kernels and bias of a convolution (C, ...) followed by this norm."""
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return weight * scale.view(-1, 1, 1, 1), self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        y: Tensor
        if not self.is_folded(x):
            y = self.act(super().forward(x))
        elif isinstance(self.act, nn.ReLU6):
            y = _Relu6.apply(x)
        else:
            y = self.act(x)
        return y


class FoldedConv2d(nn.Conv2d):
    """A convolution without bias that is followed by a `FoldableNorm`.

    Attributes:
        followed_by: The norm; in a tuple, so that it is not a part of this module as well.
        pad: timm's `pad_same`, where maps are padded as TensorFlow does ("SAME"): size / stride
            cells are given, and of an odd number that this takes one more is added right and below.
    """

    def __init__(self, old: nn.Conv2d, norm: FoldableNorm, pad: Pad | None) -> None:
        assert not isinstance(old.padding, str)
        super().__init__(
            old.in_channels,
            old.out_channels,
            (old.kernel_size[0], old.kernel_size[1]),
            (old.stride[0], old.stride[1]),
            (old.padding[0], old.padding[1]),
            (old.dilation[0], old.dilation[1]),
            old.groups,
            bias=False,
            device="meta",
        )
        self.weight = old.weight
        self.followed_by, self.pad = (norm,), pad
        self.is_slow = pad is None and gradient_is_slow(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        (norm,) = self.followed_by
        y: Tensor
        if not norm.is_folded(x):
            if self.pad is not None:
                x = self.pad(x, self.kernel_size, self.stride, self.dilation)
            y = self._conv_forward(x, self.weight, None)
        elif self.is_slow:
            y = _Depthwise.apply(x, *norm.fold(self.weight), self.dilation[0])
        else:
            if self.pad is not None:
                x = _Pad.apply(x, (*self._margins(x.shape[3], 1), *self._margins(x.shape[2], 0)))
            y = self._conv_forward(x, *norm.fold(self.weight))
        return y

    def _margins(self, size: int, axis: int) -> tuple[int, int]:
        """Return how many cells are added before and after a side of a map."""
        stride, reach = self.stride[axis], self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
        lacking = max((-(-size // stride) - 1) * stride + reach - size, 0)
        return lacking // 2, lacking - lacking // 2


def gradient_is_slow(conv: nn.Conv2d) -> bool:
    """Whether a convolution is one of those whose gradients `_Depthwise` computes faster."""
    d = conv.dilation[0]
    rows, columns = conv.kernel_size
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.stride == (1, 1)
        and conv.padding_mode == "zeros"
        and rows % 2 == columns % 2 == 1
        and conv.dilation == (d, d)
        and conv.padding == (d * (rows // 2), d * (columns // 2))
        and (d > 1 or columns > _COLUMNS)
    )


class _Relu6(torch.autograd.Function):
    """Clamp to [0, 6] in place. torch's own keeps a copy of its input, ours needs its output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(x.clamp_(0, 6))
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        back: Tensor = torch.ops.aten.hardtanh_backward(gradient, y, 0, 6)
        return back


class _Pad(torch.autograd.Function):
    """Add zeros left, right, above and below; torch's own writes the whole map twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sides: tuple[int, int, int, int]) -> Tensor:
        left, right, above, below = sides
        b, c, h, w = x.shape
        padded = x.new_empty((b, above + h + below, left + w + right, c)).permute(0, 3, 1, 2)
        padded[:, :, :above] = 0
        padded[:, :, above + h :] = 0
        padded[..., :left] = 0
        padded[..., left + w :] = 0
        padded[:, :, above : above + h, left : left + w] = x
        ctx.inside = slice(above, above + h), slice(left, left + w)
        return padded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        rows, columns = ctx.inside
        return gradient[:, :, rows, columns], None


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution of stride 1 that keeps the size of a map, with our own gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, d: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.d = d
        return _convolve(x, weight, bias, d)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return (
            _convolve(gradient, weight.flip(2, 3), None, ctx.d) if of_x else None,
            kernel_gradient(x, gradient, weight, ctx.d) if of_weight else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
            None,
        )


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, d: int) -> Tensor:
    rows, columns = (d * (side // 2) for side in weight.shape[2:])
    return F.conv2d(x, weight, bias, 1, (rows, columns), d, weight.shape[0])


def kernel_gradient(x: Tensor, gradient: Tensor, weight: Tensor, d: int) -> Tensor:
    """Return the gradient of (C, 1, rows, columns) kernels with dilation d and odd sides.

    Args:
        x: (B, C, H, W) input.
        gradient: (B, C, H, W) of the output.
        weight: Of whose shape the result is.
        d: Dilation.
    """
    rows, columns = weight.shape[2:]
    lacking = -x.shape[2] % d, -x.shape[3] % d
    if any(lacking):
        margin = (0, lacking[1], 0, lacking[0])
        x, gradient = F.pad(x, margin), F.pad(gradient, margin)
    w = x.shape[3] // d
    given = phases(gradient, d, 0, w)
    parts = []
    for first in range(0, columns, _COLUMNS):
        count = min(_COLUMNS, columns - first)
        reach = first - columns // 2  # from a cell of the output to the leftmost that it sees
        parts.append(
            torch.ops.aten.convolution_backward(
                given,
                phases(x, d, reach, w + count - 1),
                weight[..., first : first + count],
                None,  # sizes of a bias
                [1, 1],  # stride
                [rows // 2, 0],  # padding
                [1, 1],  # dilation
                False,  # transposed
                [0, 0],  # output padding
                weight.shape[0],  # groups
                [False, True, False],  # of the kernels alone
            )[1]
        )
    return torch.cat(parts, 3)


def phases(x: Tensor, d: int, first: int, count: int) -> Tensor:
    """Sort cells by row and column modulo d, and take some columns; those beyond the edges are 0.

    Args:
        x: (B, C, H, W), sides multiples of d.
        d: Dilation.
        first: First column of each phase that is taken; less than 0: beyond the left edge.
        count: Columns that are taken.

    Returns:
        (d * d * B, C, H / d, count), channels last.
    """
    b, c, h, w = x.shape
    cells = x.permute(0, 2, 3, 1).reshape(b, h // d, d, w // d, d, c).permute(2, 4, 0, 1, 3, 5)
    low, high = max(first, 0), min(first + count, w // d)
    taken = x.new_empty((d, d, b, h // d, count, c))
    taken[..., : low - first, :] = 0
    taken[..., high - first :, :] = 0
    taken[..., low - first : high - first, :] = cells[..., low:high, :]
    return taken.view(d * d * b, h // d, count, c).permute(0, 3, 1, 2)


def count_as_on_cpu(networks: nn.Module) -> None:
    """Let networks on the meta device keep what they would keep on a CPU."""
    for module in networks.modules():
        if isinstance(module, FoldableNorm):
            module.devices = "cpu", "meta"


def learn_fast(body: nn.Module) -> None:
    """Give a timm EfficientNet the convolutions and norms of this module; others stay as they are.

    Args:
        body: The network; changed in place, its weights keep their names.
    """
    from timm.layers.conv2d_same import Conv2dSame
    from timm.layers.norm_act import BatchNormAct2d
    from timm.layers.padding import pad_same
    from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual

    known = nn.Conv2d, Conv2dSame

    def replace(block: nn.Module, pairs: Sequence[tuple[str, str]]) -> None:
        for name, norm_name in pairs:
            conv, norm = getattr(block, name, None), getattr(block, norm_name, None)
            if not isinstance(norm, BatchNormAct2d) or not isinstance(norm.drop, nn.Identity):
                continue
            if isinstance(conv, nn.Conv2d) and type(conv) in known and conv.bias is None:
                new = FoldableNorm(norm, norm.act)
                pad = pad_same if isinstance(conv, Conv2dSame) else None
                setattr(block, name, FoldedConv2d(conv, new, pad))
                setattr(block, norm_name, new)

    replace(body, _STEM)
    for block in body.modules():
        if isinstance(block, DepthwiseSeparableConv):
            replace(block, _SEPARABLE)
        elif isinstance(block, InvertedResidual):
            replace(block, _INVERTED)
