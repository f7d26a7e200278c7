"""From finished blocks to what a job delivers: GeoPackage, segments.csv, pictures, report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from geo.map_page import write_map
from geo.mosaic import Mosaic
from geo.package import AssembleOptions, AssembleReport, RunRecord, assemble
from geo.preview import draw_overview
from geo.report import write_report
from jobs.infer_fingerprint import Fingerprint
from jobs.infer_job import InferJob
from jobs.infer_model import ModelFiles
from jobs.infer_worker import Plan
from jobs.versions import versions

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
    """Writes overview.png, map.html, report.md and report.json of a finished GeoPackage.

    Raises:
        GeoError: A file cannot be written.
    """
    draw_overview(mosaic, job.out, job.overview)
    write_map(job.out, job.map_page, mosaic)
    write_report(job.out, beside(job, ".report.md"), beside(job, ".report.json"))


def beside(job: InferJob, ending: str) -> Path:
    """`cracks.gpkg` -> `cracks<ending>` in the same folder."""
    return job.out.with_name(job.out.stem + ending)


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
