"""What a training starts from: the shipped model, another model, or ImageNet weights.

A model that only predicts has one encoder and a detector: both encoders start from it, the heads
and the decoder from scratch. What it becomes has one again (`train.one_encoder`). The shipped model
is a help, not a condition: where there is none, or its networks are others than the training's, the
training starts from ImageNet and says so.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wpcrack.config import ModelConfig, StageSteps, TrainedModelConfig
from wpcrack.errors import CheckpointError
from wpcrack.model import (
    WEIGHTS,
    find_model,
    has_one_encoder,
    load_model,
    only_predicts,
    read_info,
)
from wpcrack.networks import Networks

PATH = ("classifier.encoder.", "reconstructor.encoder.", "detector.")
"""First words of the names of tensors that compute a prediction."""

PATH_KEYS = ("encoder", "width_divisor", "detector", "detector_channels", "paam")
"""Keys of a model that decide the shapes of encoder and detector."""

REPLACED = {
    "self_training": "trained_detector",
    "cam_crack": "trained_crack",
    "cam_road": "trained_road",
}
"""Keys of `pseudo_label`, and those in their place where a detector came along with a model."""

LEARNED_POWER = 1.75
"""Fusion of the scales in a model that learns from photographs, until its training ends and
`wpcrack.training.fusion` chooses."""


@dataclass(frozen=True)
class Start:
    """Where a training starts.

    Attributes:
        folder: Of the model; None: ImageNet weights.
        note: For the user.
        looks: Fields of `ModelInfo` that say at which scales the trained model will look.
        one_encoder: Whether both inputs of its detector come from one encoder.
    """

    folder: Path | None
    note: str
    looks: Mapping[str, Any] = field(default_factory=dict)
    one_encoder: bool = False

    @property
    def scales(self) -> tuple[float, ...]:
        """Sizes of the image that the model looks at; 1 alone for ImageNet weights."""
        return tuple(self.looks.get("scales", (1.0,)))


def find_start(config: TrainedModelConfig) -> Start:
    """Return where a training starts, without reading weights.

    Raises:
        CheckpointError: The run folder that `model.init` names holds no model, or one of other
            networks.
    """
    otherwise = f"the networks start from model.pretrained={config.pretrained}"
    if config.init == "imagenet":
        return Start(None, otherwise)
    try:
        folder = find_model(None if config.init == "shipped" else config.init)
    except CheckpointError:
        if config.init != "shipped":
            raise
        return Start(None, f"no model ships with this installation: {otherwise}")
    info = read_info(folder)
    other = _differences(info.model, config)
    if not other:
        looks = {
            "scales": info.scales,
            "fusion_power": LEARNED_POWER,
            "coarsest_mm": info.coarsest_mm,
        }
        note = f"the networks start from model.init={config.init}"
        return Start(folder, note, looks, has_one_encoder(folder))
    if config.init == "shipped":
        return Start(None, f"the shipped model has another {next(iter(other))}: {otherwise}")
    raise CheckpointError(
        f"model.init={config.init} has networks that differ from this training's "
        f"({'; '.join(f'{key}: {there}, here {here}' for key, (there, here) in other.items())}); "
        "set the same, or model.init=imagenet"
    )


def judged_stages(steps: StageSteps, *, from_model: bool) -> tuple[str, ...]:
    """List the stages whose epochs say how good a training is.

    A detector that came with a model goes on from there in its own stage alone: before, it is
    judged beside encoders that left it behind.
    """
    return ("detector",) if from_model and steps.detector else ("adversarial", "detector")


def start_digest(config: TrainedModelConfig) -> str | None:
    """Hash the file of weights that a training starts from; None: it starts from ImageNet.

    Raises:
        CheckpointError: See `find_start`.
    """
    folder = find_start(config).folder
    return None if folder is None else hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def start_networks(config: TrainedModelConfig) -> Networks:
    """Build the networks of a training with the weights that it starts from.

    Raises:
        CheckpointError, ConfigError: See `find_start`; or the weights cannot be read.
    """
    start = find_start(config)
    networks = Networks(config)
    if start.folder is None:
        return networks
    trained = load_model(start.folder).networks
    found = trained.state_dict()
    if only_predicts(start.folder):  # the rest was never trained
        found = {name: value for name, value in found.items() if name.startswith(PATH)}
    shapes = {name: value.shape for name, value in networks.state_dict().items()}
    fits = {name: value for name, value in found.items() if shapes.get(name) == value.shape}
    networks.load_state_dict(fits, strict=False)
    return networks


def read_first(config: TrainedModelConfig, known: str | None) -> dict[str, Tensor]:
    """Read again the tensors of the model that the training started from.

    Args:
        config: names the model.
        known: its `path_hash`.

    Raises:
        CheckpointError, ConfigError: See `start_networks`; or it is another model now.
    """
    with torch.random.fork_rng(devices=[]):
        first = start_networks(config).state_dict()
    if path_hash(first) != known:
        raise other_start(config)
    return first


def path_hash(tensors: Mapping[str, Tensor]) -> str:
    """Hash encoders and detector, to know a model again."""
    digest = hashlib.sha256()
    for name, value in tensors.items():
        if name.startswith(PATH):
            digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()


def other_start(config: TrainedModelConfig, job: str = "training") -> CheckpointError:
    """Return the error of a model that was trained anew while a job goes on from it."""
    return CheckpointError(
        f"model.init={config.init} is another model now than when this {job} began; put that "
        "one back, or set resume=force to go on with this one, resume=never to start again"
    )


@torch.no_grad()
def restore_path(networks: Networks, first: Mapping[str, Tensor]) -> None:
    """Give encoders and detector the weights again that the training started from.

    Args:
        networks: that are changed.
        first: tensors of the model by name.
    """
    for name, value in networks.state_dict().items():
        if name.startswith(PATH):
            value.copy_(first[name])


@torch.no_grad()
def blend(first: Mapping[str, Tensor], trained: Networks, share: float) -> Networks:
    """Return networks with encoders and detector between a model and what a training made of it.

    On the line between both weights a model keeps most of what the training taught and most of
    what it knew before of other roads (WiSE-FT: Wortsman et al., arXiv 2109.01903).

    Args:
        first: tensors of the model by name.
        trained: the same networks, trained on from there; they stay as they are.
        share: 1: the trained weights alone.
    """
    between = {
        name: torch.lerp(first[name].to(value), value, share)
        for name, value in trained.state_dict().items()
        if name.startswith(PATH) and value.is_floating_point()
    }
    blended = copy.deepcopy(trained)
    blended.load_state_dict(between, strict=False)
    return blended


def _differences(one: ModelConfig, other: ModelConfig) -> dict[str, tuple[Any, Any]]:
    """Return keys of encoder and detector that differ, with both values."""
    a, b = _shape_values(one), _shape_values(other)
    return {f"model.{key}": (a[key], b[key]) for key in a if a[key] != b[key]}


def _shape_values(config: ModelConfig) -> dict[str, Any]:
    values = config.model_dump(mode="json", include=set(PATH_KEYS))
    paam = values.pop("paam")
    return values | {f"paam.{key}": value for key, value in paam.items()}
