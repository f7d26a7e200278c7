"""From finished blocks to what a job delivers: GeoPackage, segments.csv, pictures, report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from geo.backdrop import save_backdrop
from geo.mosaic import Mosaic
from geo.package import AssembleOptions, AssembleReport, RunRecord, assemble
from geo.preview import OVERVIEW_PX
from geo.reduce import reduced
from jobs.infer_fingerprint import Fingerprint
from jobs.infer_job import InferJob
from jobs.infer_model import ModelFiles
from jobs.infer_worker import Plan
from jobs.map_files import MapFiles
from jobs.versions import versions
from jobs.work_record import BACKDROP

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
    backdrop = reduced(mosaic, OVERVIEW_PX)
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
