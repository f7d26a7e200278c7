"""What every subcommand of `wpcrack` has in common: its help, its errors, its exit code."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from geo.errors import GeoError
from jobs.runtime.ray_session import prepare_environment
from wpcrack.errors import ConfigError, WpcrackError

if TYPE_CHECKING:
    from pydantic import BaseModel
import json
from collections.abc import Mapping
from typing import Any

from geo.errors import OutputError

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


# ==== jobs.cli.command: Jobs with a config: where their models lie, how `[CONFIG] [KEY=VALUE]...` is read, `config`.


CONFIGURED = {
    "train": ("jobs.train.job", "TrainJob"),
    "tune": ("jobs.tune.job", "TuneJob"),
    "infer": ("jobs.infer.job", "InferJob"),
    "assemble": ("jobs.assemble.job", "AssembleJob"),
}
"""Jobs that take a config, and where its model lies."""

SUBMITTED = ("train", "tune", "infer")
"""Those of them that run on a cluster as `wpcrack JOB CONFIG`."""

WRITTEN_OUT = {"tune"}
"""Jobs whose shipped config says more than their defaults; `wpcrack config` prints it."""

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CONFIG|KEY=VALUE",
        help="A YAML file, or a name that `wpcrack config` knows; then settings, which it lists.",
        show_default=False,
    ),
]


@command(example="wpcrack config infer > my.yaml")
def config(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="train, tune, infer or assemble; or paper.")
    ],
) -> None:
    """Print a documented config.

    The defaults of a job, or a config that comes with the program.
    """
    from jobs.settings.docs import render_defaults
    from jobs.settings.load import shipped_configs

    shipped = {path.stem: path for path in shipped_configs()}
    if name in CONFIGURED and name not in WRITTEN_OUT:
        text = render_defaults(config_model(name), commented=name == "assemble")
    elif name in shipped:
        text = shipped[name].read_text(encoding="utf-8")
    else:
        names = ", ".join(sorted({*CONFIGURED, *shipped}))
        raise ConfigError(f"no config is called {name}; there are {names}")
    print(text, end="")


def config_model(name: str) -> type[BaseModel]:
    """The model of a job's config, imported only now."""
    module, attribute = CONFIGURED[name]
    model: type[BaseModel] = getattr(importlib.import_module(module), attribute)
    return model


def file_and_overrides(name: str, settings: list[str] | None) -> tuple[Path | None, list[str]]:
    """Splits `[CONFIG] [KEY=VALUE]...`; without CONFIG the shipped config of the job is taken."""
    from jobs.settings.load import find_config, shipped_configs

    given = list(settings or ())
    if given and ("=" not in given[0] or Path(given[0]).is_file()):
        file: Path | None = find_config(given.pop(0))
    else:
        file = next((path for path in shipped_configs() if path.stem == name), None)
    wrong = [text for text in given if "=" not in text]
    if wrong:
        raise typer.BadParameter(f"got {wrong[0]!r} after CONFIG; settings are written key=value")
    return file, given


# ==== jobs.cli.command: Figures of a command for people and, on request, for programs.


STDOUT = Path("-")

OTHER_FILE = "name a file in a folder that exists"


def require_place_for(file: object) -> None:
    """Refuse a file that could not be written, before the work whose result it shall hold.

    Args:
        file: a path; `-` or None: there is no file.

    Raises:
        OutputError: Its folder is missing, or one of both may not be written.
    """
    if not isinstance(file, Path) or file == STDOUT:
        return
    if file.is_dir():
        reason = "is a folder"
    elif not file.parent.is_dir():
        reason = f"lies in {file.parent}, which does not exist"
    elif not os.access(file if file.exists() else file.parent, os.W_OK):
        reason = "may not be written"
    else:
        return
    raise OutputError(f"{file} {reason}; {OTHER_FILE}")


def report_figures(summary: str, values: Mapping[str, Any], path: Path | None) -> None:
    """Prints the summary; writes the values as JSON to a file, or to stdout in its place.

    Raises:
        OutputError: The file cannot be written.
    """
    text = json.dumps(values, indent=1, ensure_ascii=False)
    if path == STDOUT:
        print(text)
        return
    print(summary)
    if path is not None:
        try:
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"--json {path} cannot be written ({error.strerror}); name a file in a folder "
                "that exists"
            ) from error
