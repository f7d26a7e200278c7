"""What a user can set for `wpcrack tune`: a training, and the keys and ranges to search."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from jobs.settings.load import explain_value
from jobs.train.job import TrainJob
from wpcrack.config_block import Block, Count
from wpcrack.errors import ConfigError

Params = dict[str, Any]
"""Dotted key -> value."""

KINDS = ("choice", "uniform", "loguniform", "randint")
FIXED = (
    *("run_dir", "resume", "scaling", "tune", "tracking", "data"),
    *("train.val_items", "train.label_min_share", "train.false_alarm_weight"),
)
"""Keys and sections that are the same for all trials: they do not decide what is learned, or they
decide on which windows and by which score trials are judged."""

LISTED = 64
"""A stepped range of at most this many values is checked value by value."""

MOST_VALUES = 2**32
"""A stepped range of more values, which seeds do not have, is meant to be continuous."""

INNER = 0.382
"""Place between the ends where a range is checked too: whole-number keys refuse what lies there."""


class AshaConfig(Block):
    """Asynchronous successive halving (Li et al. 2020): weak trials end early."""

    enabled: bool = True
    """false: every trial runs to its end."""
    grace: Count = 3
    """Epochs after a trial's warm-up stage before it may be stopped; where it starts from a model,
    epochs of its detector stage, since those before say nothing of the model that is kept."""
    factor: Annotated[float, Field(ge=1.1)] = 2.0
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

    @model_validator(mode="after")
    def _trials_are_alike(self) -> TuneJob:
        if self.scaling.is_elastic:
            raise ValueError(
                f"scaling.num_workers={self.scaling.least}..{self.scaling.num_workers} is for "
                "train: trials share a cluster by the number of their workers; set one number"
            )
        return self


def read_space(job: TuneJob) -> Space:
    """Read and check `tune.space`; each end of each range must be a valid setting.

    Values that are invalid only beside another key's are no error: such combinations are not drawn.

    Raises:
        ConfigError: An unknown key, a value of a wrong type or out of range, a range of a wrong
            form, or no key at all. The message names the key.
    """
    base = job.model_dump(mode="json", exclude={"tune"})
    entries = [(k, v) for k, v in flat(job.tune.space).items() if v is not None]
    if not entries:
        raise ConfigError(
            "tune.space is empty; give keys and ranges there, or start from `wpcrack config tune`"
        )
    space = Space(tuple(dimension(key, entry) for key, entry in entries), base)
    for found in space.dimensions:
        if any(f"{found.key}.".startswith(f"{key}.") for key in FIXED):
            raise ConfigError(
                f"tune.space.{found.key}: {found.key} is the same for all trials; search other keys"
            )
        for value in found.probes():
            check_value(space, found.key, value)
    return space


@dataclass(frozen=True)
class Dimension:
    """One key and its values.

    Attributes:
        key: dotted name.
        kind: how values are drawn.
        values: of a choice; else empty.
        low: end of a range.
        high: other end, included.
        step: distance of neighboring values from `low` on; None: continuous.
    """

    key: str
    kind: Literal["choice", "uniform", "loguniform", "randint"]
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None

    @property
    def count(self) -> int | None:
        """Number of values; None of a continuous range."""
        if self.kind == "choice":
            return len(self.values)
        if self.step is None:
            return None
        steps = (self.high - self.low) / self.step
        return int(steps * (1 + 1e-12) + 1e-9) + 1  # what is rounded down by a hair is the end

    def value(self, k: int) -> Any:
        """Return value number k of a choice or a stepped range; no other is made."""
        if self.kind == "choice":
            return self.values[k]
        assert self.step is not None
        return self._plain(self.low + k * self.step)

    def list_values(self) -> tuple[Any, ...]:
        """Return all values of a choice or a short stepped range, in order."""
        return tuple(self.value(k) for k in range(self.count or 0))

    def number(self, value: Any) -> int:
        """Return the number of a value; in a stepped range of the one that lies nearest."""
        if self.kind == "choice":
            return self.values.index(value)
        assert self.step is not None
        assert self.count is not None
        k: int = round((value - self.low) / self.step)
        return min(max(k, 0), self.count - 1)

    def draw(self, rng: np.random.Generator) -> Any:
        """Draw a value, all equally likely; of loguniform their logarithms."""
        if self.count is not None:
            return self.value(int(rng.integers(self.count)))
        if self.kind == "loguniform":
            return float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))
        return float(rng.uniform(self.low, self.high))

    def holds(self, value: Any) -> bool:
        """Return whether a value can be drawn."""
        if self.kind == "choice":
            return value in self.values
        if not is_number(value):
            return False
        if self.count is None:
            return bool(self.low <= value <= self.high)
        return bool(value == self.value(self.number(value)))

    def probes(self) -> tuple[Any, ...]:
        """Return values that stand for all: a short list, else both ends and one between."""
        if self.count is None:
            return self.low, self.low + INNER * (self.high - self.low), self.high
        if self.count <= LISTED:
            return self.list_values()
        return self.value(0), self.value(self.count // 2), self.value(self.count - 1)

    def text(self) -> str:
        """Return the dimension as it stands in the config."""
        if self.kind == "choice":
            return f"choice of {', '.join(map(str, self.values))}"
        step = f" in steps of {self.step:g}" if self.step else ""
        return f"{self.kind} {self.low:g} to {self.high:g}{step}"

    def _plain(self, value: float) -> float | int:
        return round(value) if self.kind == "randint" else round(float(value), 12)


@dataclass(frozen=True)
class Space:
    """The dimensions of a sweep, and the training that everything else comes from."""

    dimensions: tuple[Dimension, ...]
    base: dict[str, Any]
    """A TrainJob, as JSON."""

    @property
    def keys(self) -> list[str]:
        """Searched keys."""
        return [d.key for d in self.dimensions]

    def defaults(self) -> Params:
        """Return values of the searched keys in the training as configured."""
        return {key: value_at(self.base, key) for key in self.keys}

    def job(self, params: Mapping[str, Any], **fixed: Any) -> TrainJob:
        """Return the training with these values.

        Raises:
            ValidationError: They do not go together.
        """
        values = self.base
        for key, value in params.items():
            values = with_value(values, key.split("."), value)
        return TrainJob.model_validate({**values, **fixed})

    def allows(self, params: Mapping[str, Any]) -> bool:
        """Return whether these values go together."""
        try:
            self.job(params)
        except ValidationError:
            return False
        return True

    def grid(self) -> Iterator[Params]:
        """Yield every combination whose values go together, in order; of no continuous range."""
        columns = [d.list_values() for d in self.dimensions]
        for values in itertools.product(*columns):
            params = dict(zip(self.keys, values, strict=True))
            if self.allows(params):
                yield params


def flat(entries: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> entry; sections may be nested, as `tune.space.a.b=...` makes them."""
    found: dict[str, Any] = {}
    for name, entry in entries.items():
        key = f"{prefix}{name}"
        is_section = isinstance(entry, Mapping) and not set(entry) & {*KINDS, "step"}
        if is_section and entry:
            found |= flat(entry, f"{key}.")
        else:
            found[key] = entry
    return found


