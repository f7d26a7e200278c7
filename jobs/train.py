"""Image-level data set -> model, on Ray Train.

    wpcrack train configs/train.yaml data.root=out/set run_dir=out/run
    python -m jobs.train configs/train.yaml data.root=out/set run_dir=out/run

The same command continues an unfinished run.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jobs.ray_session import prepare_environment, ray_session, stop_on_sigterm
from jobs.train_folder import CARD, METRICS, REPORT, open_run, read_metrics, write_text
from jobs.train_job import TrainJob
from jobs.train_progress import ProgressLines
from wpcrack.errors import TrainingError, WpcrackError
from wpcrack.image_level import ImageLevelSet, Item, read_image_level
from wpcrack.images import read_rgb

__all__ = ["TrainJob", "TrainReport", "run_training"]


@dataclass(frozen=True)
class TrainReport:
    """What a finished run gave."""

    run_dir: Path
    epochs: int
    best_epoch: int
    score: float
    """Label-free selection score of the kept model."""
    seconds: float
    already_finished: bool = False


def run_training(job: TrainJob, *, local: bool = False) -> TrainReport:
    """Trains, or continues, the run in `job.run_dir`.

    Args:
        job: What to do.
        local: Use a Ray of our own even if RAY_ADDRESS names another.

    Raises:
        WpcrackError: Unusable data or settings, a loss that is not finite, lost workers.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the last checkpoint is kept and the user is told so.
    """
    with stop_on_sigterm():
        data = read_image_level(job.data.root, val_fraction=job.data.val_fraction, seed=job.seed)
        with open_run(job) as root:
            finished = read_report(root)
            if finished is not None:
                say(f"{job.run_dir} is finished already; resume=never trains anew")
                return finished
            for warning in data.warnings:
                say(f"warning: {warning}")
            check_readable(data.items)
            started = time.monotonic()
            try:
                with ProgressLines(root / METRICS):
                    fit(job, local)
            except KeyboardInterrupt:
                epochs = len(read_metrics(root / METRICS))
                say(
                    f"interrupted: {epochs} epochs are finished and kept in {job.run_dir}; "
                    "the same command continues"
                )
                raise
            return finish(root, job, data, time.monotonic() - started)


def fit(job: TrainJob, local: bool) -> None:
    """Runs the loop on Ray Train, or with num_workers=0 in this process."""
    prepare_environment()
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    from jobs.train_loop import train_loop

    logging.getLogger("ray.train").setLevel(logging.WARNING)  # the job shows its own lines
    scaling, root = job.scaling, job.run_dir.absolute()
    resources: dict[str, float] = {"CPU": scaling.threads}
    if scaling.use_gpu:
        resources["GPU"] = 1
    config = job.model_copy(
        update={
            "run_dir": root,
            "data": job.data.model_copy(update={"root": job.data.root.absolute()}),
        }
    )
    trainer = TorchTrainer(
        train_loop,
        train_loop_config=config.model_dump(mode="json"),
        scaling_config=ScalingConfig(
            num_workers=scaling.num_workers,
            use_gpu=scaling.use_gpu,
            resources_per_worker=resources if scaling.num_workers else None,
        ),
        run_config=RunConfig(
            name=root.name,
            storage_path=str(root.parent),
            failure_config=FailureConfig(max_failures=scaling.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=scaling.num_to_keep),
        ),
    )
    cpus = scaling.num_workers * scaling.threads
    gpus = scaling.num_workers if scaling.use_gpu else 0
    with training_session(cpus, gpus, local, in_process=scaling.num_workers == 0):
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise explained(error) from error


@contextmanager
def training_session(cpus: int, gpus: int, local: bool, *, in_process: bool) -> Iterator[None]:
    """Ray for the workers; in-process training needs none."""
    if in_process:
        yield
        return
    with ray_session(cpus, gpus=gpus, dashboard=True, local=local):
        yield


def explained(error: Exception) -> WpcrackError:
    """The error of the user's input that ended the workers, or a sentence about the loss of one."""
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    for failure in failures.values():
        cause = getattr(failure, "_base_exc", failure)
        if isinstance(cause, WpcrackError):
            return cause
    text = str(next(iter(failures.values()), error)).strip().splitlines()
    return TrainingError(
        f"the workers failed ({text[-1] if text else type(error).__name__}); the last checkpoint "
        "is kept and the same command continues from it"
    )


