"""What every subcommand of `wpcrack` has in common: its help, its errors, settings, figures."""

from __future__ import annotations

import errno
import functools
import inspect
import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

from geo.addresses import all_without_secrets, without_secrets
from geo.errors import OutputError
from geo.files import write_text
from jobs.registry import JOBS, find, names_with_config
from jobs.runtime.folder import explain_write_errors, refuse_address
from jobs.runtime.ray_session import prepare_environment
from jobs.runtime.signals import INTERRUPTED, Interrupted, stop_on_sigterm
from jobs.runtime.terminal import USER_ERRORS, outlast_readers, say
from jobs.runtime.versions import LEFT_OUT_TO_MAP
from wpcrack.errors import ConfigError

P = ParamSpec("P")

STDOUT = Path("-")

_NO_ACCESS = (
    "may not be entered, read or written",
    "change its permissions or those of the folders above it, or name another",
)
UNUSABLE_PATHS = {
    errno.EACCES: _NO_ACCESS,
    errno.EPERM: _NO_ACCESS,
    errno.ENAMETOOLONG: ("cannot be the name of a file", "give a shorter one"),
}
"""Errors of looking at a path: what is wrong with it, and what to do."""

OTHER_FILE = "name a file in a folder that exists and may be written"
OTHER_NAME = "figures need a file of their own, name another"

RUN_FILES = ("report.json", "split.json")
RUN_MARKS = ("MODEL_CARD.md", "metrics.jsonl", "trials.jsonl", ".lock")
"""What a training, sweep or adaption reads again, and what tells its folder (`jobs.train.folder`);
named here, as an installation for maps alone cannot load that."""

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CONFIG|KEY=VALUE",
        help="A YAML file, or a name that `wpcrack config` knows; then settings, which it lists.",
        show_default=False,
    ),
]

InPlaceOfTiles = Annotated[
    Path | None, typer.Option(help="Folder of photographs, instead of tiles.")
]


def to_file(what: str) -> Any:
    """Make the option `--json`, which writes figures: a plan, a state, a result."""
    return typer.Option(help=f"Write {what} to FILE; - is stdout.", metavar="FILE")


def command(
    example: str, *, uses_ray: bool = True
) -> Callable[[Callable[P, int | None]], Callable[P, None]]:
    """Make a subcommand of a function: what it returns is the exit code.

    A user's error becomes one line on stderr and exit code 1; SIGTERM and SIGHUP end it as Ctrl-C
    does. An argument `json` is checked before the function does anything.

    Args:
        example: Of its use, for the help.
        uses_ray: False: it only speaks to a cluster from outside, with the user's own settings.
    """

    def decorate(function: Callable[P, int | None]) -> Callable[P, None]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            outlast_readers()
            _print_any_name()
            if uses_ray:
                prepare_environment()
            try:
                _require_working_folder()
                kwargs.update({name: _at_home(value) for name, value in kwargs.items()})
                refuse_address(list(kwargs.values()))
                _require_place_for_figures(kwargs.get("json"))
                with stop_on_sigterm():
                    code = function(*args, **kwargs) or 0
                sys.stdout.flush()
            except USER_ERRORS as error:
                print(f"error: {without_secrets(str(error))}", file=sys.stderr)
                code = 1
            except ModuleNotFoundError as error:
                if error.name not in LEFT_OUT_TO_MAP:
                    raise
                print(f"error: {without(error.name)}", file=sys.stderr)
                code = 1
            except OSError as error:
                sentence = _unusable(error)
                if sentence is None:
                    raise
                print(f"error: {sentence}", file=sys.stderr)
                code = 1
            except Interrupted:
                code = INTERRUPTED
            except KeyboardInterrupt:
                say("interrupted: give the same command again")
                code = INTERRUPTED
            raise typer.Exit(code)

        run.__doc__ = f"{inspect.getdoc(function)}\n\n\b\nExample:\n  {example}"
        return run

    return decorate


def _unusable(error: OSError) -> str | None:
    """Say what is wrong with a path that was looked at before any use of it; None: it is not that.

    Python's own search for a folder of temporary files names all that it tried, and no path.
    """
    if error.filename is not None and error.errno in UNUSABLE_PATHS:
        what, remedy = UNUSABLE_PATHS[error.errno]
        name = without_secrets(os.fsdecode(error.filename))
        return f"{name} {what} ({error.strerror}); {remedy}"
    if "temporary directory" in str(error.strerror):
        return f"{error.strerror}; set TMPDIR to a folder that may be written"
    return None


