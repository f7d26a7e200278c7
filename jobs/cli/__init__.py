"""The `wpcrack` command: one subcommand per job, thin; everything heavy is imported when needed.

Exit codes: 0 all done; 1 a user's error, or nothing usable; 2 wrong usage; 3 delivered, but some
tiles or blocks failed; 130 interrupted.
"""

from __future__ import annotations

import sys

import typer

from jobs.cli.cluster import doctor, submit
from jobs.cli.command import config
from jobs.cli.learn import dataset, demo, evaluate, import_weights, predict, train, tune
from jobs.cli.map import assemble, infer, windows

COMMANDS = (
    *(demo, dataset, train, tune, evaluate, predict),
    *(infer, assemble, windows, import_weights),
    *(submit, doctor, config),
)
"""In the order of the help."""

app = typer.Typer(
    name="wpcrack",
    help="Road crack maps from image-level labels: train on windows that show a crack or none, "
    "map a city's tiles, open the GeoPackage. Each command has its own --help with an example.\n\n"
    "\b\nExample:\n  wpcrack demo --out demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for function in COMMANDS:
    app.command(function.__name__.replace("_", "-"), help=function.__doc__)(function)


def run_command(name: str) -> None:
    """Runs a subcommand with the arguments of `python -m jobs.NAME`."""
    app([name, *sys.argv[1:]], prog_name="wpcrack")
