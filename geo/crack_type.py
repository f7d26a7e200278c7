"""The type of a crack from its direction against the road and from its loops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TYPES = ("longitudinal", "transverse", "diagonal", "network", "unknown")

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class TypeOptions:
    """Rules of the types.

    Attributes:
        angle_deg: within this angle of the road a crack is longitudinal, within it of the
            perpendicular transverse (AASHTO R 85: 20).
        min_length_m: shorter cracks have no direction and are unknown (AASHTO R 85: 0.3).
        network_loops: loops from which a crack can be a network (alligator).
        network_loops_per_m: loops per meter of centerline that it takes besides: blocks of
            0.3 m have about 1.7, of 1 m about 0.5.
    """

    angle_deg: float = 20.0
    min_length_m: float = 0.3
    network_loops: int = 2
    network_loops_per_m: float = 0.4


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
