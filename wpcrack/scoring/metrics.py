"""Each convention by which crack papers score a map, as a pure function with its source.

Everything is counted on pixels of the crack class. Where a ratio is 0 / 0 there was nothing to
find: it is 1 if nothing was predicted either, else 0, so an empty prediction of an empty truth is
perfect and no score is ever undefined.

An 8-bit probability p counts as crack at the threshold t if p / 255 >= t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

SWEEP = tuple(k / 100 for k in range(1, 100))
"""Thresholds of ODS and OIS: 0.01, 0.02, ... 0.99 (Yang et al. 2020, FPHBN)."""


@dataclass(frozen=True)
class Sums:
    """Base of records of numbers that are pooled field by field."""

    def __add__(self, other: Self) -> Self:
        """Pool two records."""
        return type(self)(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Counts(Sums):
    """Pixels by predicted and true class; crack is the positive class."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    @property
    def background(self) -> Counts:
        """The same pixels with the background as the positive class."""
        return Counts(self.tn, self.fn, self.fp, self.tp)


@dataclass(frozen=True)
class TolerantCounts(Sums):
    """Pixels predicted, those of them near the truth; true pixels, those near a prediction."""

    predicted: int = 0
    predicted_near: int = 0
    true: int = 0
    true_near: int = 0


def mask_at(probability: NDArray[np.uint8], threshold: float) -> NDArray[np.bool_]:
    """Threshold an 8-bit probability: p / 255 >= t; any shape."""
    return np.asarray((np.arange(256) / 255 >= threshold)[probability], np.bool_)


def count(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Counts:
    """Count the pixels of one image, both (H, W) bool."""
    tp = int(np.count_nonzero(prediction & truth))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(truth)) - tp
    return Counts(tp, fp, fn, prediction.size - tp - fp - fn)


def iou(counts: Counts) -> float:
    """Compute intersection over union (Jaccard index): TP / (TP + FP + FN)."""
    return _ratio(counts.tp, counts.tp + counts.fp + counts.fn, empty=1.0)


def precision(counts: Counts) -> float:
    """Compute TP / (TP + FP); without any prediction 1 if there was nothing to find, else 0."""
    return _ratio(counts.tp, counts.tp + counts.fp, empty=float(counts.fn == 0))


def recall(counts: Counts) -> float:
    """Compute TP / (TP + FN); without any true pixel 1 if nothing was predicted, else 0."""
    return _ratio(counts.tp, counts.tp + counts.fn, empty=float(counts.fp == 0))


def f1(counts: Counts) -> float:
    """Compute the harmonic mean of precision and recall (Dice): 2 TP / (2 TP + FP + FN)."""
    return _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn, empty=1.0)


def miou_2class(counts: Counts) -> float:
    """Average the IoU of crack and of background (Liu et al. 2019, DeepCrack, "mean IoU").

    Background fills nearly every image, so this lies near (1 + IoU of crack) / 2.
    """
    return (iou(counts) + iou(counts.background)) / 2


def f1_macro(counts: Counts) -> float:
    """Average the F1 of crack and of background (scikit-learn `f1_score(average="macro")`)."""
    return (f1(counts) + f1(counts.background)) / 2


def count_tolerant(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], radius: int
) -> TolerantCounts:
    """Count pixels that have a counterpart within a Chebyshev distance, in one image.

    Args:
        prediction: (H, W) bool.
        truth: (H, W) bool.
        radius: in pixels; pixels of the square of side 2 radius + 1 are near.
    """
    square = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    near_truth = cv2.dilate(truth.astype(np.uint8), square).astype(np.bool_)
    near_prediction = cv2.dilate(prediction.astype(np.uint8), square).astype(np.bool_)
    return TolerantCounts(
        predicted=int(np.count_nonzero(prediction)),
        predicted_near=int(np.count_nonzero(prediction & near_truth)),
        true=int(np.count_nonzero(truth)),
        true_near=int(np.count_nonzero(truth & near_prediction)),
    )


def f1_tolerant(counts: TolerantCounts) -> float:
    """Compute tolerant F1 (2 px: Zou et al. 2012, CrackTree; 5 px: Shi et al. 2016, CrackForest).

    Precision is the share of predicted pixels near the truth, recall the share of true pixels near
    a prediction. Unlike a one-to-one matching, several pixels may share a counterpart.
    """
    p = _ratio(counts.predicted_near, counts.predicted, empty=float(counts.true == 0))
    r = _ratio(counts.true_near, counts.true, empty=float(counts.predicted == 0))
    return _ratio(2 * p * r, p + r, empty=0.0)


def histogram(probability: NDArray[np.uint8], truth: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count pixels by class and 8-bit probability: (2, 256), row 0 background, row 1 crack."""
    index = truth.ravel().astype(np.intp) * 256 + probability.ravel()
    return np.bincount(index, minlength=512).reshape(2, 256).astype(np.int64)


def best_f1(histograms: NDArray[np.int64]) -> float:
    """Find the highest F1 over the thresholds of SWEEP.

    On the histogram of all images this is ODS (optimal dataset scale, one threshold for all
    images); its mean over the histograms of single images is OIS (optimal image scale). As in
    Yang et al. 2020 (FPHBN), but pixel by pixel: no thinning, no matching distance.

    Args:
        histograms: (2, 256) of one image or of many, added up.
    """
    levels = [int(np.argmax(np.arange(256) / 255 >= threshold)) for threshold in SWEEP]
    fp, tp = np.cumsum(histograms[:, ::-1], axis=1)[:, ::-1][:, levels]
    total = int(histograms[1].sum())
    sweep = zip(tp.tolist(), fp.tolist(), strict=True)
    return max(f1(Counts(t, f, total - t)) for t, f in sweep)


def bootstrap_ci95(
    images: Sequence[Counts], *, draws: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Estimate 95 % percentile intervals of pooled IoU and F1 by a bootstrap (Efron 1979).

    Whole images are drawn with replacement, since pixels of one image are not independent.

    Args:
        images: counts of each image, at least one.
        draws: number of resamples.
        seed: of the draws.

    Returns:
        (low, high) for the keys iou and f1.
    """
    rng = np.random.default_rng(seed)
    table = np.array([(c.tp, c.fp, c.fn) for c in images], np.int64)
    pooled = [
        Counts(*table[rng.integers(0, len(table), len(table))].sum(axis=0).tolist())
        for _ in range(draws)
    ]
    return {
        "iou": _percentiles([iou(counts) for counts in pooled]),
        "f1": _percentiles([f1(counts) for counts in pooled]),
    }


def resize_nearest(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Resize (H, W) bool to (side, side) as crack papers do: pixel i shows floor(i H / side)."""
    row, col = (np.arange(side) * length // side for length in mask.shape)
    return mask[np.ix_(row, col)]


def _ratio(part: float, whole: float, *, empty: float) -> float:
    return part / whole if whole else empty


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5]).tolist()
    return low, high
