"""`wpcrack review --apply`: totals, ranks, report and page of a map that people have edited.

    wpcrack review --apply maps/cracks.gpkg

No imagery is needed: only the layers are read, and the work folder's picture where it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geo.errors import count_of
from geo.imagery.overview import read_backdrop
from geo.layers.web_tiles import write_web_tiles
from geo.options import PARQUET_ROWS, Format
from geo.outputs import require_replaceable
from geo.page.preview import draw_overview
from geo.review.edits import Applied, apply_edits
from jobs.infer.outputs import MapFiles
from jobs.infer.work_folder import BACKDROP
from jobs.review.run import draw_again
from jobs.review.source import MapRun
from jobs.runtime.folder import THEN_AGAIN, hold_output, require_writable
from jobs.runtime.terminal import say
from wpcrack.errors import first_few


@dataclass(frozen=True)
class ApplyReport:
    """What was done; `applied` is None where nothing was edited, `formats` were made again."""

    package: Path
    applied: Applied | None
    formats: tuple[Format, ...] = ()

    def values(self) -> dict[str, Any]:
        """Return the figures of `--json`."""
        found = {} if self.applied is None else asdict(self.applied)
        kept = found.pop("kept", None)
        kept = str(kept) if kept else None
        return {"package": str(self.package), "kept": kept, "formats": self.formats, **found}

    def summary(self) -> str:
        """Return a few lines for the terminal."""
        found = self.applied
        if found is None:
            return f"{self.package} is as it was written: nothing to apply"
        lines = [
            f"{count_of(found.cracks, 'crack')}, {found.length_m:.1f} m, in the new map; "
            f"{found.wrong} wrong, {found.drawn} drawn, {found.moved} moved by people"
        ]
        if found.kept:
            lines.append(f"the edited map ({first_few(found.changes)}) is kept as {found.kept}")
        if self.formats:
            lines.append(f"also made again, beside it: {', '.join(self.formats)}")
        return "\n".join(lines)


def run_apply(package: Path) -> ApplyReport:
    """Make an edited map whole again.

    Raises:
        GeoError: the file is no map, is open elsewhere, or something cannot be written.
    """
    run, files = MapRun.read(package), MapFiles.of(package)
    pages = [files.package, files.page, files.report, files.figures, files.segments, files.overview]
    formats = files.formats()
    require_writable(package.parent, str(package))
    require_replaceable([*pages, *(path for kind in formats for path in files.copies(kind))])
    with hold_output(package, str(package), THEN_AGAIN):
        return _apply(package, run, formats)


def _apply(package: Path, run: MapRun, formats: tuple[Format, ...]) -> ApplyReport:
    """Make map, pages and files of other formats anew."""
    files = MapFiles.of(package)
    most_rows = run.config.get("parquet_rows", PARQUET_ROWS) if "parquet" in formats else 0
    applied = apply_edits(package, files.segments, parquet_rows=most_rows)
    if applied is None:
        if not _is_newer(package, (files.page, files.report, files.figures)):
            return ApplyReport(package, None)
        say("page and report are older than the map: they are made again")
    work = run.work_folder(package)
    backdrop = read_backdrop(work / BACKDROP)
    if backdrop is not None:
        draw_overview(backdrop, package, files.overview)
    else:
        formats = tuple(kind for kind in formats if kind != "pdf")
        drawn = [path.name for path in (files.overview, files.streets) if path.exists()]
        if drawn:
            say(
                f"the imagery behind the map is not in {work.name}: {' and '.join(drawn)} still "
                "show the map before"
            )
    if "pmtiles" in formats:
        write_web_tiles(package)
    if backdrop is not None and "pdf" in formats:
        files.draw_streets(backdrop)
    draw_again(files, work, backdrop)
    return ApplyReport(package, applied, formats)


def _is_newer(package: Path, pages: Sequence[Path]) -> bool:
    """Return whether a map has pages of the one before, as after a disk that was full."""
    written = package.stat().st_mtime_ns
    return any(path.exists() and path.stat().st_mtime_ns < written for path in pages)
