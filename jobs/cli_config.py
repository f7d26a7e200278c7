"""Jobs with a config: where their models lie, how `[CONFIG] [KEY=VALUE]...` is read, `config`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli_command import command
from wpcrack.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel

CONFIGURED = {
    "train": ("jobs.train_job", "TrainJob"),
    "tune": ("jobs.tune_job", "TuneJob"),
    "infer": ("jobs.infer_job", "InferJob"),
    "assemble": ("jobs.assemble_job", "AssembleJob"),
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
    from jobs.config import shipped_configs
    from jobs.config_docs import render_defaults

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
    from jobs.config import find_config, shipped_configs

    given = list(settings or ())
    if given and ("=" not in given[0] or Path(given[0]).is_file()):
        file: Path | None = find_config(given.pop(0))
    else:
        file = next((path for path in shipped_configs() if path.stem == name), None)
    wrong = [text for text in given if "=" not in text]
    if wrong:
        raise typer.BadParameter(f"got {wrong[0]!r} after CONFIG; settings are written key=value")
    return file, given
