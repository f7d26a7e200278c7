"""Make the model that ships with the package: train on drawn pavement, write, score.

Everything comes from one config; an interrupted call continues where it stopped. The model only
predicts: one encoder and the detector at half precision. Beside the weights lies their OpenVINO
graph, so that mapping with the model needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from wpcrack.config_block import Block, Count, Positive
from wpcrack.files import whole_file
from wpcrack.inference.graph import deliver_graph
from wpcrack.inference.scales import ScaledProbability, fuse
from wpcrack.model import MODEL_FOLDER, Model, ModelInfo, Scale, load_model, save_model
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
from wpcrack.training.drawn import Lesson, Report, pretrain, train_path
from wpcrack.training.drawn_windows import SPEED_FIELDS, DrawnTrainConfig
from wpcrack.training.streets import StreetBatches, StreetTrainConfig

SCORES = "drawn_scores.json"
"""Name of the file with the scores on drawn windows that no training saw."""

FUSED = "fused"
"""Name of the fusion among the scales."""

STREETS = "streets"
"""Name of the folder with the state of the second part."""

_TOLERANCE_PX = 2


class ShippedConfig(Block):
    """How the shipped model is made."""

    train: DrawnTrainConfig = DrawnTrainConfig()
    """Encoder and detector, on pavement."""
    streets: StreetTrainConfig = StreetTrainConfig()
    """The second part, with drawn streets."""
    scales: Annotated[tuple[Scale, ...], Field(min_length=1)] = (1.0, 0.5, 0.25)
    """Sizes of the image that prediction looks at."""
    coarsest_mm: Positive = 8.0
    """Largest pixels at which a map looks: on drawn streets of 5 mm, half the size finds less."""
    score_windows: Count = 200
    """Windows for the scores."""
    score_side: Annotated[int, Field(ge=64, multiple_of=32)] = 384
    """Their side in pixels."""
    score_seed: Annotated[int, Field(ge=0)] = 2_000_003
    """Their seed; no training uses it."""

    @model_validator(mode="after")
    def _draws_other_windows(self) -> Self:
        if self.streets.seed == self.train.seed:
            raise ValueError(
                f"streets.seed and train.seed are both {self.train.seed}, so the second part would "
                f"show windows of the first again; set streets.seed={self.train.seed + 1}"
            )
        return self


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
    """The result: the model, and its scores by scale ("1", "0.5", ..., "fused")."""

    model: Path
    scores: Mapping[str, DrawnScore]


def make_shipped(config: ShippedConfig, folder: Path, report: Report | None = None) -> Shipped:
    """Train on drawn pavement and write the model and its scores into a run folder.

    Args:
        config: How.
        folder: Where; the state of an interrupted call lies there as well.
        report: Called after every update of the detector.

    Raises:
        CheckpointError: The folder holds the state of another config.
    """
    nets = pretrain(config.train, folder, report)
    second = config.streets.after(config.train)
    lesson = Lesson(StreetBatches(config.streets, second), _lesson_of(config))
    nets = train_path(second, nets, folder / STREETS, lesson, report)
    steps = config.train.steps + second.steps
    trained = {"on": "drawn pavement", "steps": steps, "seed": config.train.seed}
    info = ModelInfo(
        model=config.train.model,
        scales=config.scales,
        coarsest_mm=config.coarsest_mm,
        trained=trained,
    )
    save_model(folder / MODEL_FOLDER, nets, info, predicts_only=True)
    deliver_graph(folder / MODEL_FOLDER)
    scores = score_drawn(load_model(folder), config)
    text = json.dumps({name: vars(score) for name, score in scores.items()}, indent=2)
    with whole_file(folder / SCORES) as fresh:
        fresh.write_text(text + "\n", encoding="utf-8")
    return Shipped(folder / MODEL_FOLDER, scores)


def _lesson_of(config: ShippedConfig) -> str:
    """Return what the second part follows from beside its own numbers, as text."""
    return config.model_dump_json(include={"train", "streets"}, exclude={"train": SPEED_FIELDS})


@torch.inference_mode()
def score_drawn(model: Model, config: ShippedConfig) -> dict[str, DrawnScore]:
    """Score each scale, and their fusion, on drawn windows that no training saw."""
    names = [*(f"{scale:g}" for scale in config.scales), FUSED]
    network = ScaledProbability(model.networks, config.scales)
    tallies = {name: _Tally() for name in names}
    pavement = PavementConfig(size=config.score_side)
    for k in range(config.score_windows):
        drawn = draw_pavement(np.random.SeedSequence([config.score_seed, k]), pavement)
        image = torch.from_numpy(drawn.image).permute(2, 0, 1)[None].float() / 255
        probability = network.at_each_scale(image)
        maps = torch.cat([probability, fuse(probability)], 1)[0]
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
        """Return the ratios."""
        return DrawnScore(
            iou(self.counts), f1(self.counts), f1_tolerant(self.near), _mean(self.false)
        )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
