"""A score sheet that is filled image by image, in memory that grows by a few numbers per image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wpcrack.scoring import metrics
from wpcrack.scoring.metrics import Counts, TolerantCounts

TOLERANCES = (2, 5)
"""Radii in pixels of f1_tol2 and f1_tol5."""


@dataclass(frozen=True)
class PixelScores:
    """Scores pooled over all pixels of all images, crack class, at one size of the images."""

    iou: float
    precision: float
    recall: float
    f1: float
    f1_tol2: float
    f1_tol5: float


@dataclass(frozen=True)
class Overlap:
    """IoU and F1 in one of their conventions."""

    iou: float
    f1: float


@dataclass(frozen=True)
class Intervals:
    """(low, high) of IoU and F1."""

    iou: tuple[float, float]
    f1: tuple[float, float]


@dataclass(frozen=True)
class Scores:
    """Every convention of `wpcrack.scoring.metrics` over one set of images.

    Attributes:
        n_images: images with a mask.
        threshold: of the probability.
        native: at the images' own size.
        resized: after resizing prediction and truth to a square, if that was asked for.
        per_image: means over images; an image without crack and prediction counts as 1.
        fp_area_share: predicted share of the images without any crack; None if there are none.
    """

    n_images: int
    threshold: float
    native: PixelScores
    resized: PixelScores | None
    miou_2class: float
    per_image: Overlap
    ods: float
    ois: float
    f1_macro: float
    fp_area_share: float | None
    ci95: Intervals


@dataclass(frozen=True)
class ImageScore:
    """One image: what a list of the best and worst images needs."""

    name: str
    counts: Counts
    best_f1: float


class _Sheet:
    """Pooled counts at one image size."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.tolerant = {radius: TolerantCounts() for radius in TOLERANCES}

    def add(self, prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Counts:
        counts = metrics.count(prediction, truth)
        self.counts += counts
        for radius in TOLERANCES:
            self.tolerant[radius] += metrics.count_tolerant(prediction, truth, radius)
        return counts

    def scores(self) -> PixelScores:
        return PixelScores(
            iou=metrics.iou(self.counts),
            precision=metrics.precision(self.counts),
            recall=metrics.recall(self.counts),
            f1=metrics.f1(self.counts),
            f1_tol2=metrics.f1_tolerant(self.tolerant[2]),
            f1_tol5=metrics.f1_tolerant(self.tolerant[5]),
        )


class ScoreBoard:
    """Adds up predictions and truths; `scores` may be read at any time after the first image.

    Args:
        threshold: of the probability, p / 255 >= threshold.
        resize: side in pixels of the square to which prediction and truth are also resized.
    """

    def __init__(self, *, threshold: float = 0.5, resize: int | None = None) -> None:
        self.threshold = threshold
        self.resize = resize
        self.images: list[ImageScore] = []
        self._native, self._resized = _Sheet(), _Sheet()
        self._histogram = np.zeros((2, 256), np.int64)
        self._road_pixels = self._road_predicted = 0

    def add(self, name: str, probability: NDArray[np.uint8], truth: NDArray[np.bool_]) -> None:
        """Score one image that has a mask; an empty mask also counts for fp_area_share.

        Args:
            name: of the image, for `images`.
            probability: (H, W) uint8, probability * 255.
            truth: (H, W) bool.
        """
        prediction = metrics.mask_at(probability, self.threshold)
        counts = self._native.add(prediction, truth)
        if self.resize is not None:
            self._resized.add(
                metrics.resize_nearest(prediction, self.resize),
                metrics.resize_nearest(truth, self.resize),
            )
        histogram = metrics.histogram(probability, truth)
        self._histogram += histogram
        self.images.append(ImageScore(name, counts, metrics.best_f1(histogram)))
        if not truth.any():
            self.add_road(probability)

    def add_road(self, probability: NDArray[np.uint8]) -> None:
        """Count an image known to show no crack for fp_area_share alone; (H, W) uint8."""
        prediction = metrics.mask_at(probability, self.threshold)
        self._road_predicted += int(np.count_nonzero(prediction))
        self._road_pixels += prediction.size

    def scores(self) -> Scores:
        """Evaluate everything that was added."""
        assert self.images, "no image was added"
        counts = [image.counts for image in self.images]
        return Scores(
            n_images=len(self.images),
            threshold=self.threshold,
            native=self._native.scores(),
            resized=None if self.resize is None else self._resized.scores(),
            miou_2class=metrics.miou_2class(self._native.counts),
            per_image=Overlap(
                iou=float(np.mean([metrics.iou(c) for c in counts])),
                f1=float(np.mean([metrics.f1(c) for c in counts])),
            ),
            ods=metrics.best_f1(self._histogram),
            ois=float(np.mean([image.best_f1 for image in self.images])),
            f1_macro=metrics.f1_macro(self._native.counts),
            fp_area_share=self._road_predicted / self._road_pixels if self._road_pixels else None,
            ci95=Intervals(**metrics.bootstrap_ci95(counts)),
        )
