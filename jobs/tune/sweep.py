"""The course of a sweep, whoever runs its trials: what comes next, what ends, what is noted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jobs.runtime.folder import explain_damage, is_locked
from jobs.runtime.terminal import say
from jobs.train.checkpoints import drop_states
from jobs.train.folder import ANEW, CONFIG, WRITER
from jobs.train.job import TrainJob
from jobs.train.split import share_split
from jobs.train.tracking import end_stopped
from jobs.tune.folder import (
    JOURNAL,
    Ending,
    Trial,
    note,
    open_journal,
    read_course,
    read_trials,
    trial_folder,
)
from jobs.tune.job import AshaConfig, TuneJob, read_space
from jobs.tune.results import write_results
from jobs.tune.sampler import PastTrial, make_sampler
from jobs.tune.starts import find_judged_stages, new_start, read_starts
from wpcrack.training.selection import objective

NUMBER, JOB, ERROR, USERS, FATAL = "number", "job", "error", "is_users", "fatal"
"""Keys of a trial's config on Ray, and of its report of what ended it, or ends the sweep."""

PROGRESS = "train/progress"
"""Metric that is 1 after the last epoch of a training."""

MOST_EPOCHS = 1_000_000
"""Rungs are laid up to here; no trial is that long."""

NO_CONTROLLER: Any = None
"""ASHA stops trials by what it returns; it never asks the controller that it is given."""


class Sweep:
    """Hands out trials: first the unfinished ones of an earlier start, then new ones.

    The journal and the trials' own run folders are the only state, so a continued sweep and one
    that was never cut off take the same decisions from the same files.
    """

    def __init__(self, job: TuneJob, root: Path) -> None:
        self.job, self.root = job, root
        self.space = read_space(job)
        self.sampler, self.total = make_sampler(job, self.space)
        open_journal(root, retry_failed=job.tune.retry_failed)
        self.halving = Halving(job.tune.asha, find_judged_stages(job, self.space))
        self._starts = read_starts(root)
        trials = read_trials(root)
        weak = self._replay(trials)
        self._waiting = [trial for trial in trials if trial.status == "running"]
        self._known = 1 + max((trial.number for trial in trials), default=-1)
        self._open = {trial.number for trial in self._waiting}
        for trial in trials:
            if trial.status in ("finished", "stopped"):
                self._drop_states(trial.number)
        for trial in tuple(self._waiting):
            if trial.number in weak:  # cut off between the decision and the note of it
                say(f"trial {trial.number} stopped: others are better")
                self._waiting.remove(trial)
                self.end(trial.number, "stopped")

    @property
    def left(self) -> int:
        """Trials that are not ended yet."""
        return len(self._waiting) + max(0, self.total - self._known)

    def trains(self) -> bool:
        """Return whether a worker of a trial that has not ended is at work."""
        folders = [trial_folder(self.root, number) for number in tuple(self._open)]
        return any(is_locked(folder / WRITER) for folder in folders)

    def next(self) -> Trial | None:
        """Return the trial to run now; None: there is none left.

        Raises:
            ConfigError: The space holds no settings that go together.
            CheckpointError: The model that trials start from was trained anew since the first one.
        """
        if self._waiting:
            trial = self._waiting.pop(0)
            with explain_damage(self.root / JOURNAL, ANEW):  # it says which settings a trial had
                job = self.space.job(trial.params)
            if start := new_start(job, self._starts):
                note(self.root, trial.number, start=start)
                self._starts |= start
            say(f"trial {trial.number} of {self.total}: continued after {len(trial.lines)} epochs")
            return trial
        if self._known >= self.total:
            return None
        number = self._known
        trials = read_trials(self.root)
        earlier = [PastTrial(t.params, t.status, t.values, t.score) for t in trials]
        params = self.sampler(number, earlier)
        if params is None:
            return None
        start = new_start(self.space.job(params), self._starts)
        self._starts |= start
        self._known += 1
        self._open.add(number)
        note(self.root, number, params=params, **({"start": start} if start else {}))
        share_split(self.root, trial_folder(self.root, number))
        shown = "the defaults" if number == 0 else brief(params)
        say(f"trial {number} of {self.total}: {shown}")
        return Trial(number, params)

    def training(self, trial: Trial) -> TrainJob:
        """Return what a trial runs; all share one seed, so that only settings differ.

        Whether it may go on was decided by the sweep's own record; places in that of the trial are
        absolute, and differ where sweep and data have been moved.
        """
        scaling, folder = self.job.scaling, trial_folder(self.root, trial.number)
        return self.space.job(
            trial.params,
            run_dir=str(folder),
            resume="force" if (folder / CONFIG).exists() else "auto",
            scaling={**scaling.model_dump(), "cpus_per_worker": scaling.threads},
        ).absolute()

    def epoch(self, number: int, line: Mapping[str, Any]) -> bool:
        """Take note of an epoch; return whether the trial ends with it."""
        stops = self.halving.stops(number, line)
        note(self.root, number, epoch=line["epoch"])
        score = f", score {line[objective(line)]:.3f}" if line["stage"] != "warmup" else ""
        say(
            f"trial {number} epoch {line['epoch']} {line['stage']}{score}"
            f"{', stopped: others are better' if stops else ''}"
        )
        self.write()
        return stops

    def end(self, number: int, status: Ending, error: str = "") -> None:
        """Take note of a trial's end; the first one counts."""
        if number not in self._open:
            return
        self._open.remove(number)
        note(self.root, number, status=status, **({"error": error} if error else {}))
        if status == "stopped":
            end_stopped(trial_folder(self.root, number), self.job)
        if status == "failed":
            say(f"trial {number} failed: {error}")
        else:
            self._drop_states(number)
        self.write()

    def _replay(self, trials: Sequence[Trial]) -> set[int]:
        """Judge the recorded epochs again, in their order; return which trials end with the last.

        An epoch that was recorded just before a crash comes after those that were noted.
        """
        lines = {(trial.number, line["epoch"]): line for trial in trials for line in trial.lines}
        stops = dict[int, bool]()
        for number, epoch in dict.fromkeys((*read_course(self.root), *lines)):
            if (number, epoch) in lines:
                stops[number] = self.halving.stops(number, lines[number, epoch])
        return {number for number, ends in stops.items() if ends}

    def _drop_states(self, number: int) -> None:
        folder = trial_folder(self.root, number)
        drop_states(self.job.model_copy(update={"run_dir": folder}))

    def write(self) -> None:
        """Bring results.csv and best.yaml up to date."""
        write_results(self.root, self.job, self.space, read_trials(self.root))


