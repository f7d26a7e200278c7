"""Where imagery is missing, if one pixel value stands for it: gaps and collars, not black cracks.

After a usual stretch the darkest pixels of a road are exactly 0, and many files say that 0 means
missing. Missing is what is thick, or connected with the edge of the file or something thick; a
small island of the value inside the imagery is imagery. The answer for a pixel depends on the
pixels around it up to MARGIN alone, so not on the window that was read.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

THICK_PX = 32
"""A square of this side without any imagery is a gap: 16 cm of 5 mm pixels, wider than cracks."""

REACH_PX = 64
"""What is connected with a gap or an edge belongs to it this far: the thin ends of a collar."""

MARGIN = THICK_PX + REACH_PX
"""Pixels around a window on which the answer inside depends."""


def gaps(absent: NDArray[np.bool_], edges: tuple[bool, bool, bool, bool]) -> NDArray[np.bool_]:
    """Tell gaps from islands.

    Args:
        absent: (H, W), pixels of the value that means missing; exact up to MARGIN from a side that
            is no edge of the file.
        edges: whether top, bottom, left and right are edges of the file.

    Returns:
        (H, W), the pixels that are missing in fact.
    """
    if not absent.any() or absent.all():
        return absent.copy()
    values = absent.astype(np.uint8)
    missing = cv2.morphologyEx(values, cv2.MORPH_OPEN, np.ones((THICK_PX, THICK_PX), np.uint8))
    frame = np.zeros_like(values)
    frame[0], frame[-1] = edges[:2]
    frame[:, 0] |= edges[2]
    frame[:, -1] |= edges[3]
    missing = cv2.bitwise_or(missing, frame & values)
    around = np.ones((3, 3), np.uint8)
    for _ in range(REACH_PX):
        grown = cv2.bitwise_and(cv2.dilate(missing, around), values)
        if np.array_equal(grown, missing):
            break
        missing = grown
    return missing.astype(bool)
