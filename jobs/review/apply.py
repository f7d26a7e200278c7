"""`wpcrack review --apply`: totals, ranks, report and page of a map that people have edited.

    wpcrack review --apply maps/cracks.gpkg

No imagery is needed: only the layers are read, and the work folder's picture where it is there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geo.imagery.overview import read_backdrop
from geo.outputs import require_replaceable
from geo.page.preview import draw_overview
from geo.review.edits import Applied, apply_edits
from jobs.infer.outputs import MapFiles
from jobs.infer.work_folder import BACKDROP
from jobs.review.run import draw_again
from jobs.review.source import MapRun
from jobs.runtime.terminal import counted, say
from wpcrack.errors import first_few


@dataclass(frozen=True)
class ApplyReport:
    """What was done; `applied` is None where nothing was edited."""

    package: Path
    applied: Applied | None

    def values(self) -> dict[str, Any]:
        """Return the figures of `--json`."""
        found = {} if self.applied is None else asdict(self.applied)
        kept = found.pop("kept", None)
        return {"package": str(self.package), "kept": str(kept) if kept else None, **found}

    def summary(self) -> str:
        """Return a few lines for the terminal."""
        found = self.applied
        if found is None:
            return f"{self.package} is as it was written: nothing to apply"
        lines = [
            f"{counted(found.cracks, 'crack')}, {found.length_m:.1f} m, in the new map; "
            f"{found.wrong} were wrong, {found.drawn} drawn, {found.moved} moved by people"
        ]
        if found.kept:
            lines.append(f"the edited map ({first_few(found.changes)}) is kept as {found.kept}")
        return "\n".join(lines)


def run_apply(package: Path) -> ApplyReport:
    """Make an edited map whole again.

    Raises:
        GeoError: the file is no map, is open elsewhere, or something cannot be written.
    """
    run, files = MapRun.read(package), MapFiles.of(package)
    pages = [files.package, files.page, files.report, files.figures, files.segments, files.overview]
    require_replaceable(pages)
    applied = apply_edits(package, files.segments)
    if applied is not None:
        work = run.work_folder(package)
        backdrop = read_backdrop(work / BACKDROP)
        if backdrop is None:
            say(f"the imagery behind the map is not in {work.name}: {files.overview.name} stays")
        else:
            draw_overview(backdrop, package, files.overview)
        draw_again(files, work, backdrop)
    return ApplyReport(package, applied)
