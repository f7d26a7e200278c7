"""The `wpcrack` command: one subcommand per job, thin; everything heavy is imported when needed.

Exit codes: 0 all done; 1 a user's error, or nothing usable; 2 wrong usage; 3 delivered, but some
tiles or blocks failed; 130 interrupted.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, ParamSpec

import typer

from geo.errors import GeoError
from jobs.ray_session import prepare_environment
from wpcrack.errors import ConfigError, WpcrackError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from jobs.submit import Submission

P = ParamSpec("P")

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM: 128 + SIGINT."""

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

app = typer.Typer(
    name="wpcrack",
    help="Road crack maps from image-level labels: train on windows that show a crack or none, "
    "map a city's tiles, open the GeoPackage.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _command(
    example: str, *, uses_ray: bool = True
) -> Callable[[Callable[P, int | None]], Callable[P, None]]:
    """Registers a subcommand; what it returns is the exit code, a user's error is one line.

    Args:
        example: Of its use, for the help.
        uses_ray: False: it only speaks to a cluster from outside, with the user's own settings.
    """

    def register(function: Callable[P, int | None]) -> Callable[P, None]:
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

        text = f"{inspect.getdoc(function)}\n\n\b\nExample:\n  {example}"
        return app.command(function.__name__.replace("_", "-"), help=text)(run)

    return register


Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CONFIG|KEY=VALUE",
        help="A YAML file, or a name that `wpcrack config` knows; then settings.",
        show_default=False,
    ),
]
Model = Annotated[Path, typer.Option(help="Run folder of `wpcrack train`.")]
EngineName = Annotated[
    Literal["auto", "torch", "openvino"],
    typer.Option(help="auto: torch on a GPU, else openvino where it is installed."),
]


@_command(example="wpcrack demo --out demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Another seed draws another city.")] = 0,
) -> None:
    """Draw a city, learn its cracks and map them.

    Trains on drawn windows with image-level labels, and scores the map against the truth.
    """
    from jobs.demo import run_demo

    run_demo(out, seed=seed)


@_command(example="wpcrack dataset --images photos --masks masks --out set --window 96 --val 0.25")
def dataset(
    images: Annotated[Path, typer.Option(help="Folder of photographs.")],
    masks: Annotated[Path, typer.Option(help="Masks of the same stems, with or without _mask.")],
    out: Annotated[Path, typer.Option(help="Folder of the set: crack/, road/, manifest.csv.")],
    window: Annotated[int, typer.Option(help="Side of a window in pixels.")] = 128,
    val: Annotated[float, typer.Option(help="Share of source images held out.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of the split and the undersampling.")] = 0,
    road: Annotated[Path | None, typer.Option(help="Further images without any crack.")] = None,
    protocol: Annotated[
        Literal["windows", "whole"],
        typer.Option(help="whole: a crack item is a whole photograph, not a window."),
    ] = "windows",
) -> None:
    """Cut photographs with masks into a data set.

    The masks decide which windows show a crack, and are not used any further.
    """
    from jobs.dataset import run_dataset
    from wpcrack.image_level import BuildOptions

    options = BuildOptions(window=window, val=val, seed=seed, road=road, protocol=protocol)
    run_dataset(images, masks, out, options)


@_command(
    example="wpcrack train configs/train.yaml data.root=set run_dir=runs/city train.max_minutes=30"
)
def train(
    settings: Settings = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print config, size, memory and steps, and do nothing."),
    ] = False,
    json: Annotated[
        Path | None,
        typer.Option(help="Write plan or result to FILE; - is stdout.", metavar="FILE"),
    ] = None,
) -> None:
    """Train on an image-level data set.

    The same command continues an unfinished run.
    """
    from jobs.config import load
    from jobs.json_output import report_figures
    from jobs.train_job import TrainJob

    job = load(TrainJob, *_file_and_overrides("train", settings))
    if dry_run:
        from jobs.train_plan import plan_training

        plan = plan_training(job)
        report_figures(plan.text(), plan.values(), json)
        return
    from jobs.train import run_training

    report = run_training(job)
    if json is not None:
        report_figures(report.summary(), report.values(), json)


