"""What a cell of the ablation is: a row's configuration on one collection with one seed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from wpcrack.config import MethodConfig

CELL_MINUTES = 4
"""A cell is planned to stay below this on two cores."""


@dataclass(frozen=True)
class Budget:
    """Steps of the three stages."""

    warmup: int
    adversarial: int
    detector: int

    def settings(self, *, trained: bool, game: bool) -> list[str]:
        """Return settings; the detector gets the steps of a game that is left out."""
        adversarial = self.adversarial if trained and game else 0
        detector = self.adversarial + self.detector - adversarial if trained else 0
        stages = {"warmup": self.warmup, "adversarial": adversarial, "detector": detector}
        return [f"train.steps.{stage}={count}" for stage, count in stages.items()]


@dataclass(frozen=True)
class Collection:
    """Photographs with masks: DATA/name/images, DATA/name/masks, and road/ without cracks."""

    name: str
    window: int
    """Side of training windows in pixels."""
    resize: int | None = None
    """Also score at this square size."""
    has_road: bool = False


@dataclass(frozen=True)
class Cell:
    """One figure of the table."""

    row: str
    collection: Collection
    trained: bool
    config: MethodConfig

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.collection.name}, {self.row}, seed {self.config.seed}"

    @property
    def key(self) -> str:
        """Same key, same figures: rows of equal configuration are one cell."""
        return digest(asdict(self.collection), self.trained, self.config.model_dump(mode="json"))


@dataclass(frozen=True)
class Workplace:
    """Where images lie and where work is kept."""

    data: Path
    work: Path
    threads: int


def digest(*values: object) -> str:
    """Twelve hexadecimal digits of JSON values."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
