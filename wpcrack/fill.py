"""Pixels without an image, filled so that a network sees no edge where the imagery ends."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SURROUND_PX = 65
"""Side of the box over which the tone of the nearest imagery is averaged."""


def fill_invalid(image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Continues an image into its invalid pixels by mirroring it at their border.

    A black or constant nodata area ends in a sharp line, which a network takes for a crack or a
    joint. Each invalid pixel p takes the pixel 2 q - p, q being the valid pixel nearest to p;
    where that one is invalid too or outside, the mean of the valid pixels around q.

    Args:
        image: (H, W, 3).
        valid: (H, W).

    Returns:
        (H, W, 3); the image itself if all of it is valid or none.
    """
    if valid.all() or not valid.any():
        return image
    height, width = valid.shape
    row, col = np.nonzero(~valid)
    near_row, near_col = (axis[row, col] for axis in _nearest_valid(valid))
    mirror_row, mirror_col = 2 * near_row - row, 2 * near_col - col
    inside = (mirror_row >= 0) & (mirror_row < height) & (mirror_col >= 0) & (mirror_col < width)
    inside[inside] = valid[mirror_row[inside], mirror_col[inside]]
    filled = image.copy()
    filled[row, col] = _local_mean(image, valid)[near_row, near_col]
    filled[row[inside], col[inside]] = image[mirror_row[inside], mirror_col[inside]]
    return filled


def _nearest_valid(valid: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of the valid pixel nearest to each pixel, (H, W) each."""
    _, labels = cv2.distanceTransformWithLabels(
        (~valid).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    row, col = np.nonzero(valid)
    place = np.zeros((labels.max() + 1, 2), np.int64)
    place[labels[row, col]] = np.column_stack((row, col))
    return place[labels, 0], place[labels, 1]


def _local_mean(image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Mean of the valid pixels in the box around each pixel, (H, W, 3)."""
    size, known = (SURROUND_PX, SURROUND_PX), valid.astype(np.float32)
    total = cv2.boxFilter(image * known[..., None], -1, size, borderType=cv2.BORDER_CONSTANT)
    count = cv2.boxFilter(known, -1, size, borderType=cv2.BORDER_CONSTANT)
    return np.rint(total / np.maximum(count, 1e-6)[..., None]).clip(0, 255).astype(np.uint8)