def _print_any_name() -> None:
    """Escape what the terminal's encoding lacks: a name of a file must not end a job."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _require_working_folder() -> None:
    """Refuse to work in a folder that was removed: no relative path leads anywhere from there.

    Raises:
        OutputError: It was removed.
    """
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise OutputError("the folder in which you are was removed; change to another") from error


def _at_home(value: Any) -> Any:
    """Expand `~` in a path or a list of paths: a shell leaves that of `--out=~/maps` alone."""
    if isinstance(value, list):
        return [_at_home(item) for item in value]
    return Path(os.path.expanduser(value)) if isinstance(value, Path) else value


def without(package: str) -> str:
    """Say what to do about a package that an installation for maps alone lacks."""
    return (
        f"this command needs the package {package}, which this installation does without; it maps "
        "with infer, predict and assemble: for all commands, pip install all that pyproject.toml "
        "names"
    )


# -- settings ----------------------------------------------------------------------------------


@command(example="wpcrack config infer > my.yaml")
def config(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help=f"{', '.join(names_with_config())}; or paper.")
    ],
) -> None:
    """Print a documented config.

    What a job takes without CONFIG, or a config that comes with the program.
    """
    from jobs.settings.docs import render_defaults
    from jobs.settings.load import shipped_configs
    from jobs.settings.yaml_text import read_yaml

    job, shipped = JOBS.get(name), {path.stem: path for path in shipped_configs()}
    if job is not None and job.config is not None and job.shown != "file":
        own = read_yaml(shipped[name]) if name in shipped else {}
        text = render_defaults(find(job.config), commented=job.shown == "commented", shipped=own)
    elif name in shipped:
        text = shipped[name].read_text(encoding="utf-8")
    else:
        names = ", ".join(sorted({*names_with_config(), *shipped}))
        raise ConfigError(f"no config is called {name}; there are {names}")
    print(text, end="")


def read_job(name: str, settings: list[str] | None, base: Mapping[str, Any] | None = None) -> Any:
    """Read `[CONFIG] [KEY=VALUE]...` of a job; without CONFIG its shipped config is taken.

    What CONFIG leaves out is what `wpcrack config` prints, but for a sweep, whose file is whole.

    Args:
        name: Of a job that takes a config.
        settings: As given.
        base: Values that stand in the place of the defaults.

    Returns:
        The job's validated model.

    Raises:
        ConfigError: See `jobs.settings.load.load`.
    """
    from jobs.settings.load import find_config, load, refuse_repeated, shipped_configs
    from jobs.settings.yaml_text import read_yaml

    given = list(settings or ())
    file = next((path for path in shipped_configs() if path.stem == name), None)
    if given and ("=" not in given[0] or os.path.isfile(given[0])):  # of any length
        if file is not None and JOBS[name].shown == "defaults":
            base = read_yaml(file)
        file = find_config(given.pop(0))
    wrong = [text for text in given if "=" not in text]
    if wrong:
        raise typer.BadParameter(f"got {wrong[0]!r} after CONFIG; settings are written key=value")
    model = JOBS[name].config
    assert model is not None, f"{name} takes no config"
    refuse_repeated(given, find(model))
    return load(find(model), file, given, base=base)


def require_one_source(settings: list[str], images: Path | None) -> None:
    """Refuse tiles and photographs at once, and neither of both.

    Raises:
        BadParameter: so it is.
    """
    if (images is None) != any(text.startswith("tiles=") for text in settings):
        raise typer.BadParameter("give tiles=... or --images DIR, one of both")


def run_job(name: str, *args: Any, **kwargs: Any) -> Any:
    """Run a job, imported only now; what it returns is what its own function returns."""
    function = JOBS[name].run
    assert function is not None, f"{name} is no job"
    return find(function)(*args, **kwargs)


# -- figures -----------------------------------------------------------------------------------


def require_place_for(file: object) -> None:
    """Refuse a file that could not be written, before the work whose result it shall hold.

    Args:
        file: a path; `-` or None: there is no file.

    Raises:
        OutputError: Its folder is missing, one of both may not be written, or the file is not this
            program's own.
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
        from geo.outputs import require_replaceable

        require_replaceable([file])
        return
    raise OutputError(f"{file} {reason}; {OTHER_FILE}")


def _require_place_for_figures(file: object) -> None:
    """Refuse a name that a map or a picture may have: figures would take its place at the end."""
    if isinstance(file, Path) and file != STDOUT and file.suffix.lower() != ".json":
        from geo.outputs import ENDINGS

        if file.suffix.lower() in ENDINGS:
            raise OutputError(f"--json {file}: the figures are JSON; name the file *.json")
    require_place_for(file)
    if isinstance(file, Path) and file != STDOUT and _is_report(file):
        raise OutputError(f"--json {file} is a report or record of other work; {OTHER_NAME}")


def _is_report(file: Path) -> bool:
    """Return whether a command that goes on, or other programs, rely on a file of this name."""
    if file.name in RUN_FILES and any((file.parent / mark).exists() for mark in RUN_MARKS):
        return True
    stem = file.name.removesuffix(".report.json")
    if stem != file.name and any(file.with_name(stem + x).exists() for x in (".gpkg", ".work")):
        return True
    from geo.outputs import is_figures

    return os.path.lexists(file) and not is_figures(file)


def require_apart(file: Path | None, *outputs: Path) -> None:
    """Refuse figures in the place of what the command itself will write, or in a folder of it.

    Args:
        file: as for `require_place_for`.
        outputs: files and folders of the command; they need not exist yet.

    Raises:
        OutputError: So it is.
    """
    if file is None or file == STDOUT:
        return
    place = Path(os.path.realpath(file))
    for output in outputs:
        own = os.path.realpath(output)
        if place == Path(own):
            raise OutputError(f"--json {file} is what this command writes itself; {OTHER_NAME}")
        if place.is_relative_to(own):
            raise OutputError(f"--json {file} lies in this command's folder; {OTHER_NAME}")


def report_figures(text: str, values: Mapping[str, Any], file: Path | None) -> None:
    """Print the text; write the values as JSON to a file, or to stdout in place of the text.

    Raises:
        OutputError: The file cannot be written.
    """
    if file != STDOUT:
        print(without_secrets(text))
    if file is None:
        return
    from geo.outputs import FIGURES_INDENT

    kept = all_without_secrets(dict(values))
    figures = json.dumps(kept, indent=FIGURES_INDENT, ensure_ascii=False)
    if file == STDOUT:
        print(figures)
    else:
        require_place_for(file)  # edited meanwhile?
        with explain_write_errors(f"--json {file}", OTHER_FILE):
            write_text(file, figures + "\n")