@_command(example="wpcrack tune configs/tune.yaml data.root=set run_dir=runs/sweep tune.trials=20")
def tune(
    settings: Settings = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it will try, and do nothing.")
    ] = False,
    status: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Say how far the sweep in DIR is.")
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(help="Write state and best trials to FILE; - is stdout.", metavar="FILE"),
    ] = None,
) -> None:
    """Search for settings of a training.

    Writes results.csv, best.yaml (for `wpcrack train`) and sweep.png; the same command continues
    an unfinished sweep.
    """
    from jobs.config import load
    from jobs.tune import TuneJob, plan_text, run_tune
    from jobs.tune_status import deliver, read_status

    if status is not None:
        deliver(read_status(status), json)
        return
    job = load(TuneJob, *_file_and_overrides("tune", settings))
    if plan:
        print(plan_text(job))
        return
    deliver(run_tune(job), json)


@_command(
    example="wpcrack evaluate --model runs/city --images photos --masks masks --json scores.json"
)
def evaluate(
    model: Model,
    images: Annotated[Path, typer.Option(help="Folder of photographs.")],
    masks: Annotated[Path, typer.Option(help="Masks of the same stems, with or without _mask.")],
    manifest: Annotated[
        Path | None, typer.Option(help="Score only source images of this manifest.csv.")
    ] = None,
    split: Annotated[
        Literal["train", "val"] | None, typer.Option(help="Which of them (default: val).")
    ] = None,
    resize: Annotated[
        int | None, typer.Option(help="Also score after resizing to N x N.", metavar="N")
    ] = None,
    road: Annotated[
        Path | None, typer.Option(help="Photographs without any crack, for false alarms.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write the scores to FILE; - is stdout.", metavar="FILE")
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw the best and the worst images.", metavar="FILE.png"),
    ] = None,
    engine: EngineName = "auto",
) -> None:
    """Score a model on photographs with masks."""
    from jobs.evaluate import EvaluateOptions, run_evaluate

    folders = (model, images, masks, manifest, split, resize, road)
    run_evaluate(EvaluateOptions(*folders, json, figure=figure, engine=engine))


@_command(example="wpcrack predict --model runs/city --out found photo.jpg")
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Photographs.")],
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for STEM_prob.png and STEM_mask.png.")],
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="A pixel is crack from this probability on.")
    ] = 0.5,
    engine: EngineName = "auto",
) -> None:
    """Find cracks in plain photographs."""
    from jobs.evaluate import run_predict

    run_predict(model, out, images, threshold=threshold, engine=engine)


@_command(example="wpcrack infer tiles=tiles/ model=runs/city out=maps/cracks.gpkg crs=EPSG:25832")
def infer(
    settings: Settings = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it will do and cost, and do nothing.")
    ] = False,
    status: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Say how far the job of this GeoPackage or folder is."),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(help="Write plan, status or result to FILE; - is stdout.", metavar="FILE"),
    ] = None,
) -> int:
    """Map the cracks on georeferenced tiles.

    Writes a GeoPackage and overview.png; the same command continues an interrupted job.
    """
    from jobs.json_output import report_figures

    if status is not None:
        from jobs.infer_status import read_status

        state = read_status(status)
        report_figures(state.text(), state.values(), json)
        return 0
    from jobs.config import load
    from jobs.infer import InferJob, plan_inference, run_inference

    job = load(InferJob, *_file_and_overrides("infer", settings))
    if plan:
        forecast = plan_inference(job)
        report_figures(forecast.text(), forecast.values(), json)
        return 0
    report = run_inference(job)
    report_figures(report.summary(), report.values(), json)
    return report.exit_code


@_command(
    example="wpcrack assemble maps/cracks.work out=maps/strict.gpkg threshold=0.7 min_length_m=0.3"
)
def assemble(
    work: Annotated[
        Path, typer.Argument(metavar="WORK", help="Work folder of `wpcrack infer`, or its map.")
    ],
    settings: Settings = None,
    json: Annotated[
        Path | None, typer.Option(help="Write the figures to FILE; - is stdout.", metavar="FILE")
    ] = None,
) -> int:
    """Make a further map of what a run has found, without running the model again.

    Keys that are not given keep the values of the run. Another threshold takes stored probability
    (`wpcrack infer ... probability=keep`); tiles and model are not needed.
    """
    from jobs.assemble import run_assemble
    from jobs.assemble_job import AssembleJob
    from jobs.assemble_source import Source
    from jobs.config import load
    from jobs.json_output import report_figures

    with Source.opened(work) as source:
        job = load(AssembleJob, *_file_and_overrides("assemble", settings), base=source.settings)
        report = run_assemble(source, job)
    report_figures(report.summary(), report.values(), json)
    return report.exit_code


