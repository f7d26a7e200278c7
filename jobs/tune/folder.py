"""The folder of a sweep, and what its files say of each trial.

run_dir/
    config.yaml      the resolved config; decides whether the sweep may be continued
    trials.jsonl     a line when a trial gets its settings, after each epoch, and when it ends
    trials/00000/    run folder of a training (jobs.train.folder); 00000 has the defaults
    results.csv      every trial
    best.yaml        config of `wpcrack train` with the best settings
    sweep.png        score over trials, importance of the settings
    report.json      written last: the sweep is finished

Nothing else is kept: a process that dies loses no more than the epoch that it was in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from geo.files import write_text
from jobs.runtime.folder import SAME_COMMAND, explain_damage, explain_write_errors, read_lines
from jobs.train.checkpoints import drop_states, require_same_storage
from jobs.train.folder import (
    ANEW,
    CONFIG,
    FREE_KEYS,
    METRICS,
    REPORT,
    FolderKind,
    read_metrics,
)
from jobs.train.job import TrainJob
from jobs.train.split import SPLIT
from wpcrack.training.selection import LABEL_FREE, MASKED_IOU, objective

JOURNAL, TRIALS, RESULTS, BEST, PICTURE = (
    "trials.jsonl",
    "trials",
    "results.csv",
    "best.yaml",
    "sweep.png",
)
SWEEP = FolderKind(
    noun="sweep",
    verb="tunes",
    own=frozenset({CONFIG, SPLIT, JOURNAL, TRIALS, RESULTS, BEST, PICTURE, REPORT}),
    free_keys=(*FREE_KEYS, "tune.trials", "tune.concurrent", "tune.retry_failed"),
    begun=JOURNAL,
)

MOST_TRIALS = 100_000
"""Numbers of trials have five digits."""

Ending = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class Trial:
    """One trial as its files tell.

    Attributes:
        number: from 0.
        params: its settings, by dotted key.
        status: running also means: unfinished, to be continued.
        lines: of its metrics.jsonl.
        error: why it failed.
    """

    number: int
    params: dict[str, Any]
    status: Literal["running", "finished", "stopped", "failed"] = "running"
    lines: tuple[dict[str, Any], ...] = ()
    error: str = ""

    @property
    def judged_epochs(self) -> list[dict[str, Any]]:
        """Epochs whose score means something: those after the warm-up stage."""
        return [line for line in self.lines if line["stage"] != "warmup"]

    @property
    def values(self) -> list[float]:
        """Objective after each of them."""
        return [float(line[objective(line)]) for line in self.judged_epochs]

    @property
    def best(self) -> dict[str, Any] | None:
        """The epoch of the highest objective among those that were the best of the training so far.

        What starts from a model keeps no model of its adversarial stage, however it is judged.
        """
        numbers = [
            line
            for line in self.judged_epochs
            if line.get("best", True) and line[objective(line)] == line[objective(line)]
        ]
        return max(numbers, key=lambda line: float(line[objective(line)]), default=None)

    @property
    def score(self) -> float | None:
        """Objective of the best epoch; None before there is one, and of failed trials."""
        best = self.best
        return None if best is None or self.status == "failed" else float(best[objective(best)])

    @property
    def label_free(self) -> float | None:
        """Label-free score of the best epoch."""
        return None if self.best is None else float(self.best[LABEL_FREE])

    @property
    def val_iou(self) -> float | None:
        """IoU on the masked validation set at the best epoch, if there is such a set."""
        return None if self.best is None else self.best.get(MASKED_IOU)

    @property
    def seconds(self) -> float:
        """Time in its epochs."""
        return float(sum(line["seconds"] for line in self.lines))


def trial_folder(root: Path, number: int) -> Path:
    """Return the run folder of a trial."""
    return root / TRIALS / f"{number:05d}"


def read_trials(root: Path) -> list[Trial]:
    """Read all trials of a sweep, by number.

    Raises:
        ConfigError: A file of it is damaged.
    """
    lines, entries = read_lines(root / JOURNAL, ANEW), dict[int, dict[str, Any]]()
    with explain_damage(root / JOURNAL, ANEW):
        for line in lines:
            if type(line["trial"]) is not int or not 0 <= line["trial"] < MOST_TRIALS:
                raise ValueError(f"trial {line['trial']!r}")
            entries.setdefault(line["trial"], {}).update(line)
        trials = [_trial(number, entry) for number, entry in sorted(entries.items())]
    return [_with_epochs(root, trial) for trial in trials]


def _trial(number: int, entry: Mapping[str, Any]) -> Trial:
    status = entry.get("status", "running")
    if status not in ("running", *get_args(Ending)):
        raise ValueError(f"status {status!r}")
    return Trial(number, dict(entry["params"]), status, (), str(entry.get("error", "")))


def _with_epochs(root: Path, trial: Trial) -> Trial:
    """Add a trial's epochs; its own report counts even if the sweep died before noting the end."""
    folder = trial_folder(root, trial.number)
    is_over = trial.status == "running" and (folder / REPORT).exists()
    lines = tuple(read_metrics(folder / METRICS))
    found = replace(trial, lines=lines, status="finished" if is_over else trial.status)
    with explain_damage(folder / METRICS, ANEW):
        _ = found.values, found.label_free, found.seconds  # what each epoch says
    return found


def read_course(root: Path) -> list[tuple[int, int]]:
    """Read in which order the epochs of all trials ended: numbers of trial and epoch.

    Raises:
        ConfigError: The journal is damaged.
    """
    lines = read_lines(root / JOURNAL, ANEW)
    with explain_damage(root / JOURNAL, ANEW):
        return [(int(line["trial"]), int(line["epoch"])) for line in lines if "epoch" in line]


def require_states(job: TrainJob, root: Path) -> None:
    """Refuse to go on with trials whose states lie elsewhere than those of the sweep would.

    Raises:
        ConfigError: See `require_same_storage`.
    """
    for trial in read_trials(root):
        if trial.status == "running":
            folder = trial_folder(root, trial.number)
            require_same_storage(job.model_copy(update={"run_dir": folder}))


def drop_all_states(job: TrainJob) -> None:
    """Free the space of the states of all trials that are there."""
    for folder in (job.run_dir / TRIALS).glob("*/"):
        drop_states(job.model_copy(update={"run_dir": folder}))


def is_finished(root: Path, total: int) -> bool:
    """Return whether a report of as many trials is there; with more trials the sweep goes on."""
    path = root / REPORT
    with explain_damage(path, ANEW):
        return path.exists() and json.loads(path.read_text(encoding="utf-8"))["trials"] >= total


def open_journal(root: Path, *, retry_failed: bool) -> None:
    """Drop what a crash left half-written, and on request the ends of failed trials."""
    kept = [
        line
        for line in read_lines(root / JOURNAL, ANEW)
        if not (retry_failed and line.get("status") == "failed")
    ]
    write_text(root / JOURNAL, "".join(json.dumps(line) + "\n" for line in kept))


def note(root: Path, number: int, **entry: Any) -> None:
    """Add a line to the journal.

    Raises:
        OutputError: It cannot be written.
    """
    path = root / JOURNAL
    with explain_write_errors(str(path), SAME_COMMAND), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"trial": number, **entry}) + "\n")
