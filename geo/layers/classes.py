"""The classes of a crack: its severity by mean width, its type by direction and loops."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geo.options import SAME_SIZE, SeverityOptions, TypeOptions

FloatArray = NDArray[np.float64]

NOT_MEASURABLE = "not_measurable"

TYPES = ("longitudinal", "transverse", "diagonal", "network", "unknown")


def d6433(
    width_mm: FloatArray, gsd_mm: FloatArray | float, options: SeverityOptions
) -> NDArray[np.object_]:
    """Return the class of each mean width by ASTM D6433.

    >>> d6433(np.array([9.9, 10.0, 75.0, 75.1]), 2.0, SeverityOptions()).tolist()
    ['low', 'medium', 'medium', 'high']
    """
    low, medium = options.d6433_mm
    names = np.select([width_mm < low, width_mm <= medium], ["low", "medium"], "high")
    return _measurable(names, gsd_mm, options)


def ltpp(
    width_mm: FloatArray, gsd_mm: FloatArray | float, options: SeverityOptions
) -> NDArray[np.object_]:
    """Return the class of each mean width by LTPP.

    >>> ltpp(np.array([6.0, 6.1, 19.0, 19.1]), 2.0, SeverityOptions()).tolist()
    ['low', 'moderate', 'moderate', 'high']
    """
    low, moderate = options.ltpp_mm
    names = np.select([width_mm <= low, width_mm <= moderate], ["low", "moderate"], "high")
    return _measurable(names, gsd_mm, options)


def reliable(
    width_mm: FloatArray, gsd_mm: FloatArray | float, options: SeverityOptions
) -> NDArray[np.bool_]:
    """Return whether each mean width (N,) can be relied on at its pixel size, (N,) or one."""
    wide = width_mm >= options.reliable_px * np.asarray(gsd_mm)
    return np.asarray(wide & fine_enough(gsd_mm, options))


def crack_types(
    orientation_deg: FloatArray,
    length_m: FloatArray,
    loops: FloatArray,
    road_deg: FloatArray,
    options: TypeOptions,
) -> NDArray[np.object_]:
    """Name the type of each crack.

    Args:
        orientation_deg: (N,) of the crack, clockwise from north; nan if it has none.
        length_m: (N,) of its centerlines.
        loops: (N,) of its centerlines.
        road_deg: (N,) direction of the road there; nan off the road.
        options: see `TypeOptions`.

    >>> nan = float("nan")
    >>> crack_types(*np.array([[10, 95, 50, nan, 0, 0], [1, 1, 1, 1, 1, 0.2],
    ...     [0, 0, 1, 5, 0, 0], [0, 0, 0, 0, nan, 0]]), TypeOptions()).tolist()
    ['longitudinal', 'transverse', 'diagonal', 'network', 'unknown', 'unknown']
    """
    turn = np.abs((orientation_deg - road_deg + 90) % 180 - 90)  # 0 = along, 90 = across
    dense = loops >= options.network_loops_per_m * length_m
    network = dense & (loops >= options.network_loops) & ~np.isnan(road_deg)
    short = (length_m < options.min_length_m) | np.isnan(turn)
    names = np.select(
        [network, short, turn <= options.angle_deg, turn >= 90 - options.angle_deg],
        ["network", "unknown", "longitudinal", "transverse"],
        "diagonal",
    )
    return names.astype(object)


def fine_enough(gsd_mm: FloatArray | float, options: SeverityOptions) -> NDArray[np.bool_]:
    """Return whether pixels can tell the classes; a pixel size of 5.0000001 mm is 5 mm."""
    return np.asarray(np.asarray(gsd_mm) <= options.max_gsd_mm * (1 + SAME_SIZE))


def _measurable(
    names: NDArray[np.str_], gsd_mm: FloatArray | float, options: SeverityOptions
) -> NDArray[np.object_]:
    fine = fine_enough(gsd_mm, options)
    return np.where(fine, names.astype(object), NOT_MEASURABLE).astype(object)
