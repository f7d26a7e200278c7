"""Which windows are worth a label: those that a model is unsure of, and no two of one kind.

Between them stand windows at random. A training needs ordinary road as well, and windows that a
model is unsure of are mostly cracks: of the first 100 of Crack500, 4 were road, and with the first
25 no training could start.

No network is needed here: a window is described by simple statistics of its pixels and of the
probability that a model gave it, so that any model and any engine will do.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from wpcrack.data.label_rule import BORDER_SHARE, CRACK_SHARE

SURE_WORTH = 0.25
"""Worth of a window that the model is sure of, where one at probability 1/2 is worth 1: sure ones
still come where nothing like them was chosen, as a model can be surely wrong."""

BLURS_PX = (1.0, 2.0, 4.0)
"""Scales at which the roughness of pavement is measured (standard deviation of a Gaussian)."""

LINES_PX = (5, 15)
"""Widths up to which dark lines are measured."""

MOST_DEVIATIONS = 3.0
"""Figures count up to this many standard deviations: one odd window must not hide all others."""

MOST_CHOSEN = 3000
"""So many windows are chosen one after the other; the rest follows by its worth then."""


def crack_probability(probability: NDArray[np.floating]) -> float:
    """Return the probability that a window is called crack by the rule of `wpcrack dataset`.

    It is the largest threshold at which the mask of the map would make the window a crack one: more
    than 0.47 N pixels without a border of N / 16, where N is the shorter side.

    Args:
        probability: (H, W) in [0, 1].
    """
    side = min(probability.shape)
    border, least = int(side * BORDER_SHARE), int(CRACK_SHARE * side)
    inside = slice(border, -border or None)
    inner = probability[inside, inside].ravel()
    place = max(len(inner) - 1 - least, 0)
    return float(np.partition(inner, place)[place])


def describe(image: NDArray[np.uint8], probability: NDArray[np.floating]) -> NDArray[np.float32]:
    """Describe a window: color, roughness, lines and direction of its pixels, then its map.

    Args:
        image: (H, W, 3) RGB.
        probability: (H, W) in [0, 1].

    Returns:
        (2, K) float32: K figures of the picture, K of the map.
    """
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    light = lab[..., 0]
    colors = [light.mean(), light.std(), lab[..., 1].mean(), lab[..., 2].mean()]
    rough = [_roughness(light, blur) for blur in BLURS_PX]
    lines = [_dark_lines(light, width) for width in LINES_PX]
    picture = [*colors, *rough, *lines, *_direction(light)]
    soft = probability.astype(np.float32)
    levels = [float(np.quantile(soft, share)) for share in (0.5, 0.75, 0.9, 0.98)]
    shares = [float((soft >= level).mean()) for level in (0.25, 0.5, 0.75)]
    found = [crack_probability(soft), float(soft.max()), *levels, *shares, *_direction(soft)]
    return np.array([picture, found], np.float32)


def _roughness(light: NDArray[np.float32], blur: float) -> float:
    """Return the mean difference to the blurred picture: contrast finer than that."""
    return float(np.abs(light - cv2.GaussianBlur(light, (0, 0), blur)).mean())


def _dark_lines(light: NDArray[np.float32], width: int) -> float:
    """Return how dark lines up to a width are, at the darkest fiftieth of the pixels."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return float(np.quantile(cv2.morphologyEx(light, cv2.MORPH_BLACKHAT, kernel), 0.98))


def _direction(values: NDArray[np.float32]) -> tuple[float, float]:
    """Return the main direction of edges: a vector of twice the angle, as long as it is clear.

    It is (Jxx - Jyy, 2 Jxy) / (Jxx + Jyy) of the structure tensor J of the window.
    """
    dx, dy = cv2.Sobel(values, cv2.CV_32F, 1, 0), cv2.Sobel(values, cv2.CV_32F, 0, 1)
    xx, yy, xy = (float((a * b).mean()) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    total = max(xx + yy, 1e-9)
    return (xx - yy) / total, 2 * xy / total


def teaching_order(
    described: NDArray[np.float32],
    probability: Sequence[float] | NDArray[np.floating],
    seed: int = 0,
) -> NDArray[np.int64]:
    """Order windows so that the first labels teach most.

    Greedy k-centers (Sener and Savarese 2018, arXiv 1708.00489) with a weight: the next window has
    the largest product of its distance to the nearest chosen one and its worth,
    w + (1 - w) (1 - |2 p - 1|) with w = `SURE_WORTH`. Figures are compared in standard deviations,
    so that their units do not count. Every second window is drawn at random.

    Args:
        described: (N, 2, K), as by `describe`.
        probability: (N,) of a crack, in [0, 1].
        seed: Of the windows at random.

    Returns:
        (N,) indices, the first to be labeled first.
    """
    count = len(described)
    p = np.asarray(probability, np.float64)
    worth = SURE_WORTH + (1 - SURE_WORTH) * (1 - np.abs(2 * p - 1))
    if count < 2:
        return np.arange(count)
    figures = described.reshape(count, -1).astype(np.float64)
    spread = np.maximum(figures.std(0), 1e-9)
    places = np.clip((figures - figures.mean(0)) / spread, -MOST_DEVIATIONS, MOST_DEVIATIONS)
    order = [int(worth.argmax())]
    at_random = iter(np.random.default_rng(seed).permutation(count).tolist())
    nearest = np.full(count, np.inf)
    gain = worth
    while len(order) < min(count, MOST_CHOSEN):
        last = order[-1]
        nearest = np.minimum(nearest, np.square(places - places[last]).sum(1))
        gain = np.sqrt(nearest) * worth
        gain[order] = -1
        if len(order) % 2:
            order.append(next(k for k in at_random if gain[k] >= 0))
        else:
            order.append(int(gain.argmax()))
    rest = np.setdiff1d(np.arange(count), order)
    return np.array([*order, *rest[np.argsort(-gain[rest], kind="stable")]], np.int64)
