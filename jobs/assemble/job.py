"""What a user can set for `wpcrack assemble`."""

from __future__ import annotations

from pathlib import Path

from pydantic import model_validator

from geo.options import MapRules, RoadOptions
from jobs.infer.job import Probability, crack_level, require_geopackage
from wpcrack.config_block import Count
from wpcrack.inference.predict import DEFAULT_THRESHOLD


class AssembleJob(MapRules):
    """A new map from the work folder of a run; a key that is left out keeps the run's value."""

    out: Path
    """The GeoPackage to write; what lies beside it is named after it."""
    threshold: Probability = DEFAULT_THRESHOLD
    """A pixel is crack from this probability on. Another one than the run's takes the stored
    probability (`wpcrack infer ... probability=keep`)."""
    roads: RoadOptions = RoadOptions()
    """Road lines, by which cracks are counted and typed. What was inspected stays as it was:
    buffer_m has no effect here."""
    workers: Count | None = None
    """Processes that look for cracks in stored probability; null: one, or one per CPU if there are
    many blocks."""

    @model_validator(mode="after")
    def _is_consistent(self) -> AssembleJob:
        require_geopackage(self.out)
        return self

    @property
    def level(self) -> int:
        """Smallest 8-bit probability that is crack."""
        return crack_level(self.threshold)
