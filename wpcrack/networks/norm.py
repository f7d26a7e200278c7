"""Batch normalization of the paper's networks: frozen, or with statistics of the global batch.

Shape letters: B images, C channels, H W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from wpcrack.distributed import world_size

EPSILON = 1e-5
MOMENTUM = 0.1


class FrozenBatchNorm(nn.Module):
    """BatchNorm that keeps its statistics and affine map in every mode (the paper's backbone).

    y = (x - mean) / sqrt(var + 1e-5) * weight + bias; every tensor is a buffer, so nothing here is
    ever trained, and the backward pass needs no copy of x.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (B, C, H, W)."""
        scale = self.weight * torch.rsqrt(self.running_var + EPSILON)
        shift = self.bias - self.running_mean * scale
        scale, shift = (v.to(x.dtype).view(1, -1, 1, 1) for v in (scale, shift))
        return torch.addcmul(shift, x, scale)


class GlobalBatchNorm(nn.Module):
    """BatchNorm with the statistics of the batch over all ranks (torch's is for GPUs only).

    Running statistics stay equal on all ranks. It is no `nn.BatchNorm2d`, so freezing those of a
    pretrained encoder leaves it alone.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (B, C, H, W)."""
        mean, var = self.running_mean, self.running_var
        if self.training:
            self.num_batches_tracked += 1
        if world_size() == 1 or not self.training:
            return F.batch_norm(
                x, mean, var, self.weight, self.bias, self.training, MOMENTUM, EPSILON
            )
        flat = x.float()
        local = torch.full_like(mean, x.numel() / x.shape[1])
        sums = torch.stack([flat.sum((0, 2, 3)), flat.square().sum((0, 2, 3)), local])
        first, second, count = _SumOverRanks.apply(sums).unbind()
        first, second = first / count, second / count
        variance = (second - first.square()).clamp_min(0)
        with torch.no_grad():
            mean.lerp_(first, MOMENTUM)
            var.lerp_(variance * (count / (count - 1).clamp_min(1)), MOMENTUM)
        scale = self.weight * torch.rsqrt(variance + EPSILON)
        shift = self.bias - first * scale
        y: Tensor = (flat * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)).to(x.dtype)
        return y


class _SumOverRanks(torch.autograd.Function):
    """Sum over ranks whose gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clone()
        dist.all_reduce(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
