"""When a state is kept within an epoch: every so many minutes, and when a machine will leave."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch

from wpcrack import distributed

LOOK_S = 5.0
"""Seconds between two looks: each makes the ranks wait for each other, which no step should."""

LEAVING_S = 10.0
"""Seconds between two states while a machine is leaving; clouds give notice of 30 s to 2 minutes,
and what is done between the last state and the end is done again."""


class Pace:
    """Says on all ranks after the same steps that a state is due."""

    def __init__(
        self, minutes: float | None, device: torch.device, is_leaving: Callable[[], bool]
    ) -> None:
        """Begin as if a state had just been kept.

        Args:
            minutes: between two states; None: only while a machine is leaving.
            device: through which the ranks talk.
            is_leaving: whether one is; asked on all ranks.
        """
        self._seconds = math.inf if minutes is None else 60 * minutes
        self._device, self._is_leaving = device, is_leaving
        self._stride, self._steps, self._was_leaving = 1, 0, False
        self._kept = self._looked = time.monotonic()

    def is_due(self) -> bool:
        """Return whether a state is to be kept after this step: at a notice, and after its time."""
        self._steps += 1
        if self._steps < self._stride:
            return False
        now = time.monotonic()
        since = distributed.average([now - self._looked, now - self._kept], self._device)
        self._look_again(since[0] / self._steps)
        self._looked, self._steps = now, 0
        is_leaving = self._is_leaving()
        is_new, self._was_leaving = is_leaving and not self._was_leaving, is_leaving
        wait = min(self._seconds, LEAVING_S) if is_leaving else self._seconds
        return is_new or since[1] >= wait

    def restart(self) -> None:
        """Take note that a state was kept."""
        self._kept = self._looked = time.monotonic()
        self._steps = 0

    def _look_again(self, step_s: float) -> None:
        """Choose after how many steps, at most twice as many as before."""
        steps = min(LOOK_S, self._seconds) / max(step_s, 1e-9)
        self._stride = max(1, min(int(steps), 2 * self._stride))
