"""What a sweep leaves: results.csv with every trial, best.yaml for `wpcrack train`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from jobs.train_folder import write_text
from jobs.tune_folder import BEST, RESULTS, Trial
from jobs.tune_job import TuneJob
from jobs.tune_space import Space
from wpcrack.selection import MASKED_IOU

DIGITS = 6


def write_results(root: Path, job: TuneJob, space: Space, trials: Sequence[Trial]) -> None:
    """Writes both files, each as a whole."""
    write_text(root / RESULTS, results_csv(space.keys, job.seed, trials))
    best = best_trial(trials)
    if best is not None:
        write_text(root / BEST, best_yaml(job, space, best))


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """The one of the highest score; of equals the first. Failed trials do not count."""
    scored = [trial for trial in trials if trial.score is not None]
    return max(scored, key=lambda trial: (trial.score, -trial.number), default=None)


def results_csv(keys: Sequence[str], seed: int, trials: Sequence[Trial]) -> str:
    """A row per trial: status, scores of its best epoch, settings, score of every epoch, error.

    `score` is the objective: val_iou where there is a masked validation set, else label_free.
    Lists are JSON; `score_per_epoch` has the epochs after the warm-up stage.
    """
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    scores = ("score", "label_free", "val_iou")
    lengths, ends = ("best_epoch", "epochs", "seconds", "seed"), ("score_per_epoch", "error")
    table.writerow(["trial", "status", *scores, *lengths, *keys, *ends])
    for trial in trials:
        params = [as_text(trial.params[key]) if key in trial.params else "" for key in keys]
        table.writerow(
            [trial.number, trial.status]
            + [as_text(getattr(trial, name)) for name in scores]
            + [trial.best["epoch"] if trial.best else "", len(trial.lines)]
            + [f"{trial.seconds:.1f}", trial.params.get("seed", seed), *params]
            + [json.dumps([round(v, DIGITS) for v in trial.values]), trial.error]
        )
    return file.getvalue()


def as_text(value: Any) -> str:
    """A cell: numbers short, nothing for None, the rest as JSON."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.{DIGITS}g}"
    return value if isinstance(value, str) else json.dumps(value)


def best_yaml(job: TuneJob, space: Space, best: Trial) -> str:
    """A config of `wpcrack train`: what differs from its defaults, with the best settings.

    Its run folder lies beside the sweep's, so the file can be trained from as it is.
    """
    run_dir = job.run_dir.absolute()
    training = space.job(best.params, run_dir=str(run_dir.with_name(f"{run_dir.name}-best")))
    values = training.absolute().model_dump(mode="json", exclude_defaults=True)
    by = "IoU on the masked validation set" if best.val_iou is not None else "label-free score"
    head = (
        f"# Trial {best.number} of the sweep in {job.run_dir}: {by} {best.score:.4f} after "
        f"{len(best.lines)} epochs,\n# with the sweep's own train.steps; selected on that score. "
        "Run: wpcrack train FILE\n"
    )
    return head + yaml.safe_dump(values, sort_keys=False)


def objective_name(trials: Sequence[Trial]) -> str:
    """What `score` is, for pictures and reports."""
    masked = any(MASKED_IOU in line for trial in trials for line in trial.lines)
    return "IoU on the masked validation set" if masked else "label-free score"
