"""How fast a person answers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

PACE_ANSWERS = 20
"""The pace is that of so many last answers."""

MIN_PACE_ANSWERS = 5
"""From fewer answers no pace is told."""

PAUSE_S = 60.0
"""A longer time between two answers was a pause and does not count for the pace."""


def pace(times_s: Sequence[float]) -> float | None:
    """Return the answers per minute of late, without pauses; None while there are too few.

    Args:
        times_s: of the answers, seconds, oldest first.
    """
    steps = [b - a for a, b in pairwise(times_s[-PACE_ANSWERS - 1 :]) if 0 <= b - a <= PAUSE_S]
    if len(steps) < MIN_PACE_ANSWERS or sum(steps) <= 0:
        return None
    return 60 * len(steps) / sum(steps)