def dimension(key: str, entry: Any) -> Dimension:
    """Read one entry of the space.

    Raises:
        ConfigError: Its form is not one of KINDS.
    """
    kinds = [kind for kind in KINDS if isinstance(entry, Mapping) and kind in entry]
    if len(kinds) != 1 or set(entry) - {kinds[0], "step"}:
        raise ConfigError(
            f"tune.space.{key} is {entry!r}; write one of choice: [values], uniform: [low, high], "
            "loguniform: [low, high], randint: [low, high]"
        )
    kind, values, step = kinds[0], entry[kinds[0]], entry.get("step")
    if kind == "choice":
        if not isinstance(values, Sequence) or isinstance(values, str) or not values or step:
            raise ConfigError(f"tune.space.{key} is {entry!r}; write choice: [value, value, ...]")
        return Dimension(key, "choice", tuple(values))
    low, high = ends(key, entry, values)
    if kind == "loguniform" and (low <= 0 or step is not None):
        raise ConfigError(f"tune.space.{key} is {entry!r}; loguniform needs low > 0 and no step")
    if kind == "randint":
        step = 1 if step is None else step
        if any(float(x) != int(x) for x in (low, high, step) if is_number(x)):
            raise ConfigError(f"tune.space.{key} is {entry!r}; randint takes whole numbers")
    if step is not None and not (is_number(step) and 0 < step <= high - low):
        raise ConfigError(f"tune.space.{key}: step is {step!r}; give one between 0 and high - low")
    if step is not None and (high - low) / step >= MOST_VALUES:
        raise ConfigError(
            f"tune.space.{key}: step is {step!r}, which makes {(high - low) / step:.0e} values of "
            f"{low:g} to {high:g}; give a larger step"
        )
    return Dimension(key, kind, (), low, high, step)  # type: ignore[arg-type]  # is one of KINDS


def ends(key: str, entry: Any, values: Any) -> tuple[float, float]:
    """Read low and high of a range."""
    is_pair = isinstance(values, Sequence) and len(values) == 2 and all(map(is_number, values))
    if not is_pair or not values[0] < values[1]:
        raise ConfigError(f"tune.space.{key} is {entry!r}; give two numbers [low, high]")
    return values[0], values[1]


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number; true and false are none."""
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and abs(value) <= sys.float_info.max  # integers may be larger


def check_value(space: Space, key: str, value: Any) -> None:
    """Refuse a value that the key can never take; how it goes with other keys is left open.

    Raises:
        ConfigError: The key is unknown, or the value of a wrong type or out of range.
    """
    try:
        space.job({key: value})
    except ValidationError as error:
        sentence = explain_value(error, TrainJob, key)
        if sentence is not None:
            raise ConfigError(f"tune.space: {sentence}") from None


def value_at(values: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key."""
    found: Any = values
    for part in key.split("."):
        found = found[part]
    return found


def with_value(values: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return the same nested values with another one at `path`."""
    first, *rest = path
    inner = values.get(first)
    if rest:
        value = with_value(inner if isinstance(inner, Mapping) else {}, rest, value)
    return {**values, first: value}
