"""The `wpcrack` command: one subcommand per job, thin; everything heavy is imported when needed.

Exit codes: 0 all done; 1 a user's error, or nothing usable; 2 wrong usage; 3 delivered, but some
tiles or blocks failed; 130 interrupted. What subcommands there are stands in `jobs.registry`.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

try:
    import fcntl  # noqa: F401  locks of folders, which Windows does not have
except ModuleNotFoundError:
    sys.exit(
        "error: wpcrack needs Linux (or macOS), and this is neither; on Windows install it in "
        "WSL 2 (wsl --install), where the same commands work"
    )

import typer
from typer.core import TyperCommand

from jobs.registry import JOBS, find

TEXTS = ("--name", "--mask-values")
"""Options that may be empty."""


class _Command(TyperCommand):
    """A subcommand that refuses two files or folders of one option, and an empty path.

    Else the last one would count without a word, and the working folder be what is empty, such as
    a variable of the shell that is not set. Of numbers and names the last one counts.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        values, _, order = self.make_parser(ctx).parse_args(args=list(args))
        kinds = get_type_hints(self.callback)
        for param, times in Counter(order).items():
            what = param.opts[0] if param.param_type_name == "option" else "an argument"
            value = values[param.name]
            kind = kinds.get(param.name)
            if times > 1 and Path in (kind, *get_args(kind)):
                ctx.fail(f"{what} is given twice; give it once")
            if what not in TEXTS and "" in (value if isinstance(value, tuple) else (value,)):
                ctx.fail(f"{what} is empty; give a value")
        return super().parse_args(ctx, args)


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
for job in JOBS.values():
    function = find(job.command)
    app.command(job.name, cls=_Command, help=function.__doc__)(function)


def _print_version(asked: bool) -> None:
    if asked:
        from jobs.runtime.versions import own_version

        print(f"wpcrack {own_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def run_command(name: str) -> None:
    """Run a subcommand with the arguments of `python -m jobs.NAME`."""
    app([name, *sys.argv[1:]], prog_name="wpcrack")
