"""When a weak trial ends early: Ray Tune's ASHA, fed from what the trials have recorded."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from jobs.tune_job import AshaConfig
from wpcrack.selection import objective

MOST_EPOCHS = 1_000_000
"""Rungs are laid up to here; no trial is that long."""

NO_CONTROLLER: Any = None
"""ASHA stops trials by what it returns; it never asks the controller that it is given."""


class Halving:
    """Decides after each epoch; counts epochs after a trial's warm-up stage.

    Ray does not keep a scheduler's state, so a continued sweep replays the recorded epochs.
    """

    def __init__(self, config: AshaConfig) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler

        self._epochs: dict[int, set[int]] = {}
        self._asha = AsyncHyperBandScheduler(
            time_attr="epochs",
            metric="value",
            mode="max",
            max_t=MOST_EPOCHS,
            grace_period=config.grace,
            reduction_factor=config.factor,
        )
        self._enabled = config.enabled

    def stops(self, number: int, line: Mapping[str, Any]) -> bool:
        """Whether a trial shall end after this epoch. Trial 0, the defaults, always goes on.

        Args:
            number: Of the trial.
            line: Of its metrics.jsonl.
        """
        if not self._enabled or line["stage"] == "warmup":
            return False
        stand_in: Any = SimpleNamespace(trial_id=str(number))  # all that ASHA reads of a trial
        if number not in self._epochs:
            self._epochs[number] = set()
            self._asha.on_trial_add(NO_CONTROLLER, stand_in)
        self._epochs[number].add(line["epoch"])
        result = {"epochs": len(self._epochs[number]), "value": line[objective(line)]}
        action = self._asha.on_trial_result(NO_CONTROLLER, stand_in, result)
        return number > 0 and action == self._asha.STOP
