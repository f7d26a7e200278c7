"""Growth and shrinking of a raster by a disk."""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray


def dilate(cells: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    """Return cells at most ``radius`` away from one that is set."""
    return np.asarray(cv2.dilate(cells, _disk(radius)), np.uint8)


def erode(cells: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    """Return cells more than ``radius`` away from any that is not set."""
    return np.asarray(cv2.erode(cells, _disk(radius)), np.uint8)


@cache
def _disk(radius: float) -> NDArray[np.uint8]:
    reach = math.floor(radius + 1e-9)
    steps = np.arange(-reach, reach + 1)
    away = steps[:, None] ** 2 + steps**2
    return (away <= radius * radius + 1e-9).astype(np.uint8)
