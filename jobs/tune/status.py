"""How far a sweep is, told from its folder while it runs or afterwards.

wpcrack tune --status runs/sweep
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.runtime.folder import explain_damage, is_locked
from jobs.train.folder import ANEW, CONFIG, LOCK, REPORT
from jobs.tune.folder import JOURNAL, Trial, read_trials
from jobs.tune.job import TuneJob, read_space
from jobs.tune.results import best_trial, objective_name
from jobs.tune.sampler import make_sampler
from wpcrack.errors import ConfigError
from wpcrack.plain_yaml import load_plain

SHOWN = 5
"""Best trials in the report."""


@dataclass(frozen=True)
class SweepStatus:
    """State of a sweep.

    Attributes:
        run_dir: its folder.
        objective: what the score is.
        total: trials of the sweep.
        finished: trials that ran to their end.
        stopped: trials that were ended early.
        failed: trials that went wrong.
        unfinished: trials that run, or wait to be continued.
        is_running: whether a process works on them now.
        is_complete: every trial has ended and the report is written.
        best: up to five trials, best first: trial, score, status, epochs, params.
    """

    run_dir: str
    objective: str
    total: int
    finished: int
    stopped: int
    failed: int
    unfinished: int
    is_running: bool
    is_complete: bool
    best: list[dict[str, Any]]

    def values(self) -> dict[str, Any]:
        """Return the figures of `--json`."""
        return asdict(self)

    def text(self) -> str:
        """Return one line, then the best trials."""
        ended = self.finished + self.stopped + self.failed
        now = "running" if self.is_running else "finished" if self.is_complete else "not running"
        head = (
            f"{self.run_dir}: {ended}/{self.total} trials ended ({self.stopped} stopped early, "
            f"{self.failed} failed), {self.unfinished} under way, {now}"
        )
        rows = [
            f"  trial {row['trial']:>3}  {self.objective} {row['score']:.4f}  {row['status']} "
            f"after {row['epochs']} epochs"
            for row in self.best
        ]
        return "\n".join([head, *rows])


def read_status(root: Path) -> SweepStatus:
    """Read the state of a sweep; change nothing and disturb nobody.

    Raises:
        ConfigError: There is no sweep, or a file of it is damaged.
    """
    if not (root / JOURNAL).is_file():
        raise ConfigError(f"{root} holds no sweep; give the run_dir of `wpcrack tune`")
    with explain_damage(root / CONFIG, ANEW):
        job = TuneJob.model_validate(load_plain((root / CONFIG).read_text(encoding="utf-8")))
    trials = read_trials(root)
    count = {s: sum(t.status == s for t in trials) for s in ("finished", "stopped", "failed")}
    return SweepStatus(
        run_dir=str(root),
        objective=objective_name(trials),
        total=make_sampler(job, read_space(job))[1],
        unfinished=sum(t.status == "running" for t in trials),
        is_running=is_locked(root / LOCK),
        is_complete=(root / REPORT).exists(),
        best=ranking(trials)[:SHOWN],
        **count,
    )


def ranking(trials: list[Trial]) -> list[dict[str, Any]]:
    """List scored trials, best first."""
    left, rows = list(trials), []
    while (best := best_trial(left)) is not None:
        left.remove(best)
        rows.append(
            {
                "trial": best.number,
                "score": best.score,
                "status": best.status,
                "epochs": len(best.lines),
                "params": best.params,
            }
        )
    return rows
