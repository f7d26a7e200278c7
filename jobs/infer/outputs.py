"""From finished blocks to what a job delivers: GeoPackage, segments.csv, pictures, report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from geo.files import remove_leftovers
from geo.imagery.mosaic import Mosaic
from geo.imagery.overview import Overview, reduce, save_backdrop
from geo.layers.assemble import SEGMENTS_CSV as SEGMENTS
from geo.layers.assemble import AssembleReport, assemble
from geo.layers.run_rows import RunRecord
from geo.options import AssembleOptions
from geo.page.map_page import write_map
from geo.page.preview import OVERVIEW_PX, draw_overview
from geo.page.report import MapReport, write_report
from jobs.infer.inputs import ModelFiles
from jobs.infer.job import OVERVIEW, PAGE, InferJob
from jobs.infer.work_folder import BACKDROP, Fingerprint
from jobs.infer.worker import Plan
from jobs.runtime.versions import versions

RECORDED_VERSIONS = ("wpcrack", "ray", "torch", "numpy", "rasterio", "shapely", "pyogrio")
"""Recorded in the layer run."""


@dataclass(frozen=True)
class Provenance:
    """What the layer run says of a job."""

    model: ModelFiles
    fingerprint: Fingerprint
    started: str
    """ISO 8601."""


def assemble_map(job: InferJob, plan: Plan, origin: Provenance) -> AssembleReport:
    """Joins the parts of all blocks into the GeoPackage; with roads also segments.csv.

    Raises:
        GeoError: A part cannot be read, or the output cannot be written.
    """
    return assemble(
        [plan.part(block) for block in plan.blocks],
        job.out,
        plan.mosaic.grid,
        AssembleOptions(
            **job.options,
            roads=job.roads.options,
            survey_date=plan.survey_date,
            model=origin.model.label,
            run_id=origin.fingerprint.run_id,
        ),
        problems=plan.mosaic.problems,
        run=_record(job, origin),
    )


def draw_map(job: InferJob, mosaic: Mosaic) -> None:
    """Draws picture, page and report of a finished GeoPackage; keeps the imagery behind them.

    Raises:
        GeoError: A file cannot be written.
    """
    backdrop = reduce(mosaic, OVERVIEW_PX)
    save_backdrop(job.work_folder / BACKDROP, backdrop)
    MapFiles.of_job(job.out).draw(backdrop)


def now() -> str:
    """The time, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _record(job: InferJob, origin: Provenance) -> RunRecord:
    inputs = origin.fingerprint.inputs
    summary = {"tiles": str(job.tiles), "files": len(inputs)}
    summary["bytes"] = sum(values[0] for values in inputs.values())
    return RunRecord(
        model_hash=origin.model.sha256,
        config=job.model_dump_json(),
        inputs=json.dumps(summary),
        versions=json.dumps(versions(RECORDED_VERSIONS)),
        started=origin.started,
        finished=now(),
    )


# ==== jobs.infer.outputs: The files of a map: the GeoPackage, and what lies beside it.


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
