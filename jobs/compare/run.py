"""Two maps of the same roads -> a map of what changed.

    wpcrack compare maps/2024.gpkg maps/2026.gpkg --out maps/changes.gpkg

Everything is checked before any work; the old map is brought into the new one's coordinate system.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from geo.compare.changes import Aligned, Comparison, align, changes
from geo.compare.layers import NOT_CLAIMED, write_changes
from geo.compare.maps import SurveyMap, names_of, read_map
from geo.compare.options import CompareOptions
from geo.compare.page import write_change_page
from geo.compare.report import figures, render, summary
from geo.compare.segments import gather
from geo.errors import InputError, OutputError
from geo.files import NOT_UTF8, is_utf8, readable, write_text
from geo.outputs import require_replaceable, seal_text
from jobs.runtime.allocator import give_back_freed_memory
from jobs.runtime.folder import hold_output, require_writable
from jobs.runtime.terminal import say
from jobs.runtime.versions import versions

RECORDED_VERSIONS = ("wpcrack", "numpy", "scipy", "shapely", "pyogrio")
MM = 1000.0


@dataclass(frozen=True)
class ChangeFiles:
    """Where the files of a comparison lie; all begin with the GeoPackage's name."""

    package: Path
    page: Path
    report: Path
    figures: Path

    @classmethod
    def of(cls, out: Path) -> ChangeFiles:
        """Name the files.

        >>> ChangeFiles.of(Path("maps/changes.gpkg")).page.name
        'changes.map.html'
        """
        endings = ("map.html", "report.md", "report.json")
        return cls(out, *(out.parent / f"{out.stem}.{ending}" for ending in endings))


@dataclass(frozen=True)
class CompareReport:
    """What was delivered."""

    files: ChangeFiles
    figures: dict[str, Any]
    seconds: float

    def values(self) -> dict[str, Any]:
        """Return the figures of `--json`."""
        files = {name: str(path) for name, path in asdict(self.files).items()}
        return files | self.figures | {"seconds": round(self.seconds, 3)}

    def summary(self) -> str:
        """Return a few lines for the terminal."""
        files = self.files
        places = (f"changes  {files.package}", f"page     {files.page}", f"report   {files.report}")
        return "\n".join((summary(self.figures), *places))


def run_compare(
    old: Path, new: Path, out: Path, options: CompareOptions | None = None
) -> CompareReport:
    """Compare two maps.

    Args:
        old: GeoPackage of `wpcrack infer`.
        new: the same of the later survey.
        out: the GeoPackage to write; page and reports lie beside it.
        options: limits.

    Raises:
        GeoError: A file is not a map of ours, the maps have no ground in common or lie too far
            apart, or the output cannot be written, or is being written by another process.
    """
    start = time.monotonic()
    refuse_paths(old, new, out)
    files = ChangeFiles.of(out)
    with hold_output(out, f"--out {out}"):
        values = _compare_files(old, new, out, options or CompareOptions())
        give_back_freed_memory()  # of both surveys, before the page is made of the file
        write_change_page(out, files.page, summary(values, "m²"))
        write_text(files.report, seal_text(render(values)))
        write_text(files.figures, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    return CompareReport(files, values, time.monotonic() - start)


def _compare_files(old: Path, new: Path, out: Path, limits: CompareOptions) -> dict[str, Any]:
    """Compare two maps and write the GeoPackage; return the figures."""
    started = _now()
    later = read_map(new)
    give_back_freed_memory()
    earlier = read_map(old, later.crs)
    give_back_freed_memory()
    first, second = names_of(old, new)
    if earlier.moved_from:
        say(f"{first} is brought from {earlier.moved_from} into the system of {second}")
    if later.survey_date and earlier.survey_date > later.survey_date:
        say(
            f"warning: {first} was surveyed on {earlier.survey_date}, after {second} "
            f"({later.survey_date}): if that is a mistake, give them the other way round"
        )
    if earlier.run_id and earlier.run_id == later.run_id:
        raise InputError(
            f"{first} and {second} come from one run ({later.run_id}), so nothing can have "
            "changed; give maps of two surveys"
        )
    registration = align(earlier.survey, later.survey, limits)
    give_back_freed_memory()
    aligned = Aligned.of(earlier.survey, later.survey, registration, limits)
    earlier, later = earlier.without_lines(), later.without_lines()
    give_back_freed_memory()
    result = changes(earlier.survey, later.survey, aligned, limits)
    give_back_freed_memory()
    maps = (earlier, later)
    sums = gather(result, later.segments) if later.segments is not None else None
    require_replaceable(astuple(ChangeFiles.of(out)))  # edited meanwhile?
    write_changes(out, maps, result, sums, _run_row(maps, result, limits, started))
    return figures(maps, result, sums)


def refuse_paths(old: Path, new: Path, out: Path) -> None:
    """Refuse files that cannot be compared or written.

    Raises:
        InputError: Both maps are one file, or one is missing.
        OutputError: The output is one of the maps, no GeoPackage, or cannot lie where it shall.
    """
    for path in (old, new):
        if not path.is_file():
            raise InputError(f"{path} is not a file; give a GeoPackage of `wpcrack infer`")
    if old.samefile(new):
        raise InputError(f"{old} and {new} are one file; give maps of two surveys")
    if out.suffix.lower() != ".gpkg":
        raise OutputError(f"--out is {out}; the file is a GeoPackage, name it *.gpkg")
    if out.exists() and any(out.samefile(path) for path in (old, new)):
        raise OutputError(f"--out {out} is one of the two maps; give another name")
    require_writable(out.parent, f"--out {out}")
    if not is_utf8(out):
        raise OutputError(f"--out {readable(out)} {NOT_UTF8}")
    require_replaceable(astuple(ChangeFiles.of(out)), [old, new])


def _run_row(
    maps: tuple[SurveyMap, SurveyMap], result: Comparison, limits: CompareOptions, started: str
) -> dict[str, Any]:
    old, new = maps
    shifts = np.hypot(*result.registration.shift_m[result.registration.source == "own"].T)
    known = len(shifts) > 0
    first, second = names_of(old.path, new.path)
    return {
        "old": first,
        "new": second,
        "old_run_id": old.run_id or None,
        "new_run_id": new.run_id or None,
        "old_date": date.fromisoformat(old.survey_date) if old.survey_date else None,
        "new_date": date.fromisoformat(new.survey_date) if new.survey_date else None,
        "old_gsd_mm": old.survey.gsd_m * MM,
        "new_gsd_mm": new.survey.gsd_m * MM,
        "old_crs": old.moved_from or None,
        "shift_m": float(np.median(shifts)) if known else None,
        "residual_m": result.registration.residual_m if known else None,
        "tolerance_m": result.tolerance_m,
        "rules": limits.text(),
        "versions": json.dumps(versions(RECORDED_VERSIONS)),
        "started": started,
        "finished": _now(),
        "not_claimed": NOT_CLAIMED,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
