"""Subcommands around maps: from tiles to one, another of the same run, two compared, windows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.command import (
    InPlaceOfTiles,
    Settings,
    command,
    read_job,
    report_figures,
    require_apart,
    require_one_source,
    run_job,
    to_file,
)


@command(example="wpcrack infer tiles=tiles/ model=runs/city out=maps/cracks.gpkg crs=EPSG:25832")
def infer(
    settings: Settings = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it will do and cost, and do nothing.")
    ] = False,
    status: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Say how far the job of this GeoPackage or folder is."),
    ] = None,
    json: Annotated[Path | None, to_file("plan, status or result")] = None,
) -> int:
    """Map the cracks on georeferenced tiles.

    Writes a GeoPackage, a page and pictures; the same command continues an interrupted job.
    """
    if status is not None:
        from jobs.infer.report import read_status

        state = read_status(status)
        report_figures(state.text(), state.values(), json)
        return 0
    job = read_job("infer", settings)
    from jobs.infer.outputs import MapFiles

    require_apart(json, MapFiles.of(job.out).figures, job.work_folder)
    if plan:
        from jobs.infer.run import plan_inference

        forecast = plan_inference(job)
        report_figures(forecast.text(), forecast.values(), json)
        return 0
    report = run_job("infer", job)
    report_figures(report.summary(), report.values(), json)
    return int(report.exit_code)


@command(
    example="wpcrack assemble maps/cracks.work out=maps/strict.gpkg threshold=0.7 min_length_m=0.3"
)
def assemble(
    work: Annotated[
        Path, typer.Argument(metavar="WORK", help="Work folder of `wpcrack infer`, or its map.")
    ],
    settings: Settings = None,
    json: Annotated[Path | None, to_file("the figures")] = None,
) -> int:
    """Make another map of what a run has found.

    The model is not run again; tiles and model are not needed. Keys that are not given keep the
    values of the run. Another threshold needs stored probability (`wpcrack infer ...
    probability=keep`).
    """
    from jobs.assemble.source import Source
    from jobs.infer.outputs import MapFiles

    with Source.open(work) as source:
        job = read_job("assemble", settings, source.settings)
        require_apart(json, MapFiles.of(job.out).figures)
        report = run_job("assemble", source, job)
    report_figures(report.summary(), report.values(), json)
    return int(report.exit_code)


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
    json: Annotated[Path | None, to_file("the figures")] = None,
) -> None:
    """Compare two surveys of the same roads.

    Says which cracks are new, longer, wider, shorter or gone, where both surveys looked. The old
    survey is first moved onto the new one, by the cracks that both have.
    """
    from geo.compare.options import CompareOptions
    from jobs.compare.run import ChangeFiles

    require_apart(json, ChangeFiles.of(out).figures)
    report = run_job("compare", old, new, out, CompareOptions.with_limit(limit))
    report_figures(report.summary(), report.values(), json)


@command(example="wpcrack windows tiles=tiles/ --count 400 --out windows", uses_ray=False)
def windows(
    out: Annotated[Path, typer.Option(help="New folder for the windows and manifest.csv.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="tiles=..., and keys of imagery as for infer."),
    ] = None,
    images: InPlaceOfTiles = None,
    count: Annotated[int, typer.Option(help="How many.")] = 2000,
    window: Annotated[int, typer.Option(help="Side in pixels.")] = 128,
    seed: Annotated[int, typer.Option(help="Another seed gives other windows.")] = 0,
    model: Annotated[
        Path | None, typer.Option(help="Run folder that orders them; else the shipped model.")
    ] = None,
    ordered: Annotated[
        bool, typer.Option("--ordered/--unordered", help="Put first what a model is unsure of.")
    ] = True,
) -> int:
    """Cut windows out of tiles or photographs, to be labeled.

    Spread over places and brightness. A model puts first those that it is unsure of and that are
    unlike each other, so that few labels teach much. Then: wpcrack label.
    """
    from jobs.settings.load import load, refuse_repeated
    from jobs.settings.map import Imagery
    from jobs.windows.cut import WindowsOptions

    given = settings or []
    require_one_source(given, images)
    if images is not None and given:
        raise typer.BadParameter(f"{given[0]} is a key of tiles; --images takes none")
    refuse_repeated(given, Imagery)
    options = WindowsOptions(count, window, seed, ordered, model)
    source = load(Imagery, overrides=given) if images is None else images
    report = run_job("windows", source, out, options)
    print(report.summary(count))
    return int(report.exit_code)
