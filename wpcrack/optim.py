"""Optimizers of the three networks, the update of one phase, the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wpcrack import distributed
from wpcrack.config import OptimConfig
from wpcrack.errors import TrainingError
from wpcrack.networks import Networks

Terms = Mapping[str, Tensor]
"""Weighted loss terms by name; their sum is what a phase descends."""


@dataclass(frozen=True)
class Optimizers:
    """One optimizer per updated set of parameters."""

    classifier: torch.optim.AdamW
    reconstructor: torch.optim.AdamW
    detector: torch.optim.AdamW
    joint: torch.optim.AdamW
    """Detector and both encoders (joint fine-tuning)."""

    def named(self) -> dict[str, torch.optim.AdamW]:
        """By name, for checkpoints and schedules."""
        return {
            "classifier": self.classifier,
            "reconstructor": self.reconstructor,
            "detector": self.detector,
            "joint": self.joint,
        }


def make_optimizers(nets: Networks, config: OptimConfig) -> Optimizers:
    """AdamW; pretrained encoders learn at `encoder_lr`, everything new at `head_lr`."""
    c, r, d = nets.classifier, nets.reconstructor, nets.detector
    return Optimizers(
        classifier=adamw([c.encoder], [c.head], config),
        reconstructor=adamw(
            [r.encoder], [r.head, r.reduce_shallow, r.reduce_deep, r.decoder], config
        ),
        detector=adamw([], [d], config),
        joint=adamw([c.encoder, r.encoder], [d], config),
    )


def adamw(
    pretrained: Iterable[nn.Module], new: Iterable[nn.Module], config: OptimConfig
) -> torch.optim.AdamW:
    """Groups with their peak learning rates, one fused kernel; biases and norms do not decay."""
    groups = []
    for modules, rate in ((pretrained, config.encoder_lr), (new, config.head_lr)):
        members = [p for module in modules for p in module.parameters()]
        matrices = [p for p in members if p.ndim > 1]
        vectors = [p for p in members if p.ndim <= 1]
        for parameters, decay in ((matrices, config.weight_decay), (vectors, 0.0)):
            if parameters:
                groups.append({"params": parameters, "peak_lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups, lr=config.head_lr, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Sets each group to `share` of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * share


def one_cycle(progress: float, config: OptimConfig) -> float:
    """Learning rate as a share of the peak at `progress` in [0, 1] of a stage.

    Rises linearly during `warmup_share`, then falls along a cosine to `final_share`.
    """
    if progress < config.warmup_share:
        return max(progress / config.warmup_share, config.final_share)
    rest = (progress - config.warmup_share) / max(1 - config.warmup_share, 1e-9)
    return config.final_share + (1 - config.final_share) * (1 + math.cos(math.pi * rest)) / 2


def descend(terms: Terms, optimizer: torch.optim.Optimizer, clip_norm: float) -> None:
    """One update: backward, mean gradient over ranks, clipping, step.

    Raises:
        TrainingError: if a term (named) or the gradient is not finite on any rank; raised on every
            rank, so that none waits for another. Nothing has been updated then.
    """
    values = torch.stack(list(terms.values()))
    broken = distributed.total((~values.isfinite()).float(), values.device).tolist()
    if any(broken):
        name = list(terms)[broken.index(max(broken))]
        here = ", ".join(f"{k}={v:.4g}" for k, v in zip(terms, values.tolist(), strict=True))
        raise not_finite(f"loss term {name}", here)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.zero_grad(set_to_none=True)
    values.sum().backward()  # type: ignore[no-untyped-call]
    distributed.average_gradients(parameters)
    norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
    if not norm.isfinite():
        raise not_finite(f"the gradient of {' + '.join(terms)}", f"norm={norm.item():.4g}")
    optimizer.step()


def not_finite(what: str, figures: str) -> TrainingError:
    """The error for a loss or gradient that is infinite or no number."""
    return TrainingError(
        f"{what} is not finite ({figures}); the last checkpoint is kept: "
        "lower optim.encoder_lr and optim.head_lr and start again"
    )


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """No parameter of these networks collects a gradient; gradients still flow through them.

    Every flag is restored afterwards, also after an exception.
    """
    flags = [(p, p.requires_grad) for network in networks for p in network.parameters()]
    try:
        for p, _ in flags:
            p.requires_grad_(False)
        yield
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)
