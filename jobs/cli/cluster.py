"""Subcommands that look at a cluster from outside, with the user's own settings of Ray."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.command import command, read_job, report_figures, run_job, to_file
from jobs.registry import JOBS, find, names_to_submit

if TYPE_CHECKING:
    from jobs.cluster.submit import Submission


@command(
    example="wpcrack submit infer tiles=/mnt/tiles.txt model=/mnt/runs/city "
    "out=/mnt/maps/cracks.gpkg --address http://127.0.0.1:8265",
    uses_ray=False,
)
def submit(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="JOB [CONFIG] [KEY=VALUE]...",
            help=f"{', '.join(names_to_submit())}, and what that command takes.",
            show_default=False,
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Of the cluster's dashboard.",
            envvar="RAY_API_SERVER_ADDRESS",
            show_envvar=True,
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Do not wait for the end of the job.")
    ] = False,
    attach: Annotated[
        str | None, typer.Option(metavar="ID", help="Follow a job that was submitted before.")
    ] = None,
    stop: Annotated[
        str | None, typer.Option(metavar="ID", help="Stop a job; it keeps what is finished.")
    ] = None,
) -> int:
    """Run a job on a Ray cluster.

    Uploads this program and the config, shows the log and ends with the exit code of the job.
    Ctrl-C asks whether to stop the job or to leave it running; the same command continues it.
    """
    given = [bool(arguments), attach is not None, stop is not None]
    if sum(given) != 1:
        raise typer.BadParameter("give a job to submit, or --attach ID, or --stop ID")
    if address is None:
        raise typer.BadParameter("give --address URL of the cluster's dashboard")
    from jobs.cluster.submit import run_attach, run_stop, run_submit

    if attach is not None:
        return run_attach(attach, address)
    if stop is not None:
        return run_stop(stop, address)
    return run_submit(_submission(arguments or [], address), detach=detach)


@command(example="wpcrack doctor --storage runs", uses_ray=False)
def doctor(
    address: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Also look at the cluster of this dashboard."),
    ] = None,
    storage: Annotated[
        Path | None,
        typer.Option(help="Folder for runs and maps, on the cluster if there is one."),
    ] = None,
    json: Annotated[Path | None, to_file("the report")] = None,
) -> int:
    """Say what is missing for a job.

    One line for each thing that was looked at; exit code 1 if something will fail.
    """
    from jobs.cluster.doctor import has_failed, values

    checks = run_job("doctor", address, storage)
    report_figures("\n".join(check.line() for check in checks), values(checks), json)
    return int(has_failed(checks))


def _submission(arguments: list[str], address: str) -> Submission:
    """Read the job of `wpcrack submit`, and check it before anything is sent."""
    from jobs.cluster.submit import Submission

    name, *settings = arguments
    if name not in names_to_submit():
        raise typer.BadParameter(f"got {name!r}; a job to submit is {', '.join(names_to_submit())}")
    job = read_job(name, settings)
    if check := JOBS[name].check:
        find(check)(job)
    again = shlex.join(["wpcrack", "submit", *arguments, "--address", address])
    return Submission(name, job, address, again)
