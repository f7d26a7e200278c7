"""Every command of `wpcrack`, in the order of its help; add a job here, and nowhere else.

A job is a folder with `job.py` (a pydantic model: what a user can set) and `run.py` (a function
that gets the model). Its subcommand, a thin function in `jobs/cli/`, names the options. What stands
here is text, so that the help starts without importing a job.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Job:
    """One command. Places are written `module:name`.

    Attributes:
        name: of the subcommand.
        command: function of the subcommand, with its options and its help.
        run: what does the work.
        config: model of the settings; None: the command has options alone.
        shown: what `wpcrack config NAME` prints: the defaults, the defaults commented out (a key
            that is left out means something else), or the shipped file, which says more.
        is_submitted: whether `wpcrack submit NAME` runs it on a cluster.
        check: refuses settings that no model can refuse alone, before they go to a cluster.
    """

    name: str
    command: str
    run: str | None = None
    config: str | None = None
    shown: Literal["defaults", "commented", "file"] = "defaults"
    is_submitted: bool = False
    check: str | None = None


JOBS = {
    job.name: job
    for job in (
        Job("demo", "jobs.cli.learn:demo", "jobs.demo.run:run_demo"),
        Job("dataset", "jobs.cli.learn:dataset", "jobs.dataset:run_dataset"),
        Job(
            "train",
            "jobs.cli.learn:train",
            "jobs.train.run:run_training",
            config="jobs.train.job:TrainJob",
            is_submitted=True,
        ),
        Job(
            "tune",
            "jobs.cli.learn:tune",
            "jobs.tune.run:run_tune",
            config="jobs.tune.job:TuneJob",
            shown="file",
            is_submitted=True,
            check="jobs.tune.job:read_space",
        ),
        Job(
            "pretrain",
            "jobs.cli.learn:pretrain",
            "jobs.pretrain:run_pretrain",
            config="wpcrack.training.shipped:ShippedConfig",
        ),
        Job(
            "adapt",
            "jobs.cli.learn:adapt",
            "jobs.adapt.run:run_adapt",
            config="jobs.adapt.job:AdaptJob",
        ),
        Job("evaluate", "jobs.cli.learn:evaluate", "jobs.evaluate.run:run_evaluate"),
        Job("predict", "jobs.cli.learn:predict", "jobs.predict:run_predict"),
        Job(
            "infer",
            "jobs.cli.map:infer",
            "jobs.infer.run:run_inference",
            config="jobs.infer.job:InferJob",
            is_submitted=True,
        ),
        Job(
            "assemble",
            "jobs.cli.map:assemble",
            "jobs.assemble.run:run_assemble",
            config="jobs.assemble.job:AssembleJob",
            shown="commented",
        ),
        Job("compare", "jobs.cli.map:compare", "jobs.compare.run:run_compare"),
        Job("windows", "jobs.cli.map:windows", "jobs.windows.run:run_windows"),
        Job("label", "jobs.cli.label:label", "jobs.label.run:run_label"),
        Job("review", "jobs.cli.label:review", "jobs.review.run:run_review"),
        Job("import-weights", "jobs.cli.learn:import_weights", "jobs.import_weights:run_import"),
        Job("submit", "jobs.cli.cluster:submit"),
        Job("doctor", "jobs.cli.cluster:doctor", "jobs.cluster.doctor:run_doctor"),
        Job("config", "jobs.cli.command:config"),
    )
}


def names_with_config() -> list[str]:
    """Return names of the jobs that take a config."""
    return [name for name, job in JOBS.items() if job.config is not None]


def names_to_submit() -> list[str]:
    """Return names of the jobs that run on a cluster."""
    return [name for name, job in JOBS.items() if job.is_submitted]


def find(place: str) -> Any:
    """Import what stands at `module:name`, only now.

    >>> find("math:floor")(2.5)
    2
    """
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
