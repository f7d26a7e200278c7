"""The layer run: what made a file, and what it does not claim."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from geo.features import AssembleOptions
from geo.schema import RUN
from geo.severity import SeverityOptions


def not_claimed(severity: SeverityOptions) -> str:
    """What must not be read into a map that was made with these limits."""
    return (
        "No pavement condition index: one of the 19 distresses of ASTM D6433 is mapped. "
        "Sealed cracks, joints and shadows may be confused with cracks. "
        f"Widths below {severity.reliable_px:g} pixels, and severities from pixels above "
        f"{severity.max_gsd_mm:g} mm, are not measured. "
        "Areas without imagery were not looked at (layer inspected)."
    )


@dataclass(frozen=True)
class RunRecord:
    """Provenance of a run; texts, JSON where the schema says so."""

    model_hash: str = ""
    config: str = ""
    inputs: str = ""
    versions: str = ""
    started: str = ""
    finished: str = ""


def run_rows(run: RunRecord, options: AssembleOptions) -> pa.RecordBatch:
    """The one row of the layer run."""
    row = {
        "run_id": options.run_id,
        "model": options.model,
        "model_hash": run.model_hash,
        "config": run.config,
        "inputs": run.inputs,
        "versions": run.versions,
        "started": run.started,
        "finished": run.finished,
        "rules": options.rules.text(),
        "not_claimed": not_claimed(options.severity),
    }
    return pa.RecordBatch.from_pylist([row], schema=RUN.arrow())
