"""The files of a map: the GeoPackage, and what lies beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geo.leftovers import remove_leftovers
from geo.map_page import write_map
from geo.package import SEGMENTS_CSV as SEGMENTS
from geo.preview import draw_overview
from geo.reduce import Overview
from geo.report import MapReport, write_report
from jobs.infer_job import OVERVIEW, PAGE


@dataclass(frozen=True)
class MapFiles:
    """Where the files of a map lie; segments only with roads."""

    package: Path
    overview: Path
    page: Path
    segments: Path
    report: Path
    figures: Path

    @classmethod
    def of_job(cls, out: Path) -> MapFiles:
        """Of an inference job: the names that a street department is told of."""
        return cls(
            package=out,
            overview=out.with_name(OVERVIEW),
            page=out.with_name(PAGE),
            segments=out.with_name(SEGMENTS),
            report=_beside(out, "report.md"),
            figures=_beside(out, "report.json"),
        )

    @classmethod
    def of_further(cls, out: Path) -> MapFiles:
        """Of a map made again: each name begins with the GeoPackage's, so that maps lie together.

        >>> MapFiles.of_further(Path("maps/strict.gpkg")).page.name
        'strict.map.html'
        """
        return cls(
            package=out,
            overview=_beside(out, OVERVIEW),
            page=_beside(out, PAGE),
            segments=_beside(out, SEGMENTS),
            report=_beside(out, "report.md"),
            figures=_beside(out, "report.json"),
        )

    def draw(self, backdrop: Overview) -> MapReport:
        """Write what is made from a finished GeoPackage: picture, page, report.

        Args:
            backdrop: the imagery reduced.

        Raises:
            GeoError: A file cannot be written.
        """
        for path in (self.overview, self.page, self.segments, self.report, self.figures):
            remove_leftovers(path)
        draw_overview(backdrop, self.package, self.overview)
        write_map(self.package, self.page, backdrop if backdrop.valid.any() else None)
        return write_report(self.package, self.report, self.figures)


def _beside(out: Path, ending: str) -> Path:
    """`cracks.gpkg` -> `cracks.<ending>` in the same folder."""
    return out.with_name(f"{out.stem}.{ending}")
