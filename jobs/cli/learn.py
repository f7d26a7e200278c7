"""Subcommands around a model: draw or cut its data, train, sweep, score, try it on photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs.cli.command import (
    InPlaceOfTiles,
    Settings,
    command,
    read_job,
    report_figures,
    require_apart,
    require_one_source,
    require_place_for,
    run_job,
    to_file,
)

Model = Annotated[
    Path | None, typer.Option(help="Run folder of `wpcrack train`; else the shipped model.")
]
Images = Annotated[Path, typer.Option(help="Folder of photographs.")]
Masks = Annotated[Path, typer.Option(help="Masks of the same stems, with or without _mask.")]
MaskValues = Annotated[
    str,
    typer.Option(metavar="N,N", help="Values, or palette indices, that are crack; else white is."),
]
EngineName = Annotated[
    Literal["auto", "torch", "openvino"],
    typer.Option(help="auto: torch on a GPU, else openvino where it is installed."),
]


@command(example="wpcrack demo --out demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Another seed draws another city.")] = 0,
    train: Annotated[
        bool, typer.Option("--train", help="Train a model first: ten minutes.")
    ] = False,
) -> None:
    """Draw a city, map its cracks and score the map.

    Takes the model that ships with the package, or trains one on drawn windows with image-level
    labels.
    """
    from jobs.demo.run import DemoOptions

    run_job("demo", out, seed=seed, options=DemoOptions(train=train))


@command(example="wpcrack dataset --images photos --masks masks --out set --window 96 --val 0.25")
def dataset(
    images: Images,
    masks: Masks,
    out: Annotated[Path, typer.Option(help="Folder of the set: crack/, road/, manifest.csv.")],
    window: Annotated[
        int | None, typer.Option(help="Side of a window in pixels; 128 if not given.")
    ] = None,
    val: Annotated[float, typer.Option(help="Share of frames held out.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of the split and the undersampling.")] = 0,
    road: Annotated[Path | None, typer.Option(help="Further images without any crack.")] = None,
    protocol: Annotated[
        Literal["windows", "whole"],
        typer.Option(help="whole: a crack item is a whole photograph, not a window."),
    ] = "windows",
    group: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX", help="What in a name says which frame an image was cut from."
        ),
    ] = None,
    mask_values: MaskValues = "",
) -> None:
    """Cut photographs with masks into a data set.

    The masks decide which windows show a crack, and are not used any further.
    """
    from wpcrack.data.build import BuildOptions

    if window is not None and protocol == "whole":
        raise typer.BadParameter("--protocol whole takes whole photographs; leave out --window")
    options = BuildOptions(
        window=BuildOptions.window if window is None else window,
        val=val,
        seed=seed,
        road=road,
        protocol=protocol,
        group=group,
        mask_values=_numbers(mask_values),
    )
    run_job("dataset", images, masks, out, options)


@command(
    example="wpcrack train configs/train.yaml data.root=set run_dir=runs/city train.max_minutes=30"
)
def train(
    settings: Settings = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print config, size, memory and steps, and do nothing."),
    ] = False,
    json: Annotated[Path | None, to_file("plan or result")] = None,
) -> None:
    """Train on an image-level data set.

    The same command continues an unfinished run.
    """
    job = read_job("train", settings)
    require_apart(json, job.run_dir)
    if dry_run:
        from jobs.train.plan import plan_training

        plan = plan_training(job)
        report_figures(plan.text(), plan.values(), json)
        return
    report = run_job("train", job)
    if json is not None:
        report_figures(report.summary(), report.values(), json)


@command(example="wpcrack tune configs/tune.yaml data.root=set run_dir=runs/sweep tune.trials=20")
def tune(
    settings: Settings = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it will try, and do nothing.")
    ] = False,
    status: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Say how far the sweep in DIR is.")
    ] = None,
    json: Annotated[Path | None, to_file("plan, state or result")] = None,
) -> None:
    """Search for settings of a training.

    Writes results.csv, best.yaml (for `wpcrack train`) and sweep.png; the same command continues
    an unfinished sweep.
    """
    if status is not None:
        from jobs.tune.status import read_status

        require_apart(json, status)
        state = read_status(status)
        report_figures(state.text(), state.values(), json)
        return
    job = read_job("tune", settings)
    require_apart(json, job.run_dir)
    if plan:
        from jobs.tune.plan import plan_sweep

        planned = plan_sweep(job)
        report_figures(planned.text(), planned.values(), json)
        return
    state = run_job("tune", job)
    report_figures(state.text(), state.values(), json)


@command(
    example="wpcrack evaluate --model runs/city --images photos --masks masks --json scores.json"
)
def evaluate(
    images: Annotated[Path | None, typer.Option(help="Folder of photographs.")] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Masks of the same stems, with or without _mask.")
    ] = None,
    windows: Annotated[
        Path | None,
        typer.Option(help="Instead of both: labeled windows, as `wpcrack label` makes them."),
    ] = None,
    model: Model = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Score only source images of this manifest.csv.")
    ] = None,
    split: Annotated[
        Literal["train", "val"] | None,
        typer.Option(help="Which of them (default: val; of windows those not trained on)."),
    ] = None,
    resize: Annotated[
        int | None, typer.Option(help="Also score after resizing to N x N.", metavar="N")
    ] = None,
    road: Annotated[
        Path | None, typer.Option(help="Photographs without any crack, for false alarms.")
    ] = None,
    json: Annotated[Path | None, to_file("the scores")] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw the best and the worst images.", metavar="FILE.png"),
    ] = None,
    engine: EngineName = "auto",
    mask_values: MaskValues = "",
    gsd_mm: Annotated[
        float | None, typer.Option(help="With windows: pixel size, if they are cut from tiles.")
    ] = None,
) -> None:
    """Score a model by masks, or by labels of windows.

    Masks say how well it marks cracks, labels of windows how often it rightly finds one.
    """
    if windows is not None:
        if any((images, masks, manifest, resize, road, figure, mask_values)):
            raise typer.BadParameter("with --windows only --model, --split, --engine, --gsd-mm")
        from jobs.evaluate.windows import WindowOptions, evaluate_windows

        seen = evaluate_windows(WindowOptions(model, windows, split, engine, gsd_mm))
        report_figures(seen.summary(), seen.values(), json)
        return
    if images is None or masks is None:
        raise typer.BadParameter("give --images and --masks, or --windows")
    if gsd_mm is not None:
        raise typer.BadParameter("--gsd-mm belongs to --windows")
    from jobs.evaluate.run import EvaluateOptions

    require_place_for(figure)
    folders = (model, images, masks, manifest, split, resize, road)
    options = EvaluateOptions(
        *folders, figure=figure, engine=engine, mask_values=_numbers(mask_values)
    )
    scored = run_job("evaluate", options)
    report_figures(scored.summary(), scored.values(), json)
    if scored.figure_error is not None:
        raise scored.figure_error


@command(example="wpcrack predict --out found photo.jpg")
def predict(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE|DIR...", help="Photographs, or folders of them.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for STEM_prob.png, _mask.png, _overlay.png.")],
    model: Model = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="A pixel is crack from this probability on.")
    ] = 0.5,
    engine: EngineName = "auto",
) -> int:
    """Find cracks in plain photographs."""
    report = run_job("predict", model, out, images, threshold=threshold, engine=engine)
    return int(report.exit_code)


@command(example="wpcrack import-weights wpcracknet.ckpt --out runs/released")
def import_weights(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Checkpoint or state dict.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
) -> None:
    """Make a run folder of the paper's released weights.

    No code in the file is run; tensors that do not fit are named.
    """
    run_job("import-weights", file, out)


@command(example="wpcrack pretrain --out runs/drawn train.steps=1500")
def pretrain(
    out: Annotated[Path, typer.Option(help="Run folder; continued if it is unfinished.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings; `wpcrack config pretrain` lists them."),
    ] = None,
) -> None:
    """Make a model like the one that ships with the program.

    It learns from drawn pavement alone: no photograph and no label is read.
    """
    run_job("pretrain", read_job("pretrain", settings), out)


@command(example="wpcrack adapt --images photos --out runs/here")
def adapt(
    out: Annotated[Path, typer.Option(help="Run folder; continued if it is unfinished.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="tiles=... and keys of imagery as for infer, or settings of the adaption; "
            "`wpcrack config adapt` lists them.",
        ),
    ] = None,
    images: InPlaceOfTiles = None,
    model: Model = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it will do and need, and do nothing.")
    ] = False,
    json: Annotated[Path | None, to_file("plan or result")] = None,
) -> None:
    """Adapt a model to your roads, from unlabeled pictures.

    The model labels the pictures where it is sure, and learns from that beside drawn pavement. If
    it did not get better, the one that it started from is kept.
    """
    from jobs.adapt.job import AdaptJob, AdaptOptions
    from jobs.settings.load import load, refuse_repeated

    given = settings or []
    require_one_source(given, images)
    require_apart(json, out)
    model_type = AdaptJob if images is None else AdaptOptions
    refuse_repeated(given, model_type)
    config = load(model_type, overrides=given)
    if plan:
        from jobs.adapt.plan import plan_adapt

        planned = plan_adapt(config, out, model=model, images=images)
        report_figures(planned.text(), planned.values(), json)
        return
    report = run_job("adapt", config, out, model=model, images=images)
    report_figures(report.summary(), report.values(), json)


def _numbers(text: str) -> tuple[int, ...]:
    """Read `1,2` as numbers."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise typer.BadParameter(f"got --mask-values {text}; give whole numbers like 1,2") from None
