"""What a user can set for `wpcrack tune`: a training, and what of it is searched."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from jobs.train_job import TrainJob
from wpcrack.config import Block, Count


class AshaConfig(Block):
    """Asynchronous successive halving (Li et al. 2020): weak trials end early."""

    enabled: bool = True
    """false: every trial runs to its end."""
    grace: Count = 3
    """Epochs after a trial's warm-up stage before it may be stopped."""
    factor: Annotated[float, Field(gt=1)] = 2.0
    """At grace, grace * factor, grace * factor^2, ... such epochs the best 1 / factor go on."""


class TuneConfig(Block):
    """The sweep."""

    space: dict[str, Any] = Field(default_factory=dict)
    """Key of the training -> `choice: [values]`, `uniform: [low, high]`, `loguniform: [low, high]`
    or `randint: [low, high]`, both ends included; `step: s` beside uniform and randint. null takes
    a key out."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """tpe: Optuna's tree of Parzen estimators (Bergstra et al. 2011); grid: every combination."""
    trials: Count | None = None
    """Trials, the first of which has the defaults; null: 20, or the whole grid. May be raised
    later: the sweep goes on."""
    startup: Count = 8
    """Trials drawn at random before tpe learns from them."""
    asha: AshaConfig = AshaConfig()
    """When weak trials are stopped."""
    concurrent: Count | None = None
    """Trials at once; null: as many as the cluster has room for. 1 with scaling.num_workers=0."""
    retry_failed: bool = False
    """Trials that failed in an earlier start are run again."""


class TuneJob(TrainJob):
    """Search for settings of a training; `run_dir` is the folder of the sweep."""

    tune: TuneConfig = TuneConfig()
    """The sweep."""
