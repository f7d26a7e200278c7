"""Data-parallel training without wrappers: explicit averages, counts and checks between ranks.

Without an initialized process group every function is the identity of a single rank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wpcrack.errors import TrainingError

T = TypeVar("T")


def world_size() -> int:
    """Count the ranks."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this rank, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def broadcast_weights(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0."""
    if world_size() > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


def average_gradients(parameters: Iterable[nn.Parameter], counts: Tensor) -> Tensor:
    """Replace each gradient by its mean over ranks, in one all_reduce.

    A parameter without a gradient keeps none, so that the optimizer leaves it alone as it does on
    a single rank. Which ones have a gradient follows from the network, not from data, so it is the
    same on every rank.

    Args:
        parameters: in the same order on every rank.
        counts: (K,) travel with the gradients, since each all_reduce makes ranks wait.

    Returns:
        The counts, summed over ranks.
    """
    if world_size() == 1:
        return counts
    members = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([*(gradient.reshape(-1) for gradient in members), counts.to(members[0])])
    dist.all_reduce(flat)
    start = 0
    for gradient in members:  # in place: fused optimizers need the strides of the parameter
        gradient.copy_(flat[start : start + gradient.numel()].view(gradient.shape))
        gradient /= world_size()
        start += gradient.numel()
    return flat[start:]


def average(values: Sequence[float], device: torch.device) -> list[float]:
    """Average a few numbers over ranks."""
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    if world_size() > 1:
        dist.all_reduce(tensor)
        tensor /= world_size()
    return [float(v) for v in tensor.tolist()]


def from_first(value: T) -> T:
    """Return what the first rank gives, on every rank."""
    if world_size() == 1:
        return value
    shared = [value]
    dist.broadcast_object_list(shared, 0)
    return shared[0]


def total(tensor: Tensor, device: torch.device) -> Tensor:
    """Sum a tensor over ranks, on the device through which the ranks talk."""
    summed = tensor.detach().clone().to(device)
    if world_size() > 1:
        dist.all_reduce(summed)
    return summed


def assert_equal_weights(module: nn.Module) -> None:
    """Compare a hash of every tensor across ranks.

    Raises:
        TrainingError: naming the first tensor that differs.
    """
    if world_size() == 1:
        return
    mine = {k: digest(v) for k, v in module.state_dict().items()}
    everyone: list[dict[str, str] | None] = [None] * world_size()
    dist.all_gather_object(everyone, mine)
    for name, value in mine.items():
        if any(other is None or other[name] != value for other in everyone):
            raise TrainingError(
                f"tensor {name} differs between workers, so their updates are no longer averaged; "
                "stop, and continue from the last checkpoint"
            )


def digest(tensor: Tensor) -> str:
    """Hash a tensor's bytes."""
    data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return hashlib.blake2b(data, digest_size=8).hexdigest()