class Halving:
    """When a weak trial ends early: Ray Tune's ASHA, fed from what the trials have recorded.

    Epochs of the judged stages count. Ray does not keep a scheduler's state, so a
    continued sweep replays the recorded epochs.
    """

    def __init__(
        self, config: AshaConfig, judged: Collection[str] = ("adversarial", "detector")
    ) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler

        self._epochs: dict[int, set[int]] = {}
        self._asha = AsyncHyperBandScheduler(
            time_attr="epochs",
            metric="value",
            mode="max",
            max_t=max(MOST_EPOCHS, config.grace),
            grace_period=config.grace,
            reduction_factor=config.factor,
        )
        self._enabled, self._judged = config.enabled, judged

    def stops(self, number: int, line: Mapping[str, Any]) -> bool:
        """Return whether a trial ends early, after this epoch; trial 0, the defaults, never does.

        Args:
            number: Of the trial.
            line: Of its metrics.jsonl.
        """
        if not self._enabled or line["stage"] not in self._judged:
            return False
        stand_in: Any = SimpleNamespace(trial_id=str(number))  # all that ASHA reads of a trial
        if number not in self._epochs:
            self._epochs[number] = set()
            self._asha.on_trial_add(NO_CONTROLLER, stand_in)
        self._epochs[number].add(line["epoch"])
        result = {"epochs": len(self._epochs[number]), "value": line[objective(line)]}
        action = self._asha.on_trial_result(NO_CONTROLLER, stand_in, result)
        is_last = round(line.get(PROGRESS, 0.0), 6) >= 1  # as metrics.jsonl has it
        return number > 0 and not is_last and action == self._asha.STOP


def brief(params: Mapping[str, Any]) -> str:
    """Put settings on one line: last part of each key, four digits."""
    parts = []
    for key, value in params.items():
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        parts.append(f"{key.rpartition('.')[2]} {text}")
    return ", ".join(parts)
