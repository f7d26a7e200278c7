"""The rules by which a map was made: kept in the file, read back by what draws and reports it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyogrio

from geo.crack_type import TypeOptions
from geo.schema import RUN
from geo.segment_rows import SegmentOptions
from geo.severity import SeverityOptions


@dataclass(frozen=True)
class Rules:
    """Limits of the severity classes, rules of the types, limits of the priorities."""

    severity: SeverityOptions = field(default_factory=SeverityOptions)
    types: TypeOptions = field(default_factory=TypeOptions)
    segments: SegmentOptions = field(default_factory=SegmentOptions)

    def text(self) -> str:
        """As JSON, for the layer run.

        >>> Rules.of_text(Rules().text()) == Rules()
        True
        """
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str) -> Rules:
        """The inverse of `text`."""
        values = json.loads(text)
        limits: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values["severity"].items()
        }
        return cls(
            SeverityOptions(**limits),
            TypeOptions(**values["types"]),
            SegmentOptions(**values["segments"]),
        )


@dataclass(frozen=True)
class MapTerms:
    """What the layer run of a finished GeoPackage says to readers of the map."""

    rules: Rules
    not_claimed: str

    @classmethod
    def read(cls, package: Path) -> MapTerms:
        """The terms of a finished GeoPackage."""
        row = pyogrio.read_dataframe(package, layer=RUN.name).iloc[0]
        return cls(Rules.of_text(row["rules"]), str(row["not_claimed"]))
