"""Make the weight file that ships with the package: train, score, write.

Everything comes from one config; an interrupted call continues where it stopped. The file holds
one encoder and the detector at half precision.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.torch import save_file
from torch import nn

from wpcrack.config import Block, Count, Positive
from wpcrack.scoring.metrics import (
    Counts,
    TolerantCounts,
    count,
    count_tolerant,
    f1,
    f1_tolerant,
    iou,
)
from wpcrack.synthetic.pavement import PavementConfig, draw_pavement
from wpcrack.training.drawn import DrawnTrainConfig, Report, half_tensors, pretrain
from wpcrack.training.scales import SCALES, fuse_scales, scale_probabilities

WEIGHTS = "wpcrack.safetensors"
"""Name of the weight file."""

SCORES = "drawn_scores.json"
"""Name of the file with the scores on drawn windows that no training saw."""

FUSED = "fused"
"""Name of the fusion among the scales."""

_TOLERANCE_PX = 2


class ShippedConfig(Block):
    """How the shipped model is made."""

    train: DrawnTrainConfig = DrawnTrainConfig()
    """Encoder and detector."""
    scales: Annotated[tuple[Positive, ...], Field(min_length=1)] = SCALES
    """Sizes of the image that prediction looks at."""
    score_windows: Count = 200
    """Windows for the scores."""
    score_side: Annotated[int, Field(ge=64, multiple_of=32)] = 384
    """Their side in pixels."""
    score_seed: Annotated[int, Field(ge=0)] = 2_000_003
    """Their seed; no training uses it."""


@dataclass(frozen=True)
class DrawnScore:
    """What a prediction is worth on drawn windows.

    Attributes:
        iou: Of crack pixels, pooled.
        f1: Likewise.
        f1_tol2: F1 with a tolerance of 2 px.
        false_share: Share of the pixels of windows without a crack that is marked.
    """

    iou: float
    f1: float
    f1_tol2: float
    false_share: float


@dataclass(frozen=True)
class Shipped:
    """The result: the file, and its scores by scale ("1", "0.5", ..., "fused")."""

    weights: Path
    scores: Mapping[str, DrawnScore]


def make_shipped(config: ShippedConfig, folder: Path, report: Report | None = None) -> Shipped:
    """Train on drawn pavement and write the weight file and its scores into a folder.

    Args:
        config: How.
        folder: Where; the state of an interrupted call lies there as well.
        report: Called after every update of the detector.

    Raises:
        CheckpointError: The folder holds the state of another config.
    """
    nets = pretrain(config.train, folder, report)
    file = folder / WEIGHTS
    fresh = folder / f".{WEIGHTS}.new"
    save_file(half_tensors(nets), fresh, metadata={"config": config.model_dump_json()})
    os.replace(fresh, file)
    scores = score_drawn(nets.classifier.encoder, nets.detector, config)
    text = json.dumps({name: vars(score) for name, score in scores.items()}, indent=2)
    (folder / SCORES).write_text(text + "\n", encoding="utf-8")
    return Shipped(file, scores)


def score_drawn(
    encoder: nn.Module, detector: nn.Module, config: ShippedConfig
) -> dict[str, DrawnScore]:
    """Scores of each scale, and of their fusion."""
    names = [*(f"{scale:g}" for scale in config.scales), FUSED]
    tallies = {name: _Tally() for name in names}
    pavement = PavementConfig(size=config.score_side)
    for k in range(config.score_windows):
        drawn = draw_pavement(np.random.SeedSequence([config.score_seed, k]), pavement)
        image = torch.from_numpy(drawn.image).permute(2, 0, 1)[None].float() / 255
        probability = scale_probabilities(encoder, detector, image, config.scales)
        maps = torch.cat([probability, fuse_scales(probability)], 1)[0]
        for name, prediction in zip(names, maps >= 0.5, strict=True):
            tallies[name].add(prediction.numpy(), drawn.mask)
    return {name: tally.score() for name, tally in tallies.items()}


class _Tally:
    """Counts over windows."""

    def __init__(self) -> None:
        self.counts, self.near = Counts(), TolerantCounts()
        self.false: list[float] = []

    def add(self, prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
        """Count one window."""
        self.counts += count(prediction, truth)
        self.near += count_tolerant(prediction, truth, _TOLERANCE_PX)
        if not truth.any():
            self.false.append(float(prediction.mean()))

    def score(self) -> DrawnScore:
        """The ratios."""
        return DrawnScore(
            iou(self.counts), f1(self.counts), f1_tolerant(self.near), _mean(self.false)
        )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
