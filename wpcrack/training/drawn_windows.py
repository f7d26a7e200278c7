"""What a training on drawn pavement is asked to learn, and the windows of each of its updates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import cv2
import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wpcrack.config import ModelConfig
from wpcrack.config_block import Block, Count, NonNegative, Positive, Range, Seed
from wpcrack.synthetic.pavement import PavementConfig, draw_pavement

SPEED_FIELDS = {"save_every", "threads", "workers"}
"""Fields that say how a training runs, not what it learns: they may change when it continues."""

Windows = tuple[Tensor, Tensor, Tensor]
"""Images (B, H, W, 3) uint8, masks and faint pixels (B, H, W) bool."""


class WindowShape(Block):
    """Side and number of the windows of a batch."""

    side: Annotated[int, Field(ge=64, multiple_of=32)]
    """Pixels."""
    count: Count
    """Windows."""


class DrawnTrainConfig(Block):
    """Everything that decides what is learned from drawn pavement."""

    seed: Seed = 0
    """Of weights and windows."""
    model: ModelConfig = ModelConfig()
    """Networks; encoder and detector are trained."""
    steps: Count = 6000
    """Updates; about 100 minutes on one core with AVX2."""
    batches: Annotated[tuple[WindowShape, ...], Field(min_length=1)] = (
        WindowShape(side=128, count=8),
        WindowShape(side=192, count=4),
        WindowShape(side=256, count=2),
    )
    """Shapes of the batches, in turn: small windows for variety, large ones for wide cracks."""
    gsd_mm: Range = (0.3, 10.0)
    """Range of the drawn pixel size."""
    crack_share: Annotated[float, Field(ge=0, le=1)] = 0.66
    """Share of windows with a crack."""
    encoder_lr: Positive = 3e-4
    """Peak learning rate of the pretrained layers."""
    head_lr: Positive = 2e-3
    """Peak learning rate of the detector."""
    weight_decay: NonNegative = 1e-2
    """Decoupled weight decay."""
    warmup_steps: Count = 30
    """Updates in which the learning rate rises."""
    final_share: NonNegative = 0.02
    """Learning rate at the end, as a share of the peak."""
    decay_share: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Share of the updates, at the end, in which the learning rate falls along a cosine."""
    clip_norm: Positive = 5.0
    """Largest norm of a gradient."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Averaging of the weights over the updates; the average is delivered."""
    pixel_weight: NonNegative = 2.0
    """Of the cross-entropy of each pixel."""
    region_weight: NonNegative = 1.0
    """Of the soft Dice of each window with a crack."""
    alarm_weight: NonNegative = 0.1
    """Of the surest false alarms of each window without a crack."""
    alarm_share: Annotated[float, Field(gt=0, le=1)] = 0.005
    """Share of the pixels of a window that are its surest false alarms."""
    save_every: Count = 100
    """Updates between two states on disk."""
    threads: Count = 1
    """CPU threads of the networks."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that draw; 0: the training process draws."""

    @field_validator("model")
    @classmethod
    def _has_our_detector(cls, model: ModelConfig) -> ModelConfig:
        if model.detector != "default":
            raise ValueError(
                f"detector={model.detector} is the paper's, which drawn windows cannot teach; set "
                "detector=default"
            )
        return model


class DrawnBatches(Dataset[Windows]):
    """Batch k is drawn from SeedSequence([seed, k, position])."""

    def __init__(self, config: DrawnTrainConfig) -> None:
        self.config = config

    def __len__(self) -> int:
        """Return the number of updates."""
        return self.config.steps

    def __getitem__(self, step: int) -> Windows:
        """Return the windows of a step."""
        config = self.config
        shape = config.batches[step % len(config.batches)]
        pavement = PavementConfig(
            size=shape.side, gsd_mm=config.gsd_mm, crack_share=config.crack_share
        )
        drawn = [
            draw_pavement(np.random.SeedSequence([config.seed, step, k]), pavement)
            for k in range(shape.count)
        ]
        parts = ([d.image for d in drawn], [d.mask for d in drawn], [d.faint for d in drawn])
        image, mask, faint = (torch.from_numpy(np.stack(part)) for part in parts)
        return image, mask, faint


def batches_from(
    batches: Dataset[Windows], config: DrawnTrainConfig, first: int
) -> Iterator[Windows]:
    """Give the batches from step `first` on, made ahead by `workers` processes."""
    steps: Sequence[int] = range(first, config.steps)
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=steps,
        num_workers=config.workers,
        worker_init_fn=_one_thread,
    )
    return iter(loader)


def _one_thread(_: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
