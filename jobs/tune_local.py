"""Trials of a sweep one after another in this process (`scaling.num_workers=0`), without Ray."""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

from jobs.train import Watch, run_training
from jobs.tune_folder import Trial
from jobs.tune_sweep import Sweep
from wpcrack.errors import ConfigError, DataError


class TrialStopped(Exception):
    """ASHA ends a trial."""


def run_in_process(sweep: Sweep) -> None:
    """Runs all trials that are left.

    Raises:
        WpcrackError: The defaults themselves cannot be trained; every other trial would fail too.
        KeyboardInterrupt: Everything finished is kept.
    """
    while (trial := sweep.next()) is not None:
        run_trial(sweep, trial)
        gc.collect()  # optimizers and networks of a trial refer to each other


def run_trial(sweep: Sweep, trial: Trial) -> None:
    """Runs one trial; what goes wrong in it is noted."""
    number = trial.number
    try:
        watch = Watch(after_epoch=partial(stop_if_weak, sweep, number))
        run_training(sweep.training(trial), watch=watch)
        sweep.end(number, "finished")
    except TrialStopped:
        sweep.end(number, "stopped")
    except Exception as error:
        sweep.end(number, "failed", f"{type(error).__name__}: {first_line(error)}")
        if number == 0 and isinstance(error, ConfigError | DataError):
            raise


def stop_if_weak(sweep: Sweep, number: int, line: dict[str, Any]) -> None:
    """Ends the training from inside."""
    if sweep.epoch(number, line):
        raise TrialStopped


def first_line(error: BaseException) -> str:
    """Of its message."""
    return (str(error).strip().splitlines() or ["no message"])[0]
