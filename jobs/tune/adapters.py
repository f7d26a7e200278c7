"""Ray Tune's two questions, answered by the sweep: what to try next, and whether to go on.

Imported only for trials on Ray: the classes derive from Ray's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from geo.errors import GeoError
from jobs.runtime.terminal import USER_ERRORS, last_line
from jobs.tune.sweep import ERROR, FATAL, JOB, NUMBER, USERS, Sweep
from wpcrack.errors import TrainingError, WpcrackError


class Suggestions(Searcher):
    """Hands out the sweep's trials."""

    def __init__(self, sweep: Sweep, decisions: Decisions) -> None:
        super().__init__()  # no metric: a trial that was complete but for its end reports none
        self.sweep, self.decisions = sweep, decisions

    def suggest(self, trial_id: str) -> Any:
        """Return the config of the next trial; what is wrong with the space ends the sweep."""
        try:
            trial = None if self.decisions.fatal else self.sweep.next()
        except USER_ERRORS as error:
            self.decisions.fatal, trial = error, None
        if trial is None:
            return Searcher.FINISHED
        return {NUMBER: trial.number, JOB: self.sweep.training(trial).model_dump_json()}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Do nothing: the sweep reads its files."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the sweep's folder is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: Ray's experiment state is never restored from."""


class Decisions(FIFOScheduler):
    """Ends trials that ASHA stops, and notes how each trial ended.

    Attributes:
        fatal: what ends the sweep. Trials that are under way then are continued by the next start.
    """

    def __init__(self, sweep: Sweep) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sweep = sweep
        self.fatal: WpcrackError | GeoError | None = None

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide after each epoch, and after a failure that the trial could report itself."""
        number, stops = trial.config[NUMBER], False
        with self._ending_sweep():
            if FATAL in result:
                self.fatal = TrainingError(result[FATAL])
            elif ERROR in result:
                self._fail(number, result[ERROR], is_users=result[USERS])
            elif "epoch" in result and self.sweep.epoch(number, result):
                stops = True
                self.sweep.end(number, "stopped")
        stops = stops or self.fatal is not None
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Note a trial that ran to its end, or reported its failure before."""
        if self.fatal is not None or FATAL in result:
            return  # the trial is continued when the cause is mended; its own report says its end
        number = trial.config[NUMBER]
        with self._ending_sweep():
            if ERROR in result:
                self._fail(number, result[ERROR], is_users=result[USERS])
            self.sweep.end(number, "finished")

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Note a trial whose own process died."""
        error = trial.get_error()
        text = last_line(error) if error else "no message"
        with self._ending_sweep():
            self._fail(trial.config[NUMBER], f"the process of the trial died ({text})")

    @contextmanager
    def _ending_sweep(self) -> Iterator[None]:
        """Let what cannot be noted end the sweep; Ray Tune would print it as a fault of its own."""
        try:
            yield
        except USER_ERRORS as error:
            self.fatal = self.fatal or error

    def _fail(self, number: int, text: str, *, is_users: bool = False) -> None:
        self.sweep.end(number, "failed", text)
        if number == 0 and is_users:
            self.fatal = TrainingError(f"the defaults cannot be trained: {text}")
