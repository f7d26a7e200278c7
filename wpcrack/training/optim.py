"""Optimizers of the three networks, the update of one phase, learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wpcrack import distributed
from wpcrack.config import OptimConfig
from wpcrack.errors import NotFiniteError
from wpcrack.networks import Networks

Terms = Mapping[str, Tensor]
"""Weighted loss terms by name; their sum is what a phase descends."""


@dataclass(frozen=True)
class Optimizers:
    """One optimizer per updated set of parameters."""

    classifier: torch.optim.Optimizer
    reconstructor: torch.optim.Optimizer
    detector: torch.optim.Optimizer
    joint: torch.optim.Optimizer
    """Detector and both encoders (joint fine-tuning); under SGD only the encoders."""

    def by_name(self) -> dict[str, torch.optim.Optimizer]:
        """List the optimizers by name, for checkpoints and schedules."""
        return {
            "classifier": self.classifier,
            "reconstructor": self.reconstructor,
            "detector": self.detector,
            "joint": self.joint,
        }

    def rates(self) -> dict[str, float]:
        """Return the learning rate of each optimizer's groups, by `optimizer, peak RATE`."""
        return {
            f"{name}, peak {group['peak_lr']:g}": float(group["lr"])
            for name, optimizer in self.by_name().items()
            for group in optimizer.param_groups
        }

    def for_joint(self) -> tuple[torch.optim.Optimizer, ...]:
        """Return what steps in joint fine-tuning: under SGD the detector keeps its AdamW."""
        if isinstance(self.joint, torch.optim.SGD):
            return self.detector, self.joint
        return (self.joint,)


def make_optimizers(nets: Networks, config: OptimConfig) -> Optimizers:
    """Make the optimizers: pretrained layers learn at `encoder_lr`, new ones at `head_lr`."""
    c, r, d = nets.classifier, nets.reconstructor, nets.detector
    make = sgd if config.kind == "sgd" else adamw
    return Optimizers(
        classifier=make([c.encoder, *c.head.pretrained_layers()], c.head.new_layers(), config),
        reconstructor=make(
            [r.encoder, *r.head.pretrained_layers()],
            [*r.head.new_layers(), *r.reducers(), r.decoder],
            config,
        ),
        detector=adamw([], [d], config),
        joint=make([c.encoder, r.encoder], [] if config.kind == "sgd" else [d], config),
    )


def adamw(
    pretrained: Sequence[nn.Module], new: Sequence[nn.Module], config: OptimConfig
) -> torch.optim.AdamW:
    """Make AdamW over `groups`, one fused kernel."""
    return torch.optim.AdamW(groups(pretrained, new, config), lr=config.head_lr, fused=True)


def sgd(
    pretrained: Sequence[nn.Module], new: Sequence[nn.Module], config: OptimConfig
) -> torch.optim.SGD:
    """Make SGD with momentum; transposed convolutions learn at `transpose_lr` if it is set."""
    transposed = [
        module
        for parent in new
        for module in parent.modules()
        if isinstance(module, nn.ConvTranspose2d) and config.transpose_lr is not None
    ]
    special = {id(p) for module in transposed for p in module.parameters()}
    members = []
    for group in groups(pretrained, new, config):
        for is_special in (False, True):
            parameters = [p for p in group["params"] if (id(p) in special) == is_special]
            rate = config.transpose_lr if is_special else group["peak_lr"]
            if parameters:
                members.append({**group, "params": parameters, "peak_lr": rate})
    return torch.optim.SGD(members, lr=config.head_lr, momentum=config.momentum, fused=True)


def groups(
    pretrained: Iterable[nn.Module], new: Iterable[nn.Module], config: OptimConfig
) -> list[dict[str, Any]]:
    """Make parameter groups with their peak learning rates; biases and norms do not decay."""
    return [
        *groups_at(config.encoder_lr, pretrained, config.weight_decay),
        *groups_at(config.head_lr, new, config.weight_decay),
    ]


def groups_at(rate: float, modules: Iterable[nn.Module], decay: float) -> list[dict[str, Any]]:
    """Make parameter groups of one peak learning rate; biases and norms do not decay."""
    members = [p for module in modules for p in module.parameters()]
    matrices = [p for p in members if p.ndim > 1]
    vectors = [p for p in members if p.ndim <= 1]
    return [
        {"params": parameters, "peak_lr": rate, "weight_decay": own}
        for parameters, own in ((matrices, decay), (vectors, 0.0))
        if parameters
    ]


