"""What image-level labels say of a model: in which windows it finds a crack, rightly or wrongly.

No mask is needed, so everybody who labeled windows can compare models on roads of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wpcrack.data.images import read_rgb
from wpcrack.inference.lattice import Lattice
from wpcrack.inference.predict import DEFAULT_THRESHOLD, WindowPredictor, predict_image
from wpcrack.scoring.metrics import Counts, f1, mask_at


class LabeledImage(Protocol):
    """A window or photograph with an image-level label."""

    @property
    def path(self) -> Path:
        """Of the file."""

    @property
    def has_crack(self) -> bool:
        """The label."""


@dataclass(frozen=True)
class WindowScores:
    """How many windows of either label a model marks.

    Attributes:
        cracks: windows that show a crack.
        found: of these, those in which the model finds one.
        roads: windows that show none.
        marked: of these, those in which the model finds one.
        road_share: share of the pixels of windows without a crack that is marked.
    """

    cracks: int = 0
    found: int = 0
    roads: int = 0
    marked: int = 0
    road_share: float = 0.0

    @property
    def wrong(self) -> int:
        """Windows of which the model says what the label does not."""
        return self.cracks - self.found + self.marked

    @property
    def f1(self) -> float:
        """F1 of "a crack is found in this window"."""
        missed, passed = self.cracks - self.found, self.roads - self.marked
        return f1(Counts(self.found, self.marked, missed, passed))


def score_windows(
    items: Iterable[LabeledImage],
    predictor: WindowPredictor,
    min_share: float,
    *,
    threshold: float = DEFAULT_THRESHOLD,
) -> WindowScores:
    """Predict labeled windows at their own size and count those that are marked.

    Args:
        items: labeled windows or photographs.
        predictor: the model.
        min_share: share of a window from which on it counts as marked; see
            `TrainConfig.label_min_share`.
        threshold: of the 8-bit probability / 255, from which on a pixel is marked.

    Raises:
        DataError: an image cannot be read.
        CheckpointError: the model gives values that are not numbers.
    """
    count = {(label, is_marked): 0 for label in (True, False) for is_marked in (True, False)}
    road_px = marked_px = 0
    for item in items:
        mask = mask_at(predict_image(read_rgb(item.path), predictor, Lattice()), threshold)
        count[item.has_crack, bool(mask.mean() >= min_share)] += 1
        if not item.has_crack:
            road_px, marked_px = road_px + mask.size, marked_px + int(mask.sum())
    return WindowScores(
        cracks=count[True, True] + count[True, False],
        found=count[True, True],
        roads=count[False, True] + count[False, False],
        marked=count[False, True],
        road_share=marked_px / road_px if road_px else 0.0,
    )
