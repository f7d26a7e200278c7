"""What a sweep would do, before any of it is done.

wpcrack tune configs/tune.yaml data.root=set run_dir=runs/sweep --plan
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any

from jobs.runtime.folder import require_writable
from jobs.train.folder import read_data, require_own, require_same
from jobs.train.needs import find_needs
from jobs.tune.folder import SWEEP, is_finished, require_states
from jobs.tune.job import AshaConfig, TuneJob, read_space
from jobs.tune.sampler import make_sampler
from jobs.tune.starts import (
    find_judged_stages,
    new_start,
    read_starts,
    require_one_start,
    warn_of_idle_keys,
)
from jobs.tune.trials import trials_here


@dataclass(frozen=True)
class SweepPlan:
    """What `wpcrack tune --plan` prints."""

    trials: int
    """Trial 0 has the defaults."""
    sampler: str
    workers: int
    """Of each trial; 0: in process."""
    steps: dict[str, int]
    """Of each stage."""
    batch_size: int
    judged_epochs: int
    """Epochs of the stages by which trials are judged."""
    checks: list[int]
    """After how many of them weak trials stop."""
    space: dict[str, str]
    """Searched key -> its range."""
    memory_bytes: int
    """Of a worker with the defaults, estimated."""
    warnings: list[str]
    """Of the data."""

    def text(self) -> str:
        """Return a few lines for the terminal."""
        where = f"{self.workers} workers each" if self.workers else "in process"
        checks = ", ".join(map(str, self.checks)) or "none"
        lines = [
            f"{self.trials} trials ({self.sampler}), trial 0 with the defaults, {where}",
            f"{' + '.join(map(str, self.steps.values()))} steps of {self.batch_size} images; "
            f"{self.judged_epochs} epochs are judged, weak trials stop after {checks}",
            f"about {1e-9 * self.memory_bytes:.1f} GB of memory in each worker, with the defaults",
        ]
        lines += [f"  {key}: {text}" for key, text in self.space.items()]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])

    def values(self) -> dict[str, Any]:
        """Return the figures of `--json`."""
        return asdict(self)


def plan_sweep(job: TuneJob) -> SweepPlan:
    """Say what a sweep will do; start nothing.

    Raises:
        WpcrackError: What the sweep would raise before its first trial.
    """
    space, train = read_space(job), job.train
    total = make_sampler(job, space)[1]
    require_one_start(job, space)
    require_folder(job, total)
    data = read_data(job, anew=job.resume == "never")
    needs = find_needs(job, data, trials=trials_here(job))
    steps = train.steps.model_dump()
    judged = sum(-(-steps[stage] // train.epoch_steps) for stage in find_judged_stages(job, space))
    return SweepPlan(
        trials=total,
        sampler=job.tune.sampler,
        workers=job.scaling.num_workers,
        steps=steps,
        batch_size=train.batch_size,
        judged_epochs=judged,
        checks=_rungs(job.tune.asha, judged),
        space={dimension.key: dimension.text() for dimension in space.dimensions},
        memory_bytes=needs.memory_bytes,
        warnings=[*data.warnings, *needs.warnings, *warn_of_idle_keys(job, space)],
    )


def require_folder(job: TuneJob, total: int) -> None:
    """Look at the folder of a sweep of so many trials as the sweep does first.

    Raises:
        ConfigError: It is another's, or of other settings, or a file of it is damaged.
        CheckpointError: The model that its trials start from was trained anew.
        OutputError: It cannot be written.
    """
    root = job.run_dir.absolute()
    require_own(root, SWEEP)
    require_writable(root, f"run_dir {job.run_dir}")
    if job.resume != "never":
        require_same(root, job, SWEEP)
        if not is_finished(root, total) or job.tune.retry_failed:
            require_states(job, root)
            new_start(job, read_starts(root))


def _rungs(asha: AshaConfig, judged: int) -> list[int]:
    """Return the epochs at which ASHA stops weak trials; none ends early at its last."""
    rungs: list[int] = []
    powers = itertools.count()
    while asha.enabled and (rung := math.ceil(asha.grace * asha.factor ** next(powers))) < judged:
        if rung not in rungs:
            rungs.append(rung)
    return rungs