def continue_from(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Take what an optimizer had learned of its gradients; rates and decay stay those of now.

    Raises:
        ValueError: The state is of other groups, or of another kind of optimizer.
    """
    own = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    kinds = [{"betas" in group for group in groups} for groups in (own, state["param_groups"])]
    if kinds[0] != kinds[1]:
        raise ValueError("the state is of another optim.kind")
    optimizer.load_state_dict(dict(state))
    for group, now in zip(optimizer.param_groups, own, strict=True):
        group.update(now)


def set_learning_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set each group to `share` of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * share


@torch.no_grad()
def average(slow: nn.Module, fast: nn.Module, keep: float) -> None:
    """Move each tensor of `slow` towards that of `fast`, by the share 1 - `keep`."""
    tensors = ([*module.parameters(), *module.buffers()] for module in (slow, fast))
    for mean, value in zip(*tensors, strict=True):  # each once, also of a shared encoder
        if mean.is_floating_point():
            mean.lerp_(value, 1 - keep)
        else:
            mean.copy_(value)


def learning_rate_share(progress: float, config: OptimConfig) -> float:
    """Return the learning rate as a share of its peak at `progress` in [0, 1] of a stage."""
    return poly(progress, config) if config.schedule == "poly" else one_cycle(progress, config)


def poly(progress: float, config: OptimConfig) -> float:
    """Decay as (1 - progress / poly_end)^poly_power, 0 from `poly_end` on (paper)."""
    return float(max(0.0, 1 - progress / config.poly_end) ** config.poly_power)


def one_cycle(progress: float, config: OptimConfig) -> float:
    """Rise linearly during `warmup_share`, then fall along a cosine to `final_share`."""
    if progress < config.warmup_share:
        return max(progress / config.warmup_share, config.final_share)
    rest = (progress - config.warmup_share) / max(1 - config.warmup_share, 1e-9)
    return config.final_share + (1 - config.final_share) * (1 + math.cos(math.pi * rest)) / 2


def descend(
    pieces: Iterable[Terms],
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    clip_norm: float | None,
) -> Terms:
    """Update once: backward, mean gradient over ranks, clipping, step of one or more optimizers.

    Args:
        pieces: the terms of each piece of the local batch, whose gradients add up; made one after
            the other, so that only one piece's forward pass is in memory.
        optimizer: what steps.
        clip_norm: largest norm of the gradient; None: no limit.

    Returns:
        The sum of the pieces' terms, without their graph.

    Raises:
        NotFiniteError: if a term (named) or the gradient is not finite on any rank; raised on every
            rank, so that none waits for another. Nothing has been updated then.
    """
    several = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else optimizer
    parameters = [p for each in several for group in each.param_groups for p in group["params"]]
    for each in several:
        each.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for terms in pieces:
        add_gradients(terms)
        for name, term in terms.items():
            sums[name] = sums[name] + term.detach() if name in sums else term.detach()
    values = torch.stack(list(sums.values()))
    broken = distributed.average_gradients(parameters, (~values.isfinite()).float())
    norm = nn.utils.clip_grad_norm_(parameters, math.inf if clip_norm is None else clip_norm)
    if not norm.isfinite() or broken.any():
        raise not_finite(sums, broken, norm)
    for each in several:
        each.step()
    return sums


def add_gradients(terms: Terms) -> None:
    """Run backward from the sum of the terms."""
    values = torch.stack(list(terms.values()))
    with torch.autocast(values.device.type, enabled=False):
        values.sum().backward()  # type: ignore[no-untyped-call]


def not_finite(terms: Terms, broken: Tensor, norm: Tensor) -> NotFiniteError:
    """Make the error for a loss or gradient that is infinite or no number.

    Args:
        terms: as on this rank.
        broken: (number of terms,) on how many ranks each is not finite.
        norm: of the gradient.
    """
    if broken.any():
        name = list(terms)[int(broken.argmax())]
        here = ", ".join(f"{term}={value.item():.4g}" for term, value in terms.items())
        what = f"loss term {name}"
    else:
        name, here = next(iter(terms)), f"norm={norm.item():.4g}"
        what = f"the gradient of {' + '.join(terms)}"
    return NotFiniteError(
        f"{what} is not finite ({here}); the last checkpoint is kept: "
        "lower optim.encoder_lr and optim.head_lr and start again",
        name,
    )


def freeze_norms(network: nn.Module) -> None:
    """Let batch norms keep their statistics while the network trains."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Let no parameter of these networks collect a gradient; gradients still flow through them.

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


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Hold a network in eval mode (no dropout); every mode is restored afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode
