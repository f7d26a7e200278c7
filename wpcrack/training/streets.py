"""Second part of the shipped model's training: windows of drawn streets among those of pavement.

Windows of pavement are rich in surfaces, but each shows a crack of its own. On a street, seen from
above at some millimeters a pixel, cracks are thin and faint, run on for meters, branch, and lie
beside furniture that looks like them. Every window is drawn from (seed, step), like those of the
first part.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch.utils.data import Dataset

from wpcrack.config_block import Block, Count, NonNegative, Positive, Share
from wpcrack.synthetic import StreetConfig, WindowConfig, draw_training_street, draw_window
from wpcrack.synthetic.pavement.camera import photograph
from wpcrack.synthetic.pavement.draw import faint_pixels
from wpcrack.synthetic.pavement.fields import log_uniform
from wpcrack.training.drawn_windows import DrawnBatches, DrawnTrainConfig, Windows, WindowShape

_STREET = StreetConfig(condition=(0.2, 1.5))
"""More sound streets among them than in the city of the demo."""

_LENGTH_M = 8.0

_STREETS = 77
"""Tells the randomness of streets from that of pavement."""


class StreetTrainConfig(Block):
    """What is learned in the second part; it starts from the result of the first."""

    seed: Annotated[int, Field(ge=0)] = 1
    """Of windows; another than that of the first part, whose windows would come again."""
    steps: Count = 4000
    """Updates; about 70 minutes on one core with AVX2."""
    rate: Positive = 0.5
    """Peak learning rates, as a share of those of the first part."""
    decay_share: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the updates, at the end, in which the learning rate falls along a cosine."""
    crack_share: Share = 0.6
    """Share of windows with a crack."""
    alarm_weight: NonNegative = 0.3
    """Of the surest false alarms of each window without a crack."""
    share: Share = 0.4
    """Share of the batches that are cut from drawn streets."""
    other_camera: Share = 0.6
    """Share of their windows that go through a camera like those of pavement."""
    gsd_mm: tuple[
        Annotated[float, Field(ge=1, le=20)],
        Annotated[float, Field(ge=1, le=20)],
    ] = (2.0, 8.0)
    """Range of their pixel size, log-uniform."""

    def after(self, first: DrawnTrainConfig) -> DrawnTrainConfig:
        """Return how the second part is trained: as the first, but for the values above."""
        own = ("seed", "steps", "decay_share", "crack_share", "alarm_weight")
        return first.model_copy(
            update={
                **{name: getattr(self, name) for name in own},
                "encoder_lr": self.rate * first.encoder_lr,
                "head_lr": self.rate * first.head_lr,
            }
        )


class StreetBatches(Dataset[Windows]):
    """Batch k is cut from a street or drawn as pavement, as SeedSequence([seed, k]) decides."""

    def __init__(self, config: StreetTrainConfig, train: DrawnTrainConfig) -> None:
        self.config, self.train = config, train
        self.pavement = DrawnBatches(train)

    def __len__(self) -> int:
        """Return the number of updates."""
        return self.train.steps

    def __getitem__(self, step: int) -> Windows:
        """Return the windows of a step."""
        train = self.train
        rng = np.random.Generator(
            np.random.SFC64(np.random.SeedSequence([train.seed, step, _STREETS, _STREETS]))
        )
        if rng.random() >= self.config.share:
            return self.pavement[step]
        return self._of_a_street(rng, train.batches[step % len(train.batches)])

    def _of_a_street(self, rng: np.random.Generator, shape: WindowShape) -> Windows:
        """Cut a batch from one street, each window turned and mirrored at random."""
        windows = WindowConfig(
            size=shape.side,
            gsd_m=log_uniform(rng, *self.config.gsd_mm) / 1000,
            street_length_m=_LENGTH_M,
            street=_STREET,
        )
        street = draw_training_street(rng, windows)
        images, masks, unseen = [], [], []
        for _ in range(shape.count):
            cracked = bool(rng.random() < self.train.crack_share)
            drawn = draw_window(rng, windows, cracked, street)
            turns, mirrored = int(rng.integers(4)), bool(rng.random() < 0.5)
            image, mask = np.rot90(drawn.image, turns), np.rot90(drawn.mask, turns)
            if mirrored:
                image, mask = image[:, ::-1], mask[:, ::-1]
            image, mask = np.ascontiguousarray(image), np.ascontiguousarray(mask)
            if rng.random() < self.config.other_camera:
                image = photograph(rng, np.square(image / np.float32(255)))
            images.append(image)
            masks.append(mask)
            unseen.append(faint_pixels(image, mask))
        whole, cracks, faint = (torch.from_numpy(np.stack(p)) for p in (images, masks, unseen))
        return whole, cracks, faint


def drawn_batches(seed: int, steps: int, shape: WindowShape) -> StreetBatches:
    """Return batches of one shape, of pavement and streets mixed as in the second part."""
    train = DrawnTrainConfig(seed=seed, steps=steps, batches=(shape,))
    return StreetBatches(StreetTrainConfig(), train)
