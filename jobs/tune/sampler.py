"""Which settings a trial gets: drawn at random, from a grid, or by Optuna's TPE.

A suggestion follows from the seed, the trial's number and the trials before it, so a sweep that
was cut off goes on as it would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from jobs.tune.folder import MOST_TRIALS
from jobs.tune.job import Dimension, Params, Space, TuneJob
from wpcrack.errors import ConfigError

DEFAULT_TRIALS = 20
"""Where tune.trials is not set."""

ATTEMPTS = 200
"""Draws of one trial before the space counts as having no settings that go together."""


@dataclass(frozen=True)
class PastTrial:
    """What a sampler knows of an earlier trial.

    Attributes:
        params: its settings.
        status: how it stands; running also before its first epoch.
        values: objective after each epoch since its warm-up stage.
    """

    params: Params
    status: Literal["running", "finished", "stopped", "failed"]
    values: Sequence[float]
    score: float | None = None
    """Of the epoch that it keeps; None: the highest of its values."""


Sampler = Callable[[int, Sequence[PastTrial]], Params | None]
"""(number of the trial, earlier trials) -> its settings; None: there are no more."""


def make_sampler(job: TuneJob, space: Space) -> tuple[Sampler, int]:
    """Return the sampler of a sweep, and how many trials there are.

    Trial 0 always has the defaults.

    Raises:
        ConfigError: A grid over a continuous range, or with more combinations than trials; more
            trials than a sweep can have.
    """
    trials = job.tune.trials or DEFAULT_TRIALS
    if trials > MOST_TRIALS:
        raise ConfigError(f"tune.trials is {trials}; a sweep has at most {MOST_TRIALS} trials")
    if job.tune.sampler == "grid":
        combinations = grid_of(job, space)
        return Grid(space, combinations), len(combinations) + 1
    if job.tune.sampler == "random":
        return Random(space, job.seed), trials
    return Tpe(space, job.seed, job.tune.startup), trials


def grid_of(job: TuneJob, space: Space) -> list[Params]:
    """List every combination but the defaults."""
    for dimension in space.dimensions:
        if dimension.count is None:
            raise ConfigError(
                f"tune.sampler=grid cannot list {dimension.key} ({dimension.text()}); give it "
                "choice, randint or a step, or take sampler=tpe"
            )
    size = math.prod(d.count or 0 for d in space.dimensions)
    limit = job.tune.trials
    if limit is not None and size > limit:
        raise ConfigError(
            f"the grid has {size} combinations and tune.trials is {limit}; set tune.trials=null "
            "for all of them, shorten tune.space, or take sampler=random"
        )
    if size >= MOST_TRIALS:  # with the defaults
        raise ConfigError(
            f"the grid has {size} combinations, and a sweep at most {MOST_TRIALS} trials; shorten "
            "tune.space or give larger steps, or take sampler=random"
        )
    defaults = space.defaults()
    return [params for params in space.grid() if params != defaults]


@dataclass(frozen=True)
class Grid:
    """Every combination, in order."""

    space: Space
    combinations: list[Params]

    def __call__(self, number: int, earlier: Sequence[PastTrial]) -> Params | None:
        """Return the next combination."""
        if number == 0:
            return self.space.defaults()
        return self.combinations[number - 1] if number <= len(self.combinations) else None


@dataclass(frozen=True)
class Random:
    """Independent draws; combinations that do not go together are drawn again."""

    space: Space
    seed: int

    def __call__(self, number: int, earlier: Sequence[PastTrial]) -> Params | None:
        """Draw the settings of a trial.

        Raises:
            ConfigError: No draw gave settings that go together.
        """
        if number == 0:
            return self.space.defaults()
        rng = np.random.default_rng([self.seed, number])
        for _ in range(ATTEMPTS):
            params = {d.key: d.draw(rng) for d in self.space.dimensions}
            if self.space.allows(params):
                return params
        raise ConfigError(
            f"{ATTEMPTS} draws from tune.space gave no settings that go together; change its ranges"
        )


@dataclass(frozen=True)
class Tpe:
    """Tree of Parzen estimators, rebuilt from the earlier trials for each suggestion.

    Trials that still run count as poor ones, so that trials at the same time differ; trials that
    were stopped are ranked by what they had reached; failed ones rank last.
    """

    space: Space
    seed: int
    startup: int

    def __call__(self, number: int, earlier: Sequence[PastTrial]) -> Params | None:
        """Suggest the settings of a trial; the first `startup` trials are random draws."""
        random = Random(self.space, self.seed)
        if number <= self.startup:
            return random(number, earlier)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=0, multivariate=True, constant_liar=True
            ),
        )
        distributions = {d.key: distribution(d) for d in self.space.dimensions}
        study.add_trials(
            [t for t in (self._freeze(trial, distributions) for trial in earlier) if t]
        )
        for _ in range(ATTEMPTS):
            asked = study.ask(distributions)
            params = {d.key: from_optuna(d, asked.params[d.key]) for d in self.space.dimensions}
            if self.space.allows(params):
                return params
            study.tell(asked, state=TrialState.FAIL)
        return random(number, earlier)

    def _freeze(
        self, trial: PastTrial, distributions: dict[str, BaseDistribution]
    ) -> FrozenTrial | None:
        """Return a trial as Optuna keeps it; None if it lies outside the space.

        The defaults may, and trials of another space that resume=force goes on from.
        """
        dimensions = self.space.dimensions
        if not all(d.key in trial.params and d.holds(trial.params[d.key]) for d in dimensions):
            return None
        params = {d.key: to_optuna(d, trial.params[d.key]) for d in self.space.dimensions}
        values = [v if np.isfinite(v) else -np.inf for v in trial.values]
        finished = trial.status == "finished" and bool(values)
        running = trial.status == "running"
        state = TrialState.RUNNING if running else TrialState.PRUNED
        return create_trial(
            state=TrialState.COMPLETE if finished else state,
            value=(max(values) if trial.score is None else trial.score) if finished else None,
            params=params,
            distributions=distributions,
            intermediate_values={} if trial.status == "failed" else dict(enumerate(values)),
        )


def distribution(dimension: Dimension) -> BaseDistribution:
    """Return Optuna's distribution: what has steps goes by number, since choices may be lists."""
    if dimension.count is None:
        return FloatDistribution(
            float(dimension.low), float(dimension.high), log=dimension.kind == "loguniform"
        )
    if dimension.kind == "choice":
        return CategoricalDistribution(tuple(range(dimension.count)))
    return IntDistribution(0, dimension.count - 1)


def to_optuna(dimension: Dimension, value: Any) -> float | int:
    """Return a value as Optuna keeps it."""
    return float(value) if dimension.count is None else dimension.number(value)


def from_optuna(dimension: Dimension, value: float | int) -> Any:
    """Return a value of Optuna's as ours."""
    return value if dimension.count is None else dimension.value(int(value))