@_command(example="wpcrack windows tiles=tiles/ --count 2000 --out windows")
def windows(
    out: Annotated[Path, typer.Option(help="New folder for the windows and manifest.csv.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="tiles=..., and keys of imagery as for infer."),
    ] = None,
    count: Annotated[int, typer.Option(help="How many.")] = 2000,
    window: Annotated[int, typer.Option(help="Side in pixels.")] = 128,
    seed: Annotated[int, typer.Option(help="Another seed gives other windows.")] = 0,
) -> None:
    """Cut windows out of your own tiles, to be labeled by hand.

    Spread over tiles and brightness. Sort them into crack/ and road/, or fill the column label of
    manifest.csv, and train on the folder.
    """
    from jobs.config import load
    from jobs.imagery import Imagery
    from jobs.windows import run_windows

    imagery = load(Imagery, overrides=settings or ())
    report = run_windows(imagery, out, count=count, window=window, seed=seed)
    print(report.summary(count))


@_command(example="wpcrack import-weights wpcracknet.ckpt --out runs/released")
def import_weights(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Checkpoint or state dict.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
) -> None:
    """Make a run folder of the paper's released weights.

    No code in the file is run; tensors that do not fit are named.
    """
    from jobs.import_weights import run_import

    run_import(file, out)


@_command(
    example="wpcrack submit infer tiles=s3://city/tiles model=/mnt/runs/city "
    "out=/mnt/maps/cracks.gpkg --address http://127.0.0.1:8265",
    uses_ray=False,
)
def submit(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="JOB [CONFIG] [KEY=VALUE]...",
            help="train, tune or infer, and what that command takes.",
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
    from jobs.submit import run_attach, run_stop, run_submit

    if attach is not None:
        return run_attach(attach, address)
    if stop is not None:
        return run_stop(stop, address)
    return run_submit(_submission(arguments or [], address), detach=detach)


@_command(example="wpcrack doctor --storage runs", uses_ray=False)
def doctor(
    address: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Also look at the cluster of this dashboard."),
    ] = None,
    storage: Annotated[
        Path | None,
        typer.Option(help="Folder for runs and maps, on the cluster if there is one."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write the report to FILE; - is stdout.", metavar="FILE")
    ] = None,
) -> int:
    """Say what is missing for a job.

    One line for each thing that was looked at; exit code 1 if something will fail.
    """
    from jobs.doctor import as_json, has_failed, run_doctor

    checks = run_doctor(address, storage)
    if json is None or str(json) != "-":
        print("\n".join(check.line() for check in checks))
    if json is not None:
        _write(json, as_json(checks) + "\n")
    return int(has_failed(checks))


@_command(example="wpcrack config infer > my.yaml")
def config(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="train, tune, infer, or a config's name.")
    ],
) -> None:
    """Print a documented config.

    The defaults of a job, or a config that comes with the program.
    """
    from jobs.config import shipped_configs
    from jobs.config_docs import render_defaults

    shipped = {path.stem: path for path in shipped_configs()}
    if name in CONFIGURED and name not in WRITTEN_OUT:
        text = render_defaults(_config_model(name), commented=name == "assemble")
    elif name in shipped:
        text = shipped[name].read_text(encoding="utf-8")
    else:
        names = ", ".join(sorted({*CONFIGURED, *shipped}))
        raise ConfigError(f"no config is called {name}; there are {names}")
    print(text, end="")


def _write(file: Path, text: str) -> None:
    """Writes to a file, or to stdout where it is called -."""
    if str(file) == "-":
        print(text, end="")
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--json {file} cannot be written ({error.strerror}); name a file in an existing folder"
        ) from error


def run_command(name: str) -> None:
    """Runs a subcommand with the arguments of `python -m jobs.NAME`."""
    app([name, *sys.argv[1:]], prog_name="wpcrack")


def _submission(arguments: list[str], address: str) -> Submission:
    """The job of `wpcrack submit`, checked here before anything is sent."""
    from jobs.config import load
    from jobs.submit import Submission

    name, *settings = arguments
    known = [name for name in CONFIGURED if name in SUBMITTED]
    if name not in known:
        raise typer.BadParameter(f"got {name!r}; a job to submit is {', '.join(known)}")
    job = load(_config_model(name), *_file_and_overrides(name, settings))
    again = shlex.join(["wpcrack", "submit", *arguments, "--address", address])
    return Submission(name, job, address, again)


def _config_model(name: str) -> type[BaseModel]:
    module, attribute = CONFIGURED[name]
    model: type[BaseModel] = getattr(importlib.import_module(module), attribute)
    return model


def _file_and_overrides(name: str, settings: list[str] | None) -> tuple[Path | None, list[str]]:
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


if __name__ == "__main__":
    app(prog_name="wpcrack")
