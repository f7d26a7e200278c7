"""The rule by which a mask says whether a window shows a crack."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

CRACK_SHARE = 0.47
"""Crack needs more mask pixels than this times the window's side: about half a crossing."""

BORDER_SHARE = 1 / 16
"""Width of the border that does not count for crack, and of the margin kept clean for road."""


@dataclass(frozen=True)
class LabeledWindows:
    """Top left corners (row, col) in pixels: (N, 2) of crack windows, (M, 2) of road windows."""

    crack: NDArray[np.int64]
    road: NDArray[np.int64]


def label_windows(
    mask: NDArray[np.bool_], window: int, stride: int | None = None
) -> LabeledWindows:
    """Label the windows of one image; those that are neither clearly crack nor road are left out.

    Windows start at multiples of the stride and lie wholly inside the image. With the border
    b = N // 16, a window is *crack* if its inside without b pixels along each edge holds more than
    0.47 N mask pixels, and *road* if the window widened by b pixels (as far as the image reaches)
    holds none.

    Args:
        mask: (H, W) bool, True on cracks.
        window: side N of a window in pixels.
        stride: step between windows in pixels, N // 2 if not given.

    Returns:
        Corners in row-major order; both empty if the image is smaller than a window.
    """
    height, width = mask.shape
    stride = stride or window // 2
    rows = np.arange(0, height - window + 1, stride)
    cols = np.arange(0, width - window + 1, stride)
    corners = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
    border = int(window * BORDER_SHARE)
    sums = cv2.integral(mask.astype(np.uint8)).astype(np.int64)
    inside = _box_sums(sums, corners + border, corners + window - border)
    around = _box_sums(
        sums, np.maximum(corners - border, 0), np.minimum(corners + window + border, mask.shape)
    )
    return LabeledWindows(corners[inside > CRACK_SHARE * window], corners[around == 0])


def _box_sums(
    sums: NDArray[np.int64], first: NDArray[np.int64], stop: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Sum over boxes [first, stop) from the (H + 1, W + 1) integral image; corners are (N, 2)."""
    (top, left), (bottom, right) = first.T, stop.T
    total = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return np.asarray(total, np.int64)
