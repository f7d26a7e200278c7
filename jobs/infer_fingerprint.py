"""What the result of an inference job depends on, and what has changed since the last time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from geo.grid import Window
from geo.mosaic import Mosaic
from jobs.infer_job import InferJob
from jobs.map_rules import MapRules

FORMAT = 2
"""Version of parts and fingerprint; parts of another version are never mixed in."""

ASSEMBLY_KEYS = frozenset({"roads", *MapRules.model_fields}) - {"formats"}
"""Settings that are applied to finished parts: a change leaves all of them standing. Formats
change no row, so they are no part of a fingerprint at all."""

NAMED_INPUTS = 2
"""Changed files that a message spells out."""


@dataclass(frozen=True)
class Fingerprint:
    """What a result depends on; equal fingerprints mean equal results.

    Attributes:
        settings: dotted key -> value of each setting that changes the result.
        inputs: path -> [bytes, mtime in ns, row, col, height, width] of each tile; a file that
            cannot be used has no place.
    """

    settings: dict[str, Any]
    inputs: dict[str, list[int]]

    @classmethod
    def of(cls, job: InferJob, mosaic: Mosaic, model_hash: str) -> Fingerprint:
        """The fingerprint of a job on a mosaic with a model."""
        values = job.model_dump(mode="json")
        chosen = {
            key: values[key] for key in ("threshold", "block_strides", "survey_date", "engine")
        }
        chosen |= {key: values[key] for key in sorted(ASSEMBLY_KEYS)}
        chosen |= {f"lattice.{key}": value for key, value in values["lattice"].items()}
        grid = mosaic.grid
        chosen["model"] = model_hash
        chosen["grid"] = [*grid.transform[:6], *grid.shape, grid.crs.to_wkt()]
        chosen["stretch"] = astuple(mosaic.stretch) if mosaic.stretch else None
        chosen["area"] = mosaic.area.digest if mosaic.area else None
        chosen["format"] = FORMAT
        inputs = {problem.path: _stamp(problem.path) for problem in mosaic.problems}
        for tile, place in zip(mosaic.tiles, mosaic.windows, strict=True):
            inputs[tile.path] = [*tile.stamp, *astuple(place)]
        return cls(chosen, inputs)

    @property
    def run_id(self) -> str:
        """First 12 hex digits of the hash of all of it."""
        return hashlib.sha256(self._text().encode()).hexdigest()[:12]

    def changed_settings(self, other: Fingerprint) -> list[str]:
        """Names of the settings that differ."""
        names = sorted(self.settings.keys() | other.settings.keys())
        return [name for name in names if self.settings.get(name) != other.settings.get(name)]

    def changed_inputs(self, other: Fingerprint) -> list[str]:
        """Paths that are new, gone, or of another size, time or place."""
        paths = sorted(self.inputs.keys() | other.inputs.keys())
        return [path for path in paths if self.inputs.get(path) != other.inputs.get(path)]

    def place(self, path: str) -> Window | None:
        """Where a tile lies on the mosaic's grid; None for one that is not part of it."""
        place = self.inputs.get(path, [])[2:]
        return Window(*place) if place else None

    def save(self, path: Path) -> None:
        """Writes the fingerprint as JSON; the file appears complete or not at all."""
        temporary = path.with_suffix(".tmp")
        temporary.write_text(self._text(), encoding="utf-8")
        os.replace(temporary, path)

    @classmethod
    def read(cls, path: Path) -> Fingerprint | None:
        """A saved fingerprint; None if there is none that can be read."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _text(self) -> str:
        content = {"settings": self.settings, "inputs": self.inputs}
        return json.dumps(content, sort_keys=True, indent=1)

    def difference(self, other: Fingerprint, without: Collection[str] = ()) -> str:
        """What changed from this one to another, for a message; "" if nothing did.

        Args:
            other: a later one.
            without: settings whose change does not count.
        """
        changes = []
        for name in self.changed_settings(other):
            if name in without:
                continue
            before, now = self.settings.get(name), other.settings.get(name)
            brief = name in ("model", "grid", "area", "format")
            changes.append(f"another {name}" if brief else f"{name} was {before}, is {now}")
        if paths := self.changed_inputs(other):
            more = f" and {len(paths) - NAMED_INPUTS} more" if len(paths) > NAMED_INPUTS else ""
            changes.append(f"other inputs: {', '.join(paths[:NAMED_INPUTS])}{more}")
        return "; ".join(changes)


def _stamp(path: str) -> list[int]:
    """Size and time of a file; zeros for one that has vanished."""
    try:
        stat = os.stat(path)
    except OSError:
        return [0, 0]
    return [stat.st_size, stat.st_mtime_ns]
