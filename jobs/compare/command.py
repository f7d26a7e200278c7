"""Subcommand `compare`: what changed between two maps of the same roads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.command import command


@command(
    example="wpcrack compare maps/2024.gpkg maps/2026.gpkg --out maps/changes.gpkg", uses_ray=False
)
def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Map of the earlier survey.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Map of the later survey.")],
    out: Annotated[Path, typer.Option(help="GeoPackage to write.", metavar="FILE")],
    limit: Annotated[
        float, typer.Option(help="Largest shift between the surveys in meters; more is refused.")
    ] = 0.5,
    json: Annotated[
        Path | None, typer.Option(help="Write the figures to FILE; - is stdout.", metavar="FILE")
    ] = None,
) -> int:
    """Compare two surveys of the same roads.

    Says which cracks are new, longer, wider, shorter or gone, where both surveys looked. The old
    survey is first moved onto the new one, by the cracks that both have.
    """
    from geo.compare.options import CompareOptions
    from jobs.cli.command import report_figures
    from jobs.compare.run import run_compare

    options = CompareOptions()
    registration = replace(options.registration, limit_m=limit, search_m=limit + 0.3)
    report = run_compare(old, new, out, replace(options, registration=registration))
    report_figures(report.summary(), report.values(), json)
    return 0
