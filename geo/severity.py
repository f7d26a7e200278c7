"""Severity classes of a crack by its mean width, and when pixels are too coarse to tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NOT_MEASURABLE = "not_measurable"

SAME_SIZE = 1e-6
"""Relative difference up to which two pixel sizes are one."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class SeverityOptions:
    """Limits of the classes.

    Attributes:
        d6433_mm: ASTM D6433, longitudinal and transverse cracks, unfilled: low below the first
            limit, medium up to the second, high beyond.
        ltpp_mm: LTPP distress manual: low up to the first, moderate up to the second, high beyond.
        max_gsd_mm: coarser pixels cannot tell a width of 10 mm, so there is no class.
        reliable_px: mean width from which it is called reliable.
    """

    d6433_mm: tuple[float, float] = (10.0, 75.0)
    ltpp_mm: tuple[float, float] = (6.0, 19.0)
    max_gsd_mm: float = 5.0
    reliable_px: float = 3.0


def d6433(
    width_mm: FloatArray, gsd_mm: FloatArray | float, options: SeverityOptions
) -> NDArray[np.object_]:
    """Class of each mean width by ASTM D6433.

    >>> d6433(np.array([9.9, 10.0, 75.0, 75.1]), 2.0, SeverityOptions()).tolist()
    ['low', 'medium', 'medium', 'high']
    """
    low, medium = options.d6433_mm
    names = np.select([width_mm < low, width_mm <= medium], ["low", "medium"], "high")
    return _measurable(names, gsd_mm, options)


def ltpp(
    width_mm: FloatArray, gsd_mm: FloatArray | float, options: SeverityOptions
) -> NDArray[np.object_]:
    """Class of each mean width by LTPP.

    >>> ltpp(np.array([6.0, 6.1, 19.0, 19.1]), 2.0, SeverityOptions()).tolist()
    ['low', 'moderate', 'moderate', 'high']
    """
    low, moderate = options.ltpp_mm
    names = np.select([width_mm <= low, width_mm <= moderate], ["low", "moderate"], "high")
    return _measurable(names, gsd_mm, options)


def reliable(
    width_mm: FloatArray, gsd_mm: FloatArray | float, options: SeverityOptions
) -> NDArray[np.bool_]:
    """Whether each mean width (N,) can be relied on at its pixel size (N,), or one of all."""
    wide = width_mm >= options.reliable_px * np.asarray(gsd_mm)
    return np.asarray(wide & fine_enough(gsd_mm, options))


def fine_enough(gsd_mm: FloatArray | float, options: SeverityOptions) -> NDArray[np.bool_]:
    """Whether pixels can tell the classes; a pixel size of 5.0000001 mm is 5 mm."""
    return np.asarray(np.asarray(gsd_mm) <= options.max_gsd_mm * (1 + SAME_SIZE))


def _measurable(
    names: NDArray[np.str_], gsd_mm: FloatArray | float, options: SeverityOptions
) -> NDArray[np.object_]:
    fine = fine_enough(gsd_mm, options)
    return np.where(fine, names.astype(object), NOT_MEASURABLE).astype(object)
