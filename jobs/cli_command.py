"""What every subcommand of `wpcrack` has in common: its help, its errors, its exit code."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from geo.errors import GeoError
from jobs.ray_session import prepare_environment
from wpcrack.errors import WpcrackError

P = ParamSpec("P")

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM: 128 + SIGINT."""


def command(
    example: str, *, uses_ray: bool = True
) -> Callable[[Callable[P, int | None]], Callable[P, None]]:
    """Makes a subcommand of a function: what it returns is the exit code.

    A user's error becomes one line on stderr and exit code 1.

    Args:
        example: Of its use, for the help.
        uses_ray: False: it only speaks to a cluster from outside, with the user's own settings.
    """

    def decorate(function: Callable[P, int | None]) -> Callable[P, None]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            if uses_ray:
                prepare_environment()
            try:
                code = function(*args, **kwargs) or 0
            except (WpcrackError, GeoError) as error:
                print(f"error: {error}", file=sys.stderr)
                code = 1
            except KeyboardInterrupt:
                code = INTERRUPTED
            raise typer.Exit(code)

        run.__doc__ = f"{inspect.getdoc(function)}\n\n\b\nExample:\n  {example}"
        return run

    return decorate
