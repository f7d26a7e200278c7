"""The subcommands with a local page: `wpcrack label`, `wpcrack review`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.command import command, report_figures, require_apart, run_job, to_file

Port = Annotated[int, typer.Option(help="Of the page; 0 is any free one.")]
Browser = Annotated[
    bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")
]


@command(example="wpcrack label windows --part 1/3 --name anna --again 0.1", uses_ray=False)
def label(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder that `wpcrack windows` wrote.")
    ],
    name: Annotated[
        str, typer.Option(help="Your name, where several people label: that of your journal.")
    ] = "",
    part: Annotated[
        str, typer.Option(metavar="K/N", help="Show every N-th window, from the K-th on.")
    ] = "1/1",
    again: Annotated[
        float, typer.Option(help="Share of labeled windows to show twice, such as 0.1.")
    ] = 0.0,
    port: Port = 0,
    browser: Browser = True,
) -> None:
    """Label windows as crack or road, by key, on a local page.

    Each answer is written at once; the same command continues. Ctrl-C ends and says
    what to do next.
    """
    from jobs.label.order import Part
    from jobs.label.session import Who

    who = Who(name, Part.parse(part), again)
    print(run_job("label", folder, who, port=port, open_browser=browser).summary())


@command(example="wpcrack review maps/cracks.gpkg", uses_ray=False)
def review(
    package: Annotated[Path, typer.Argument(metavar="MAP", help="GeoPackage of `wpcrack infer`.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="tiles=..., where the imagery lies now."),
    ] = None,
    count: Annotated[int, typer.Option(help="Places to be judged.")] = 300,
    apply: Annotated[
        bool, typer.Option("--apply", help="Make an edited map whole again, and judge nothing.")
    ] = False,
    window: Annotated[int, typer.Option(help="Side of a place in pixels.")] = 128,
    seed: Annotated[int, typer.Option(help="Another seed draws other places.")] = 0,
    port: Port = 0,
    browser: Browser = True,
    json: Annotated[Path | None, to_file("the figures")] = None,
) -> None:
    """Measure precision and recall of a map, by key.

    Each answer is written at once; the same command continues. Ctrl-C ends; what was found goes
    into the map, its report and its page. With --apply, cracks that you deleted, moved or drew in
    QGIS, or whose verdict you set to wrong, are respected: totals, ranks and reports are made anew.
    """
    from jobs.infer.outputs import MapFiles
    from jobs.review.run import ReviewOptions, review_folder
    from jobs.settings.load import refuse_repeated
    from jobs.settings.map import Imagery

    refuse_repeated(settings or (), Imagery)
    require_apart(json, MapFiles.of(package).figures, review_folder(package))
    if apply:
        from jobs.review.apply import run_apply

        edited = run_apply(package)
        report_figures(edited.summary(), edited.values(), json)
        return

    options = ReviewOptions(count, seed, window)
    report = run_job("review", package, options, settings or (), port=port, open_browser=browser)
    report_figures(report.summary(), report.values(), json)
