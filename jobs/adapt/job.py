"""Settings of `wpcrack adapt`."""

from __future__ import annotations

from jobs.settings.map import Imagery
from wpcrack.training.adapt import AdaptConfig


class AdaptJob(Imagery, AdaptConfig):
    """Tiles whose pixels a model is adapted to, and how."""
