"""The classes of cracks: severity by width or pattern, type by direction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geo.arrays import BoolArray, FloatArray
from geo.options import SAME_SIZE, NetworkOptions, SeverityOptions, TypeOptions

Names = NDArray[np.object_]

NOT_MEASURABLE = "not_measurable"

D6433_CLASSES = ("low", "medium", "high", NOT_MEASURABLE)

TYPES = ("longitudinal", "transverse", "diagonal", "unknown")

BLOCK = "block"


def is_measurable(
    width_mm: FloatArray, gsd_mm: FloatArray | float, options: SeverityOptions
) -> BoolArray:
    """Return whether a width may be claimed: wide enough for its pixels, which are fine enough.

    A pixel size of 5.0000001 mm is 5 mm.

    >>> is_measurable(np.array([9.9, 10.0, np.nan]), 5.0, SeverityOptions()).tolist()
    [False, True, False]
    """
    wide = width_mm >= options.measurable_px * np.asarray(gsd_mm)
    return np.asarray(wide & fine_enough(gsd_mm, options))


def fine_enough(gsd_mm: FloatArray | float, options: SeverityOptions) -> BoolArray:
    """Return whether pixels can tell the classes."""
    return np.asarray(np.asarray(gsd_mm) <= options.max_gsd_mm * (1 + SAME_SIZE))


def d6433(width_mm: FloatArray, measurable: BoolArray, options: SeverityOptions) -> Names:
    """Return the class of each width by ASTM D6433.

    >>> d6433(np.array([9.9, 10.0, 75.0, 75.1]), np.ones(4, bool), SeverityOptions()).tolist()
    ['low', 'medium', 'medium', 'high']
    """
    low, medium = options.d6433_mm
    names = np.select([width_mm < low, width_mm <= medium], ["low", "medium"], "high")
    return np.where(measurable, names.astype(object), NOT_MEASURABLE).astype(object)


def ltpp(width_mm: FloatArray, measurable: BoolArray, options: SeverityOptions) -> Names:
    """Return the class of each width by LTPP.

    >>> ltpp(np.array([6.0, 6.1, 19.0, 19.1]), np.ones(4, bool), SeverityOptions()).tolist()
    ['low', 'moderate', 'moderate', 'high']
    """
    low, moderate = options.ltpp_mm
    names = np.select([width_mm <= low, width_mm <= moderate], ["low", "moderate"], "high")
    return np.where(measurable, names.astype(object), NOT_MEASURABLE).astype(object)


def network_severities(
    kinds: Names, density_m_per_m2: FloatArray, by_width: Names, options: NetworkOptions
) -> Names:
    """Return the class of each network by ASTM D6433.

    Alligator cracking is rated by its pattern, block cracking by the width of its cracks.

    >>> kinds = np.array(["alligator", "alligator", "block"], object)
    >>> by_width = np.array(["low", "low", "medium"], object)
    >>> network_severities(kinds, np.array([8.0, 25, 5]), by_width, NetworkOptions()).tolist()
    ['low', 'high', 'medium']
    """
    medium, high = options.medium_density_m_per_m2, options.high_density_m_per_m2
    pattern = np.select(
        [density_m_per_m2 < medium, density_m_per_m2 < high], ["low", "medium"], "high"
    )
    return np.where(kinds == BLOCK, by_width, pattern.astype(object)).astype(object)


def crack_types(
    orientation_deg: FloatArray, length_m: FloatArray, road_deg: FloatArray, options: TypeOptions
) -> Names:
    """Name the type of each crack.

    Args:
        orientation_deg: (N,) of the crack, clockwise from north; nan if it has none.
        length_m: (N,) of it.
        road_deg: (N,) direction of the road there; nan off the road.
        options: see `TypeOptions`.

    >>> nan = float("nan")
    >>> crack_types(*np.array([[10, 95, 50, 0, 0], [1, 1, 1, 1, 0.2], [0, 0, 0, nan, 0]]),
    ...     TypeOptions()).tolist()
    ['longitudinal', 'transverse', 'diagonal', 'unknown', 'unknown']
    """
    turn = np.abs((orientation_deg - road_deg + 90) % 180 - 90)  # 0 = along, 90 = across
    short = (length_m < options.min_length_m) | np.isnan(turn)
    names = np.select(
        [short, turn <= options.angle_deg, turn >= 90 - options.angle_deg],
        ["unknown", "longitudinal", "transverse"],
        "diagonal",
    )
    return names.astype(object)
