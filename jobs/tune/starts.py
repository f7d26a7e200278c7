"""What the trials of a sweep start from: all from the same weights, else only these would differ.

A trial is judged beside the others, and what starts from a model learns from other labels and is
judged by others than what starts from ImageNet.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jobs.runtime.folder import explain_damage, read_lines
from jobs.train.folder import ANEW
from jobs.train.job import TrainJob
from jobs.train.needs import idle_keys
from jobs.tune.folder import JOURNAL
from jobs.tune.job import Space, TuneJob
from wpcrack.errors import ConfigError
from wpcrack.training.start import (
    PATH_KEYS,
    find_start,
    judged_stages,
    other_start,
    start_digest,
)


def require_one_start(job: TrainJob, space: Space) -> None:
    """Refuse a search over networks that the model of `model.init` has no weights of.

    Raises:
        ConfigError: There is such a key.
        CheckpointError: `model.init` holds no model, or one of other networks.
    """
    if find_start(job.model).folder is None:
        return
    path = tuple(f"model.{key}" for key in PATH_KEYS)
    for key in space.keys:
        if any(f"{key}.".startswith(f"{name}.") for name in path):
            raise ConfigError(
                f"tune.space.{key} changes networks that model.init={job.model.init} has weights "
                "of, so some trials would start from it and others could not; set "
                f"model.init=imagenet, or tune.space.{key}=null"
            )


def find_judged_stages(job: TrainJob, space: Space) -> tuple[str, ...]:
    """List the stages whose epochs say that a trial is weak, whatever it starts from."""
    from_model = "model.init" in space.keys or find_start(job.model).folder is not None
    return judged_stages(job.train.steps, from_model=from_model)


def warn_of_idle_keys(job: TuneJob, space: Space) -> list[str]:
    """Warn of what is searched, or set, in vain: it is the same for all trials."""
    found, may_differ = [], {"model.init", "train.detector_ema", "train.joint_after"}
    teaches = [d for d in space.dimensions if d.key == "pseudo_label.self_training" and d.holds(0)]
    if not (teaches or may_differ & {*space.keys}):
        idle = idle_keys(job, from_model=find_start(job.model).folder is not None)
        found = [
            f"tune.space.{key} changes nothing: {why}"
            for key, why in idle.items()
            if key in space.keys
        ]
    if (job.tune.concurrent or 1) > 1 and not job.scaling.num_workers:
        found.append(
            f"tune.concurrent={job.tune.concurrent} changes nothing: trials in process run one "
            "after another; set scaling.num_workers=1 or more to run them on Ray"
        )
    return found


def read_starts(root: Path) -> dict[str, str]:
    """Read from which weights the trials started: their hash by model.init; the last one counts.

    Raises:
        ConfigError: The journal is damaged.
    """
    lines = read_lines(root / JOURNAL, ANEW)
    with explain_damage(root / JOURNAL, ANEW):
        return {
            str(init): str(digest)
            for line in lines
            for init, digest in dict(line.get("start", {})).items()
        }


def new_start(job: TrainJob, known: Mapping[str, str]) -> dict[str, str]:
    """Return model.init of a trial with the hash of its weights, if no trial had them yet.

    Trials from different weights say nothing about their settings; resume=force goes on with those
    of now.

    Args:
        job: the trial, or the sweep.
        known: of the trials before.

    Raises:
        CheckpointError: The model was trained anew since then.
    """
    digest, init = start_digest(job.model), str(job.model.init)
    if digest is None or known.get(init) == digest:
        return {}
    if init in known and job.resume != "force":
        raise other_start(job.model, "sweep")
    return {init: digest}
