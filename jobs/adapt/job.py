"""Settings of `wpcrack adapt`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from jobs.settings.map import Imagery
from jobs.train.job import Workers
from wpcrack.training.taught_windows import AdaptConfig


class AdaptWorkers(Workers):
    """Ray Train workers."""

    num_workers: Annotated[int, Field(ge=0)] = 0
    """Data-parallel workers, each with `threads` CPUs, which share the windows of every update; 0:
    the process of the command, without Ray."""


class AdaptOptions(AdaptConfig):
    """How a model is adapted, and by whom."""

    scaling: AdaptWorkers = AdaptWorkers()
    """Workers."""

    @model_validator(mode="after")
    def _batch_is_shared(self) -> Self:
        workers = max(self.scaling.num_workers, 1)
        if self.batch.count % workers:
            raise ValueError(
                f"batch.count is {self.batch.count}, which {workers} workers cannot share equally; "
                f"set a multiple of {workers}"
            )
        return self


class AdaptJob(Imagery, AdaptOptions):
    """Tiles whose pixels a model is adapted to, and how."""
