"""Did a model get worse? Its masks on drawn windows, and how far it agrees with the old one.

Photographs without labels cannot say that a model got better. Drawn windows say whether it forgot
what cracks are, and whether it marks pavement without any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from wpcrack.config_block import Block, Count, NonNegative, Share
from wpcrack.inference.engine import load_predictor
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.predict import DEFAULT_THRESHOLD, WindowPredictor, predict_image
from wpcrack.scoring.metrics import Counts, count, iou, mask_at
from wpcrack.synthetic.pavement import draw_alternating


class CheckConfig(Block):
    """What the adapted model has to prove, else the old one is kept."""

    windows: Count = 80
    """Drawn windows, half of them without a crack."""
    side: Annotated[int, Field(ge=64, multiple_of=32)] = 256
    """Their side in pixels."""
    seed: Annotated[int, Field(ge=0)] = 3_000_017
    """Their seed; no training uses it."""
    more_false: NonNegative = 0.005
    """Share of crack-free pavement that may be marked more than before. Drawn pavement is full of
    what looks like a crack: a model that gained .045 IoU on its own roads marked .0028 more."""
    lost_iou: Share = 0.05
    """IoU on drawn cracks that may be lost."""
    agreement: Share = 0.3
    """Least IoU of the masks of the old and the new model on pictures held out, pooled."""


@dataclass(frozen=True)
class Standing:
    """How a model does on drawn windows."""

    iou: float
    """Of cracks, pooled."""
    false_share: float
    """Share of crack-free pavement that is marked."""


@dataclass(frozen=True)
class Comparison:
    """What the check found.

    Attributes:
        before: The model that the training started from.
        after: The trained model.
        agreement: IoU of their masks on pictures held out, pooled.
        objections: What speaks against the trained model; empty: nothing.
    """

    before: Standing
    after: Standing
    agreement: float
    objections: tuple[str, ...]


def compare(
    base: Path,
    trained: Path,
    held: Sequence[NDArray[np.uint8]],
    config: CheckConfig,
    threads: int = 1,
) -> Comparison:
    """Compare a trained model with the one that it started from.

    Args:
        base: Folder of that model.
        trained: Folder of the trained model.
        held: Pictures that the training did not see, (H, W, 3) RGB.
        config: What is asked.
        threads: CPU threads.

    Raises:
        CheckpointError: A model is unusable.
    """
    old, new = (load_predictor(path, threads=threads) for path in (base, trained))
    before, after = (standing(predictor, config) for predictor in (old, new))
    shared = Counts()
    for image in held:
        masks = [
            mask_at(predict_image(image, each, Lattice()), DEFAULT_THRESHOLD) for each in (old, new)
        ]
        shared += count(*masks)
    agreement = iou(shared)
    objections = tuple(_objections(before, after, agreement, config))
    return Comparison(before, after, agreement, objections)


def standing(predictor: WindowPredictor, config: CheckConfig) -> Standing:
    """Score a model on drawn windows, every other one without a crack."""
    counts, marked = Counts(), []
    for window in draw_alternating(config.seed, config.windows, config.side):
        found = mask_at(predict_image(window.image, predictor, Lattice()), DEFAULT_THRESHOLD)
        if window.mask.any():
            counts += count(found, window.mask)
        else:
            marked.append(float(found.mean()))
    return Standing(iou(counts), float(np.mean(marked)) if marked else 0.0)


def _objections(
    before: Standing, after: Standing, agreement: float, config: CheckConfig
) -> Iterator[str]:
    if after.false_share > before.false_share + config.more_false:
        yield (
            f"it marks {after.false_share:.2%} of drawn pavement without cracks, before "
            f"{before.false_share:.2%}"
        )
    if after.iou < before.iou - config.lost_iou:
        yield f"its IoU on drawn cracks is {after.iou:.3f}, before {before.iou:.3f}"
    if agreement < config.agreement:
        yield f"on pictures held out it agrees with the old model by an IoU of {agreement:.2f} only"
