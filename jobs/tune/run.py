"""Search for settings of a training, on Ray Tune.

    wpcrack tune configs/tune.yaml data.root=out/set run_dir=out/sweep
    python -m jobs.tune configs/tune.yaml data.root=out/set run_dir=out/sweep

The same command continues an unfinished sweep: ended trials are not run again, the others go on
from their checkpoints.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from geo.files import write_text
from jobs.runtime.folder import how_to_continue
from jobs.runtime.ray_session import joins_cluster
from jobs.runtime.signals import Interrupted, stop_on_sigterm
from jobs.runtime.terminal import say
from jobs.runtime.versions import versions
from jobs.train.folder import REPORT, open_run, read_data
from jobs.train.needs import find_needs
from jobs.train.split import keep_split
from jobs.tune.folder import (
    BEST,
    PICTURE,
    RESULTS,
    SWEEP,
    drop_all_states,
    is_finished,
    read_trials,
    require_states,
)
from jobs.tune.job import TuneJob, read_space
from jobs.tune.results import best_trial, draw_sweep, importances, objective_name
from jobs.tune.sampler import make_sampler
from jobs.tune.starts import new_start, read_starts, require_one_start, warn_of_idle_keys
from jobs.tune.status import SweepStatus, read_status
from jobs.tune.sweep import Sweep
from jobs.tune.trials import run_in_process, run_on_ray, trials_here
from wpcrack.errors import TrainingError


def run_tune(job: TuneJob, *, local: bool = False) -> SweepStatus:
    """Run, or continue, the sweep in `job.run_dir`.

    Args:
        job: What to search.
        local: Use a Ray of our own even if RAY_ADDRESS names another.

    Raises:
        WpcrackError: A wrong space, unusable data, a cluster without room, no trial that ended
            with a score.
        KeyboardInterrupt: Ctrl-C or SIGTERM; ended trials and checkpoints are kept.
    """
    if job.scaling.num_workers:
        joins_cluster(local=local)  # what it cannot join is refused before any work
    space = read_space(job)
    total = make_sampler(job, space)[1]
    require_one_start(job, space)
    with stop_on_sigterm():
        data = read_data(job, anew=job.resume == "never")
        needs = find_needs(job, data, trials=trials_here(job), local=local)
        with open_run(job, SWEEP, drop_all_states) as root:
            if is_finished(root, total) and not job.tune.retry_failed:
                say(f"{job.run_dir} is finished already; resume=never sweeps again")
            else:
                require_states(job, root)
                new_start(job, read_starts(root))
                (root / REPORT).unlink(missing_ok=True)
                for warning in (*data.warnings, *needs.warnings, *warn_of_idle_keys(job, space)):
                    say(f"warning: {warning}")
                keep_split(root, data)
                run_trials(Sweep(job, root), local=local)
                conclude(job, root)
    return read_status(root)


def run_trials(sweep: Sweep, *, local: bool) -> None:
    """Run the trials in this process or on Ray, as the trials' workers ask."""
    try:
        if sweep.job.scaling.num_workers == 0:
            run_in_process(sweep)
        elif sweep.left:
            run_on_ray(sweep, local=local)
    except KeyboardInterrupt as error:
        ended = sum(trial.status != "running" for trial in read_trials(sweep.root))
        say(
            f"interrupted: {ended} ended trials and the checkpoints of the others are kept in "
            f"{sweep.job.run_dir}; {how_to_continue(sweep.job.resume)}"
        )
        raise Interrupted from error


def conclude(job: TuneJob, root: Path) -> None:
    """Write results, picture and report.

    Raises:
        TrainingError: No trial has a score.
    """
    space = read_space(job)
    trials = read_trials(root)
    best = best_trial(trials)
    if best is None:
        error = next((trial.error for trial in trials if trial.error), "no epoch was judged")
        raise TrainingError(
            f"no trial of {job.run_dir} ended with a score ({error}); see {RESULTS}, mend the "
            "cause and set tune.retry_failed=true"
        )
    found = importances(space.dimensions, trials)
    draw_sweep(root / PICTURE, trials, found, objective_name(trials))
    values: dict[str, Any] = {
        "trials": len(trials),
        "objective": objective_name(trials),
        "best": {"trial": best.number, "score": best.score, "params": best.params},
        "defaults": trials[0].score,
        "seconds": round(sum(trial.seconds for trial in trials), 1),
        "seed": job.seed,
        "sampler": job.tune.sampler,
        "importance": [asdict(one) for one in found],
        "importance_method": "rank correlation (numbers: Spearman; choices: correlation ratio), "
        "permutation test",
        "versions": versions(("wpcrack", "torch", "ray", "optuna")),
    }
    write_text(root / REPORT, json.dumps(values, indent=2) + "\n")
    reference = "" if values["defaults"] is None else f" (defaults {values['defaults']:.3f})"
    say(f"best is trial {best.number}, score {best.score:.3f}{reference}; {job.run_dir / BEST}")
