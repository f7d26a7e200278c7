"""What a training holds in memory and sends between ranks, counted without computing it.

The networks are built on the meta device, which knows shapes and no values; autograd says what a
forward pass keeps for its backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from wpcrack.config import MethodConfig, ModelConfig
from wpcrack.networks import Networks
from wpcrack.networks.fast_learning import count_as_on_cpu
from wpcrack.training.optim import freeze_norms
from wpcrack.training.stages import STAGES

Result = TypeVar("Result")

WEIGHT_BYTES = 4
"""Weights, gradients and optimizer states are float32 at every precision."""
COPIES_SHARE = 0.1
"""On a CPU, copies of maps from which a layer's gradients are computed, as a share of what forward
passes keep."""
STATES = {"adamw": 2, "sgd": 1}
"""Numbers that an optimizer keeps for each weight."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of one worker in the stage that needs most, without those of the program itself."""

    weights: int
    """Networks, teacher and average."""
    gradients: int
    """Of the largest set that is updated at once."""
    optimizers: int
    """Moments of all optimizers."""
    activations: dict[str, int]
    """What the forward passes of a step keep, by stage."""
    averaged: dict[str, int]
    """Gradients that ranks average in one step, by stage."""

    @property
    def total(self) -> int:
        """All of it in the stage that needs most."""
        return self.weights + self.gradients + self.optimizers + max(self.activations.values())


def parameters(network: nn.Module) -> int:
    """Count trained weights."""
    return sum(p.numel() for p in network.parameters())


def on_meta(config: ModelConfig, *, on_cpu: bool = False) -> Networks:
    """Build the networks without weights.

    Args:
        config: Which.
        on_cpu: Count what a CPU keeps of their forward passes; else what a GPU does.

    Raises:
        ConfigError: they cannot be built.
    """
    with torch.device("meta"):
        nets = Networks(config.model_copy(update={"pretrained": "none"}))
    if on_cpu:
        count_as_on_cpu(nets)
    return nets


def footprint(
    config: MethodConfig,
    size: tuple[int, int],
    local_batch: int,
    *,
    one_encoder: bool = False,
    on_cpu: bool = False,
) -> Footprint:
    """Count memory and traffic of a training.

    Args:
        config: what is learned.
        size: (H, W) of the windows in pixels.
        local_batch: images of a global batch that one worker reads.
        one_encoder: whether the detector stage goes on with one.
        on_cpu: whether it runs on a CPU.
    """
    nets = on_meta(config.model, on_cpu=on_cpu)
    c, r, d = (parameters(n) for n in (nets.classifier, nets.reconstructor, nets.detector))
    dropped = parameters(nets.reconstructor.encoder) if one_encoder else 0
    encoders = parameters(nets.classifier.encoder) + parameters(nets.reconstructor.encoder)
    encoders -= dropped
    train, states = config.train, STATES[config.optim.kind]
    fitted = d + encoders if train.joint else d
    copies = (c if config.pseudo_label.source == "ema" else 0) + (
        c + r + d - dropped if train.detector_ema and train.steps.detector else 0
    )
    moments = states * (c + r) + 2 * d
    if train.joint or train.joint_after is not None:
        # those that it learned with in joint epochs before stay
        held = encoders + (dropped if train.joint_after is not None else 0)
        moments += states * held + (2 * d if config.optim.kind == "adamw" else 0)
    return Footprint(
        weights=WEIGHT_BYTES * (c + r + d + copies),
        gradients=WEIGHT_BYTES * max(c, r, fitted),
        optimizers=WEIGHT_BYTES * moments,
        activations={
            stage: round(kept * (1 + COPIES_SHARE * on_cpu))
            for stage, kept in activations(nets, config, size, local_batch, one_encoder).items()
        },
        averaged={
            stage: WEIGHT_BYTES * count
            for stage, count in zip(STAGES, (c, c + r + d, fitted), strict=True)
        },
    )


def activations(
    nets: Networks,
    config: MethodConfig,
    size: tuple[int, int],
    local_batch: int,
    one_encoder: bool,
) -> dict[str, int]:
    """Count the bytes that a step's forward passes keep, by stage; half of the images are crack."""
    dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
    nets = nets.to(dtype).train()
    if config.train.freeze_batchnorm:
        freeze_norms(nets)
    images = max(1, -(-local_batch // config.train.accumulate))
    image = torch.empty(images, 3, *size, dtype=dtype, device="meta")
    part = torch.arange(max(1, images // 2), device="meta")
    keep = torch.empty(len(part), 1, *size, dtype=dtype, device="meta")
    activation, look = measure(nets, lambda: nets.classifier(image))
    encoding, encode = measure(nets, lambda: nets.reconstructor.encode(image, part))
    _, paint = measure(nets, lambda: nets.reconstructor.decode(encoding.feature, keep))
    features = activation.features, encoding.activation.features
    _, detect = measure(nets, lambda: nets.detector(*features, image.shape[-2:]))
    reconstruct, hide = (paint, paint) if config.train.recompute else (3 * paint, 2 * paint)
    if config.train.schedule == "shared" and config.train.accumulate == 1:
        adversarial = look + encode + reconstruct
    else:
        adversarial = max(encode + reconstruct, look + hide)
    see = look + (0 if one_encoder else encode)
    fit = detect + (see if config.train.joint else 0)
    return dict(zip(STAGES, (look, max(adversarial, detect), fit), strict=True))


def measure(nets: Networks, forward: Callable[[], Result]) -> tuple[Result, int]:
    """Run `forward`; return its result and the bytes kept for backward beside the weights."""
    weights = {t.untyped_storage()._cdata for t in (*nets.parameters(), *nets.buffers())}
    found: dict[int, torch.UntypedStorage] = {}  # holds them, so that no address is used twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            found[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = forward()
    return result, sum(storage.nbytes() for storage in found.values())