def check_readable(items: Sequence[Item]) -> None:
    """Decodes every image once, so that a broken one is named before Ray starts.

    Raises:
        DataError: An image is truncated or unreadable.
    """
    for item in items:
        read_rgb(item.path)


def finish(root: Path, job: TrainJob, data: ImageLevelSet, seconds: float) -> TrainReport:
    """Writes report.json and the model card."""
    lines = read_metrics(root / METRICS)
    best = max((line for line in lines if line["best"]), key=lambda x: x["epoch"], default=None)
    if best is None:
        raise TrainingError(
            f"{job.run_dir} holds no model: train.steps.adversarial and train.steps.detector are "
            "0; set at least one of them"
        )
    values = {
        "epochs": len(lines),
        "best_epoch": best["epoch"],
        "score": best["val/score"],
        "selection": "label-free score on held-out sources; selected on this split",
        "val": {k.removeprefix("val/"): v for k, v in best.items() if k.startswith("val/")},
        "items": counts(data),
        "seconds": round(seconds, 1),
        "seed": job.seed,
        "versions": {name: version(name) for name in ("wpcrack", "torch", "timm", "ray")},
    }
    write_text(root / CARD, model_card(job, values))
    write_text(root / REPORT, json.dumps(values, indent=2) + "\n")
    report = read_report(root)
    assert report is not None
    say(
        f"best epoch {report.best_epoch} of {report.epochs}, score {report.score:.3f}; "
        f"model in {job.run_dir / 'model'}"
    )
    return TrainReport(job.run_dir, report.epochs, report.best_epoch, report.score, seconds)


def read_report(root: Path) -> TrainReport | None:
    """The report of a finished run."""
    path = root / REPORT
    if not path.exists():
        return None
    values = json.loads(path.read_text(encoding="utf-8"))
    return TrainReport(
        root, values["epochs"], values["best_epoch"], values["score"], values["seconds"], True
    )


def counts(data: ImageLevelSet) -> dict[str, dict[str, int]]:
    """Items and sources per split."""
    return {
        name: {
            "crack": sum(i.has_crack for i in part),
            "road": sum(not i.has_crack for i in part),
            "sources": len({i.source for i in part}),
        }
        for name, part in (("train", data.train), ("val", data.val))
    }


def model_card(job: TrainJob, values: dict[str, Any]) -> str:
    """Markdown: what the model is, what it was trained on, how it scored, what it cannot do."""
    gsd = f"{job.data.gsd_mm:g} mm" if job.data.gsd_mm else "photographs, pixel size unknown"
    rows = [
        f"| {name} | {c['crack']} | {c['road']} | {c['sources']} |"
        for name, c in values["items"].items()
    ]
    scores = [f"| {name} | {value:.4f} |" for name, value in values["val"].items()]
    versions = ", ".join(f"{name} {number}" for name, number in values["versions"].items())
    return "\n".join(
        [
            "# Model card",
            "",
            "Road crack detector learned from image-level labels (WP-CrackNet, arXiv 2510.17566).",
            "",
            f"* Data: `{job.data.root}`; licence as stated by the user: {job.data.license}",
            f"* Pixel size: {gsd}",
            f"* Encoder: {job.model.encoder}, seed {job.seed}, batch {job.train.batch_size}",
            f"* Versions: {versions}",
            "",
            "| split | crack | road | sources |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Epoch {values['best_epoch']} of {values['epochs']} was selected without pixel labels",
            "on the val split; the figures below are selected on this split:",
            "",
            "| figure | value |",
            "|---|---|",
            *scores,
            "",
            "Not claimed: a pavement condition index. Sealed cracks, joints and shadows may be",
            "confused with cracks on surfaces unlike the training images.",
            "",
        ]
    )


def say(text: str) -> None:
    """One line for the user."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    from jobs.cli import run_command

    run_command("train")
